package syncer

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// Outcomes are recorded together, because a commit waits for the disk. When nothing else is to be done, none waits; in a long
// outbox, one waits for others for batchTime at most. What a crash loses of them is delivered again, and found to be there.
const (
	batchSize = 64
	batchTime = 50 * time.Millisecond
)

// desk is who delivers.
var desk = audit.Officer{UID: audit.DeskUID, Name: "tokendeskd"}

// outcome is what became of an entry.
type outcome struct {
	change    vault.Change
	obsolete  string // why it was dropped
	seen      Observation
	problem   string // why it could not be delivered
	refused   bool
	closed    bool      // of a Remove: nobody can log in with the token, and something of it is left
	notBefore time.Time // when it is tried again
	followed  bool      // by another entry, which asks for the same as of now
}

func (o *outcome) failed() bool { return o.problem != "" }

type outcomes []outcome

// of returns the outcome of an entry, or nil.
func (l outcomes) of(seq uint64) *outcome {
	i := slices.IndexFunc(l, func(o outcome) bool { return o.change.Seq == seq })
	if i < 0 {
		return nil
	}
	return &l[i]
}

// books are the outcomes that are not recorded yet. They are recorded while others come in.
type books struct {
	writer sync.Mutex // held by whoever records; taken before mu

	mu      sync.Mutex
	done    outcomes
	writing outcomes // being recorded
	timer   *time.Timer
	lost    error // why some could not be recorded; their entries are delivered again
}

// open is the outcomes that a transaction which begins after it may not know.
func (b *books) open() unrecorded {
	b.mu.Lock()
	defer b.mu.Unlock()
	return unrecorded{b.writing, b.done}
}

type unrecorded struct{ older, newer outcomes }

func (u unrecorded) of(seq uint64) *outcome {
	if o := u.newer.of(seq); o != nil {
		return o
	}
	return u.older.of(seq)
}

// removed tells whether an entry was delivered or dropped.
func (u unrecorded) removed(seq uint64) bool {
	o := u.of(seq)
	return o != nil && !o.failed()
}

// note has an outcome recorded, soon. Of a cut-off that is at once, with all that came before; and also when what is being
// recorded takes too long.
func (o *Outbox) note(out outcome) error {
	b := &o.books
	b.mu.Lock()
	b.done = append(b.done, out)
	n := len(b.done)
	switch n {
	case 1:
		b.timer = time.AfterFunc(batchTime, func() { o.catchUp() })
	case batchSize:
		b.timer.Reset(0)
	}
	b.mu.Unlock()
	if out.change.Kind.CutOff() || n >= 2*batchSize {
		return o.catchUp()
	}
	return nil
}

// catchUp has all outcomes recorded. That some could not be is also told by record.
func (o *Outbox) catchUp() error {
	o.books.writer.Lock()
	defer o.books.writer.Unlock()
	return o.writeAll()
}

// record has all outcomes recorded, and returns why some could not be since it was last called.
func (o *Outbox) record() error {
	b := &o.books
	b.writer.Lock()
	defer b.writer.Unlock()
	o.writeAll()
	b.mu.Lock()
	defer b.mu.Unlock()
	lost := b.lost
	b.lost = nil
	return lost
}

// writeAll records the outcomes in one transaction or, if the vault does not take them together, each by itself. The caller
// is the writer.
func (o *Outbox) writeAll() error {
	b := &o.books
	b.mu.Lock()
	if len(b.done) == 0 {
		b.mu.Unlock()
		return nil
	}
	b.timer.Stop()
	done := b.done
	b.writing, b.done = done, nil
	b.mu.Unlock()

	err := o.write(done)
	if err != nil && len(done) > 1 && !isUnusable(err) && !errors.Is(err, vault.ErrClosed) {
		err = o.writeEach(done)
	}

	b.mu.Lock()
	b.writing, b.lost = nil, errors.Join(b.lost, err)
	b.mu.Unlock()
	o.announce()
	return err
}

// writeEach records outcomes one by one, but none of a token of which an earlier one could not be: they go in order.
func (o *Outbox) writeEach(done outcomes) (err error) {
	var stuck []device.TokenID
	for i := range done {
		if id := done[i].change.Token; !slices.Contains(stuck, id) {
			if e := o.write(done[i : i+1]); e != nil {
				stuck, err = append(stuck, id), e
			}
		}
	}
	return err
}

