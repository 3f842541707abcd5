package syncer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
)

// perTransaction is how many tokens one transaction touches at most.
const perTransaction = 500

// reading is one provider being read.
type reading struct {
	r        *Refresher
	cycle    *cycle
	provider string
	key      string
	keys     map[string]string
	good     time.Time // when the last complete reading of the provider began; zero if there was none since the start
}

// finding is what one Reading means for its token. It changes nothing.
type finding struct {
	token    vault.Token // as it is to be
	changed  bool        // so it has to be written
	moved    bool        // its counter or its last use moved elsewhere
	level    bool        // a provider is behind
	back     []Rollback  // new, or gone further back
	over     []Rollback
	unknown  bool // not in the vault, or not with this seed
	awaiting bool // the token's seed is still to be put there: what is there now tells nothing
}

// take brings the vault up to date with a page, in transactions of their own. What needs no write is only read.
func (p *reading) take(page []Reading) error {
	for part := range slices.Chunk(page, perTransaction) {
		if err := p.takePart(part); err != nil {
			return err
		}
	}
	return nil
}

func (p *reading) takePart(page []Reading) error {
	now := time.Now().UTC()
	var telling []Reading
	unknown := 0
	err := p.r.v.View(func(tx *vault.Tx) error {
		for _, r := range page {
			f, err := p.judge(tx, r, now)
			switch {
			case err != nil:
				return err
			case f.unknown:
				unknown++
			case f.changed || f.level:
				telling = append(telling, r)
			}
		}
		return nil
	})
	if err != nil {
		return p.cycle.fail(err)
	}
	var found []finding
	levelled := 0
	if len(telling) > 0 {
		err := p.r.v.Update(func(tx *vault.Tx) error {
			for _, r := range telling {
				f, err := p.judge(tx, r, now)
				if err != nil {
					return err
				}
				if f.level {
					if f.level, err = level(tx, f.token); err != nil {
						return err
					}
				}
				if err := p.record(tx, f); err != nil {
					return err
				}
				if f.level {
					levelled++
				}
				found = append(found, f)
			}
			return nil
		})
		if err != nil {
			return p.cycle.fail(err)
		}
	}
	p.count(len(page), unknown, levelled, found)
	return nil
}

// judge compares a Reading with what is known of its token.
func (p *reading) judge(tx *vault.Tx, r Reading, now time.Time) (f finding, err error) {
	id, ok := device.ParseCentral(r.Central)
	if !ok {
		return finding{unknown: true}, nil
	}
	t, err := tx.Token(id)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return finding{unknown: true}, nil
	case err != nil:
		return f, err
	case !r.Ours || r.Generation != t.Generation || t.Generation == 0:
		return finding{unknown: true}, nil
	}
	before := t
	s := parseSeen(t.Seen)
	if s.generation != t.Generation {
		for _, o := range s.renew(t.Generation, now) {
			f.over = append(f.over, o.rollback(id, p.keys))
		}
	}
	last, known := s.note(p.key, r.Counter, now)
	p.judgeRollback(&f, &s, id, last, known, r.Counter, now)
	raised := r.Counter > t.Counter
	used := r.LastUsed.UTC()
	if used.After(now) {
		used = now // the server's clock is ahead
	}
	switch {
	case raised && used.IsZero():
		t.Counter, t.LastUsed = r.Counter, now
	case raised:
		t.Counter, t.LastUsed = r.Counter, latest(used, t.LastUsed)
	case used.After(t.LastUsed):
		t.LastUsed = used
	}
	f.moved = t != before
	if !known || last.counter != r.Counter || len(f.back)+len(f.over) > 0 {
		t.Seen = s.encode(p.keys, now)
		t.WentBack = len(parseSeen(t.Seen).rollbacks) > 0
	}
	f.token, f.changed = t, t != before
	f.level = r.Counter < t.Counter || raised && p.othersBehind(s, t.Counter)
	if f.changed || f.level {
		if f.awaiting, err = isAwaiting(tx, t); f.awaiting {
			return finding{awaiting: true}, err
		}
	}
	return f, err
}

// judgeRollback looks whether the provider went back, or came back.
func (p *reading) judgeRollback(f *finding, s *seen, id device.TokenID, last sighting, known bool, counter uint64, now time.Time) {
	open := s.open(p.key)
	switch {
	case open != nil && counter >= open.from:
		open.repaired = now
		f.over = append(f.over, open.rollback(id, p.keys))
	case open != nil && counter < open.to:
		open.to = counter
		f.back = append(f.back, open.rollback(id, p.keys))
	case open == nil && known && counter < last.counter:
		r := sighted{p.key, last.counter, counter, latest(p.good, last.since), now, time.Time{}}
		s.start(r)
		f.back = append(f.back, r.rollback(id, p.keys))
	}
}

// othersBehind tells whether another provider, which can be reached, showed less than next.
func (p *reading) othersBehind(s seen, next uint64) bool {
	return slices.ContainsFunc(s.at, func(x sighting) bool {
		return x.provider != p.key && x.counter < next && p.cycle.reaches(x.provider)
	})
}

// record writes a finding.
func (p *reading) record(tx *vault.Tx, f finding) error {
	if !f.changed {
		return nil
	}
	for _, b := range f.back {
		act := vault.Done(desk, "counter went back", b.Token, f.token.Owner)
		act.Outcome, act.Reason = "noticed", strings.TrimPrefix(act.Reason+": ", ": ")+b.String()
		if err := tx.Audit(act); err != nil {
			return err
		}
	}
	for _, o := range f.over {
		act := vault.Done(desk, "counter went back", o.Token, f.token.Owner)
		act.Outcome, act.Reason = "repaired", strings.TrimPrefix(act.Reason+": ", ": ")+o.String()
		if err := tx.Audit(act); err != nil {
			return err
		}
	}
	return tx.PutToken(f.token)
}

// String tells it with the window in which used codes could pass.
func (r Rollback) String() string {
	since := "an unknown time"
	if !r.LastGood.IsZero() {
		since = r.LastGood.Format(time.RFC3339)
	}
	text := fmt.Sprintf("%s went from counter %d back to %d: codes used before could pass there from %s", r.Provider, r.From, r.To, since)
	if r.Repaired.IsZero() {
		return text + " on, and still can"
	}
	return text + " to " + r.Repaired.Format(time.RFC3339)
}

// level enqueues what brings the token's counter to all providers, unless that waits already or somebody works on the token.
func level(tx *vault.Tx, t vault.Token) (bool, error) {
	if t.Status == vault.Limbo {
		return false, nil
	}
	if _, busy, err := tx.JobFor(t.ID); err != nil || busy {
		return false, err
	}
	waiting, err := tx.ChangesOf(t.ID)
	if err != nil {
		return false, err
	}
	for _, c := range waiting {
		if c.Kind == vault.Advance && c.Generation == t.Generation {
			return false, nil
		}
	}
	_, err = tx.Enqueue(vault.Change{
		Kind: vault.Advance, Token: t.ID, User: t.Owner, Generation: t.Generation, Counter: t.Counter, Digits: t.Digits,
	})
	return err == nil, err
}

// isAwaiting tells whether the token's own seed is still to be put there.
func isAwaiting(tx *vault.Tx, t vault.Token) (bool, error) {
	waiting, err := tx.ChangesOf(t.ID)
	return slices.ContainsFunc(waiting, func(c vault.Change) bool {
		return c.Kind == vault.Put && c.Generation == t.Generation
	}), err
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
