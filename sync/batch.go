package syncer

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

const (
	// batchLines is how many lines make a transaction: others wait for it, a third of a second.
	batchLines = 4000
	// firstLines is how many the first one has, for which there is nothing to do meanwhile; each has twice as many as the one before.
	firstLines = 250
	// batchOthers is for how many lines of a batch that nothing fits other tokens are searched, which takes as long as thousands of
	// lines.
	batchOthers = 16
)

// BatchLine is a token and two or three consecutive codes of it, oldest first.
type BatchLine struct {
	Line  int // where it stands, for people
	Token device.TokenID
	Codes []string
}

// BatchResult is what became of a line.
type BatchResult struct {
	Line  int
	Token device.TokenID
	Owner string
	From  uint64 // the next moving factor before
	To    uint64 // and after
	// Err is nil if the counter was moved. It is a *MissError, a *SlowDownError, vault.ErrNotFound, what may has refused it with, or
	// why nothing could be tried.
	Err error
}

// ResyncBatch resyncs many tokens: like Begin and Resync for each line, in order where a token has several, but up to 4000 lines are
// one transaction, and the central service is not asked for each counter: those are known as the last refresh has read them. What is
// found beyond the window is a result like any other, and asks for no approval. may refuses tokens that are not the officer's to
// resync now; it may be nil, is called in a transaction that reads, and by several goroutines. tell says how many lines are done; it
// may be nil too.
//
// There is a result for each line, in their order. An error means that the lines whose Err wraps it were not tried or, if the vault
// could not tell, that it is not known what became of them. A token whose counter is as old as a backup is refused: the central
// service has to be asked first.
func (o *Outbox) ResyncBatch(ctx context.Context, by audit.Officer, lines []BatchLine, may func(*vault.Tx, vault.Token) error, tell func(done, of int)) ([]BatchResult, error) {
	o.placing.Lock()
	defer o.placing.Unlock()
	defer o.Wake()
	b := &batch{o: o, by: by, may: may, others: batchOthers, lines: lines, results: make([]BatchResult, len(lines))}
	for i, l := range lines {
		b.results[i] = BatchResult{Line: l.Line, Token: l.Token}
	}
	parts := b.parts()
	ready, stop := make(chan struct{}), make(chan struct{})
	var failed error
	go func() { // finds what the next transaction writes while one is written
		defer close(ready)
		workers := runtime.GOMAXPROCS(0)
		for _, part := range parts {
			if failed = b.find(ctx, part, workers); failed != nil {
				return
			}
			workers = max(1, runtime.GOMAXPROCS(0)-1) // from now on one processor writes
			select {
			case ready <- struct{}{}:
			case <-stop:
				return
			}
		}
	}()
	done := 0
	for i, part := range parts {
		err := ctx.Err()
		if _, ok := <-ready; !ok {
			err = failed
		}
		if err == nil {
			err = b.write(part)
		}
		if err != nil {
			close(stop)
			for range ready {
			}
			b.giveUp(parts[i:], err)
			return b.results, err
		}
		if done += countLines(part); tell != nil {
			tell(done, len(lines))
		}
	}
	return b.results, nil
}

type batch struct {
	o       *Outbox
	by      audit.Officer
	may     func(*vault.Tx, vault.Token) error
	others  int // how many more times other tokens may be searched
	lines   []BatchLine
	results []BatchResult
}

// sheaf is the lines of one token.
type sheaf struct {
	id     device.TokenID
	lines  []int // in the batch
	places []uint64
	read   vault.Reading // as its lines were looked for
	tries  vault.Attempts
	seed   secret.Secret
}

// parts gathers the lines by token, so that all of one are in the same transaction, and divides them into transactions.
func (b *batch) parts() (parts [][]*sheaf) {
	known := map[device.TokenID]*sheaf{}
	var all []*sheaf
	for i, l := range b.lines {
		s := known[l.Token]
		if s == nil {
			s = &sheaf{id: l.Token}
			known[l.Token] = s
			all = append(all, s)
		}
		s.lines = append(s.lines, i)
	}
	full := firstLines
	for first, n, i := 0, 0, 0; i < len(all); i++ {
		n += len(all[i].lines)
		if n >= full || i == len(all)-1 {
			full = min(2*full, batchLines)
			part := all[first : i+1]
			slices.SortFunc(part, func(a, b *sheaf) int { return strings.Compare(string(a.id), string(b.id)) }) // neighbours are written faster
			parts = append(parts, part)
			first, n = i+1, 0
		}
	}
	return parts
}

func countLines(part []*sheaf) (n int) {
	for _, s := range part {
		n += len(s.lines)
	}
	return n
}

func (b *batch) giveUp(parts [][]*sheaf, err error) {
	for _, part := range parts {
		for _, s := range part {
			for _, i := range s.lines {
				b.results[i].Err, b.results[i].To = err, 0
			}
		}
	}
}