// write records outcomes in one transaction.
func (o *Outbox) write(done outcomes) error {
	err := o.v.Update(func(tx *vault.Tx) error {
		for i := range done {
			if err := done[i].write(tx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range done {
		if o.tell(&done[i]); done[i].followed {
			o.Wake()
		}
	}
	o.advance(done)
	return nil
}

func (o *Outbox) tell(out *outcome) {
	c := out.change
	log := o.log.With("change", c.Seq, "kind", c.Kind, "token", c.Token, "user", c.User)
	switch {
	case out.obsolete != "":
		log.Info("dropped an obsolete change", "because", out.obsolete, "generation", c.Generation, "parked", c.Parked)
	case out.refused:
		log.Warn("parked a change", "problem", out.problem)
	case out.failed():
		log.Warn("cannot deliver yet", "problem", out.problem, "attempts", c.Attempts+1, "again", out.notBefore)
	default:
		log.Info("delivered", "counter", out.seen.Counter, "attempts", c.Attempts+1)
	}
}

func (o *outcome) write(tx *vault.Tx) error {
	if o.failed() {
		return o.writeFailure(tx)
	}
	if err := tx.DeleteChange(o.change.Seq); err != nil && !errors.Is(err, vault.ErrNotFound) {
		return err
	}
	pushed := o.act()
	if o.obsolete != "" {
		pushed.Outcome = "obsolete"
	}
	if err := tx.Audit(pushed); err != nil {
		return err
	}
	if o.obsolete != "" {
		return o.follow(tx)
	}
	return o.raise(tx)
}

// follow leaves word once more of an assignment that was dropped because the token got another seed on the way: the Put of that
// seed says nothing of whose it is.
func (o *outcome) follow(tx *vault.Tx) error {
	c := o.change
	if c.Kind != vault.Assign {
		return nil
	}
	t, err := tx.Token(c.Token)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return nil
	case err != nil:
		return err
	case !strings.EqualFold(c.User, t.Owner), t.Generation <= c.Generation:
		return nil
	}
	waiting, err := tx.ChangesOf(t.ID)
	if err != nil {
		return err
	}
	for _, w := range waiting {
		if w.Kind == vault.Assign && w.Generation == t.Generation && strings.EqualFold(w.User, t.Owner) {
			return nil
		}
	}
	next := vault.Change{Kind: vault.Assign, Token: t.ID, User: t.Owner, Generation: t.Generation, Counter: t.Counter, Digits: t.Digits, After: c.After}
	if c.Parked && c.ParkedBy != (audit.Officer{}) {
		next.Parked, next.ParkedBy, next.Reason = true, c.ParkedBy, c.Reason
	}
	_, err = tx.Enqueue(next)
	o.followed = err == nil
	return err
}

func (o *outcome) act() audit.Act {
	return vault.Done(desk, "push "+string(o.change.Kind), o.change.Token, o.change.User)
}

// raise takes the token's counter to what was seen.
func (o *outcome) raise(tx *vault.Tx) error {
	t, err := tx.Token(o.change.Token)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return nil
	case err != nil:
		return err
	case t.Generation != o.change.Generation || o.seen.Counter <= t.Counter:
		return nil
	}
	if other, err := replacing(tx, t); err != nil || other {
		return err
	}
	t.Counter = o.seen.Counter
	return tx.PutToken(t)
}

// writeFailure notes why an entry could not be delivered in what it is by now: an officer may have parked it meanwhile.
func (o *outcome) writeFailure(tx *vault.Tx) error {
	c, err := tx.ChangeAt(o.change.Seq)
	if errors.Is(err, vault.ErrNotFound) {
		return nil // removed meanwhile
	}
	if err != nil {
		return err
	}
	c.Attempts++
	c.Problem, c.NotBefore = o.problem, o.notBefore
	if o.closed {
		c.Closed = true
	}
	if o.closed && c.User != "" {
		closed := o.act()
		closed.Outcome = "closed"
		if err := tx.Audit(closed); err != nil {
			return err
		}
		c.User = "" // whose next token need not wait for it
	}
	if o.refused {
		c.Parked = true
		parked := o.act()
		parked.Outcome, parked.Reason = "parked", o.problem
		if err := tx.Audit(parked); err != nil {
			return err
		}
	}
	return tx.PutChange(c)
}
