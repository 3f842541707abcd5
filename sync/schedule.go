package syncer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// attempt is the next entry to work on.
type attempt struct {
	change   vault.Change
	seed     secret.Secret // zero unless codes may be accepted; wiped after use
	obsolete string        // why nothing is left to deliver
}

// queue is the outbox in one transaction, and what this pass has tried of it.
type queue struct {
	tx      *vault.Tx
	changes []vault.Change // in the order of Seq
	tried   map[uint64]bool
	now     time.Time
	longest time.Duration // no pause is longer
	due     time.Time     // when the first pause ends; zero if none is waited for
}

// next finds the first entry that nothing holds back, cut-offs before all others; ok is false if there is none now.
func (q *queue) next() (a attempt, ok bool, err error) {
	for _, c := range q.changes {
		if c.Kind.CutOff() && q.ready(c) {
			return attempt{change: c}, true, nil
		}
	}
	for i, c := range q.changes {
		if c.Kind.CutOff() {
			continue
		}
		if q.tried[c.Seq] {
			q.ready(c) // notes its pause
			continue
		}
		t, why, err := q.judge(c)
		switch {
		case err != nil:
			return attempt{}, false, err
		case why != "":
			return attempt{change: c, obsolete: why}, true, nil
		case q.held(i) || !q.ready(c):
			continue
		}
		a = attempt{change: c}
		if c.Kind != vault.Advance && t.Status == vault.Active && t.Owner != "" {
			a.seed, err = q.tx.Seed(t.ID, t.Generation)
		}
		return a, err == nil, err
	}
	return attempt{}, false, nil
}

// ready tells whether the entry's own state lets it be tried, and notes when a pause ends.
func (q *queue) ready(c vault.Change) bool {
	if c.Parked {
		return false
	}
	paused := c.NotBefore.After(q.now) && c.NotBefore.Sub(q.now) <= q.longest // else the clock was set back
	if q.tried[c.Seq] || paused {
		if q.due.IsZero() || c.NotBefore.Before(q.due) {
			q.due = c.NotBefore
		}
		return false
	}
	return true
}

// held: everything but a cut-off waits for the earlier entries of its token, and a user gets a token
// only after what was to be taken from them.
func (q *queue) held(i int) bool {
	c := q.changes[i]
	return slices.ContainsFunc(q.changes[:i], func(e vault.Change) bool {
		return e.Token == c.Token || c.Kind == vault.Assign && e.Kind.CutOff() && strings.EqualFold(e.User, c.User)
	})
}

// judge returns the entry's token and, if the vault has moved on so that the entry asks for what is
// no longer wanted, why.
func (q *queue) judge(c vault.Change) (t vault.Token, obsolete string, err error) {
	t, err = q.tx.Token(c.Token)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return t, "the token is gone", nil
	case err != nil:
		return t, "", err
	case c.Generation != t.Generation:
		return t, fmt.Sprintf("the token is at seed generation %d", t.Generation), nil
	case c.Kind == vault.Assign && !strings.EqualFold(c.User, t.Owner):
		return t, "the token belongs to this user no longer", nil
	case c.Kind == vault.Enable && t.Status != vault.Active:
		return t, fmt.Sprintf("the token is %s", t.Status), nil
	}
	return t, "", nil
}

// replacing tells whether the token's own seed is still to be put there: until then, a counter that the
// service shows may belong to another seed.
func replacing(tx *vault.Tx, t vault.Token) (bool, error) {
	waiting, err := tx.Changes()
	return slices.ContainsFunc(waiting, func(c vault.Change) bool {
		return c.Token == t.ID && c.Kind == vault.Put && c.Generation == t.Generation
	}), err
}