// find looks for the counters of a part's lines, on some processors.
func (b *batch) find(ctx context.Context, part []*sheaf, workers int) error {
	var g errgroup.Group
	workers = min(workers, len(part))
	for w := range workers {
		mine := part[w*len(part)/workers : (w+1)*len(part)/workers]
		g.Go(func() error {
			defer wipeSeeds(mine)
			if err := b.read(mine); err != nil {
				return err
			}
			for _, s := range mine {
				if err := ctx.Err(); err != nil {
					return err
				}
				b.place(s)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return b.findOthers(ctx, part)
}

func wipeSeeds(part []*sheaf) {
	for _, s := range part {
		s.seed.Wipe()
	}
}

// read takes what is needed of tokens out of the vault, in one transaction: none begins while another one is being committed.
func (b *batch) read(part []*sheaf) error {
	return b.o.v.View(func(tx *vault.Tx) error {
		for _, s := range part {
			err := b.readOne(tx, s)
			if known := b.refusal(err); known != nil {
				for _, i := range s.lines {
					b.results[i].Err = known
				}
				continue
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// refused is what may has said about a token.
type refused struct{ error }

func (b *batch) refusal(err error) error {
	var no refused
	var miss *MissError
	var slow *SlowDownError
	switch {
	case errors.As(err, &no):
		return no.error
	case errors.As(err, &miss), errors.As(err, &slow), errors.Is(err, vault.ErrNotFound):
		return err
	}
	return nil
}

func (b *batch) readOne(tx *vault.Tx, s *sheaf) (err error) {
	if s.read, err = tx.ReadToken(s.id); err != nil {
		return err
	}
	if b.may != nil {
		if err := b.may(tx, s.read.Token); err != nil {
			return refused{err}
		}
	}
	if s.read.Token.Generation == 0 {
		return &MissError{Token: s.id, Miss: Miss{Kind: MissUnverified}}
	}
	if s.read.Token.Stale {
		return &MissError{Token: s.id, Miss: Miss{Kind: MissRestored}}
	}
	if s.tries, err = tx.Attempts(vault.TokenAttempts(s.id)); err != nil {
		return err
	}
	if err := b.o.mayTry(tx, s.id); err != nil {
		return err
	}
	s.seed, err = tx.Seed(s.id, s.read.Token.Generation)
	return err
}

// place looks for the codes of a token's lines, one line after the other.
func (b *batch) place(s *sheaf) {
	if s.seed.IsZero() { // it was refused
		return
	}
	s.places = make([]uint64, len(s.lines))
	base, digits, forgiven, failures := s.read.Token.Counter, s.read.Token.Digits, s.tries.Failures, s.tries.Failures
	for k, i := range s.lines {
		r, codes := &b.results[i], b.lines[i].Codes
		r.Owner = s.read.Token.Owner
		switch wait := TokenPace.delay(failures); {
		case len(codes) < 2 || len(codes) > 3:
			r.Err = &MissError{Token: s.id, Miss: Miss{Kind: MissCount}}
			continue
		case failures > forgiven && wait > 0:
			r.Err = &SlowDownError{Until: b.o.now().Add(wait), Failures: failures}
			continue
		}
		n, found := searchAhead(s.seed, digits, base, ResyncWindow, codes)
		if !found {
			e := &MissError{Token: s.id, Miss: ExplainMiss(s.seed, digits, base, ResyncWindow, codes)}
			e.Miss.Generation = s.read.Token.Generation
			if r.Err = e; e.Miss.Guessed() {
				failures++
			}
			continue
		}
		s.places[k], base, failures, forgiven = n, n+uint64(len(codes)), 0, 0
	}
}

// findOthers says of the first few lines that nothing fits whose codes they are.
func (b *batch) findOthers(ctx context.Context, part []*sheaf) error {
	for _, s := range part {
		for _, i := range s.lines {
			var e *MissError
			if b.others == 0 || !errors.As(b.results[i].Err, &e) || e.Miss.Kind != MissNothing {
				continue
			}
			b.others--
			if err := e.findOther(ctx, b.o, b.lines[i].Codes); err != nil {
				return err
			}
		}
	}
	return nil
}

// write moves the counters of a part's tokens, and records what did not fit.
func (b *batch) write(part []*sheaf) error {
	return b.o.v.Update(func(tx *vault.Tx) error {
		now := b.o.now()
		var changes []vault.Change
		for _, s := range part {
			if s.places == nil {
				continue
			}
			t, err := b.writeOne(tx, s, now)
			if err != nil {
				return err
			}
			if t.ID != "" {
				changes = append(changes, advanceOf(&t))
			}
			s.read = vault.Reading{} // which nobody needs any more
		}
		return tx.EnqueueAll(changes)
	})
}

// writeOne moves the counter of one token, and returns that; none if it was not moved.
func (b *batch) writeOne(tx *vault.Tx, s *sheaf, now time.Time) (moved vault.Token, err error) {
	t, err := tx.TokenSince(s.read)
	if errors.Is(err, vault.ErrNotFound) {
		b.giveUp([][]*sheaf{{s}}, err)
		return moved, nil
	}
	if err != nil {
		return moved, err
	}
	before := t.Counter
	recorded := map[MissKind]bool{MissCount: true} // of slips: one of each kind tells, as the trail is for ever
	for k, i := range s.lines {
		r := &b.results[i]
		var miss *MissError
		switch {
		case errors.As(r.Err, &miss):
			if kind := miss.Miss.Kind; !miss.Miss.Guessed() {
				if recorded[kind] {
					continue
				}
				recorded[kind] = true
			}
			if err := miss.record(tx, b.by, actResync, t, now); err != nil {
				return moved, err
			}
			continue
		case r.Err != nil:
			continue
		case t.Generation != s.read.Token.Generation || t.Counter > s.places[k]:
			r.Err = &MissError{Token: s.id, Miss: Miss{Kind: MissChanged}}
			continue
		}
		r.From, r.To = t.Counter, s.places[k]+uint64(len(b.lines[i].Codes))
		t.Counter = r.To
		if err := errors.Join(forgive(tx, t.ID), tx.Audit(vault.Done(b.by, actResync, t.ID, t.Owner))); err != nil {
			return moved, err
		}
	}
	if t.Counter == before {
		return moved, nil
	}
	return t, move(tx, &t, t.Counter)
}
