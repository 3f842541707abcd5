package syncer

import (
	"slices"
	"time"

	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// attempt is the next entry to work on.
type attempt struct {
	change   vault.Change
	seed     secret.Secret // for Put and Enable; wiped after use
	obsolete bool          // nothing is left to deliver
}

// queue is the outbox in one transaction, and what this pass has tried of it.
type queue struct {
	tx      *vault.Tx
	changes []vault.Change // in the order of Seq
	tried   map[uint64]bool
	now     time.Time
	longest time.Duration // no pause is longer
	force   bool          // pauses do not count
	due     time.Time     // when the first pause ends; zero if none is waited for
}

// next finds the first entry that nothing holds back; ok is false if there is none now.
func (q *queue) next() (a attempt, ok bool, err error) {
	held := make(map[string]bool)
	for i, c := range q.changes {
		if held[string(c.Token)] {
			continue // in order per token
		}
		held[string(c.Token)] = true
		if q.waitsForCutOff(i) || !q.ready(c) {
			continue
		}
		a, err := q.resolve(i)
		if err != nil {
			return attempt{}, false, err
		}
		if a.change.Seq != c.Seq && !q.ready(a.change) {
			continue
		}
		return a, true, nil
	}
	return attempt{}, false, nil
}

// ready tells whether the entry's own state lets it be tried, and notes when a pause ends.
func (q *queue) ready(c vault.Change) bool {
	if c.Parked {
		return false
	}
	paused := c.NotBefore.After(q.now) && c.NotBefore.Sub(q.now) <= q.longest // else the clock was set back
	if q.tried[c.Seq] || paused && !q.force {
		if q.due.IsZero() || c.NotBefore.Before(q.due) {
			q.due = c.NotBefore
		}
		return false
	}
	return true
}

// waitsForCutOff: a user gets a token only after what was to be taken from them, and a token goes to a user
// only after it was taken from the one before.
func (q *queue) waitsForCutOff(i int) bool {
	c := q.changes[i]
	return c.Kind == vault.Assign && slices.ContainsFunc(q.changes[:i], func(e vault.Change) bool {
		return e.Kind.CutOff() && (e.Token == c.Token || e.User != "" && e.User == c.User)
	})
}

// resolve fetches the seed of entry i and settles what a reseeding in the meantime means for it. A
// cut-off is always delivered as it is.
func (q *queue) resolve(i int) (attempt, error) {
	c := q.changes[i]
	if c.Kind.CutOff() {
		return attempt{change: c}, nil
	}
	seeds, err := q.tx.Generations(c.Token)
	if err != nil {
		return attempt{}, err
	}
	if !slices.Contains(seeds, c.Generation) {
		if c.Kind != vault.Assign {
			return attempt{change: c, obsolete: true}, nil
		}
		later := q.changes[i+1:]
		end := slices.IndexFunc(later, func(e vault.Change) bool { return e.Token == c.Token && e.Kind.CutOff() })
		if end >= 0 && later[end].Kind == vault.Unassign && later[end].User == c.User {
			return attempt{change: c, obsolete: true}, nil // given and taken again while the service was away
		}
		if end < 0 {
			end = len(later)
		}
		// The token may never have arrived with that seed: what puts it there goes first.
		put := slices.IndexFunc(later[:end], func(e vault.Change) bool { return e.Token == c.Token && e.Kind == vault.Put })
		if put < 0 {
			return attempt{change: c}, nil
		}
		c = later[put]
	}
	if c.Kind != vault.Put && c.Kind != vault.Enable {
		return attempt{change: c}, nil
	}
	seed, err := q.tx.Seed(c.Token, c.Generation)
	return attempt{change: c, seed: seed}, err
}
