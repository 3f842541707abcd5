package syncer

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"tokendesk/vault"
)

// pass delivers until nothing is left that can be tried now, each entry at most once, and returns when
// the next pause ends (zero if none does).
func (o *Outbox) pass(ctx context.Context, force bool) (due time.Time, err error) {
	if o.c == nil {
		return time.Time{}, ctx.Err()
	}
	select {
	case <-o.turn:
		defer func() { o.turn <- struct{}{} }()
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
	tried := make(map[uint64]bool)
	for {
		if err := ctx.Err(); err != nil {
			return time.Time{}, err
		}
		q := &queue{tried: tried, now: time.Now(), longest: o.backoff.Max, force: force}
		var a attempt
		var ok bool
		err := o.v.View(func(tx *vault.Tx) (err error) {
			q.tx = tx
			if q.changes, err = tx.Changes(); err == nil {
				a, ok, err = q.next()
			}
			return err
		})
		if err != nil || !ok {
			return q.due, err
		}
		tried[a.change.Seq] = true
		if err := o.deliver(ctx, a); err != nil {
			return time.Time{}, err
		}
		o.announce()
	}
}

// deliver applies one entry and records the outcome. It returns an error only if it could not record
// it, or if ctx ended, which says nothing about the entry.
func (o *Outbox) deliver(ctx context.Context, a attempt) error {
	defer a.seed.Wipe()
	log := o.log.With("change", a.change.Seq, "kind", a.change.Kind, "token", a.change.Token, "user", a.change.User)
	if a.obsolete {
		log.Info("dropped a change that a reseeding has made obsolete", "generation", a.change.Generation)
		return o.remove(a.change, Observation{})
	}
	seen, err := o.c.Apply(ctx, a.change, a.seed)
	switch {
	case err == nil:
		log.Info("delivered", "counter", seen.Counter, "attempts", a.change.Attempts+1)
		return o.remove(a.change, seen)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	c := a.change
	c.Attempts++
	c.Problem = err.Error()
	if errors.Is(err, ErrRefused) {
		c.Parked, c.NotBefore = true, time.Time{}
		log.Warn("parked a change", "problem", c.Problem)
	} else {
		c.NotBefore = time.Now().UTC().Add(o.backoff.pause(c.Attempts))
		log.Warn("cannot deliver yet", "problem", c.Problem, "attempts", c.Attempts, "again", c.NotBefore)
	}
	err = o.v.Update(func(tx *vault.Tx) error { return tx.PutChange(c) })
	if errors.Is(err, vault.ErrNotFound) {
		return nil // discarded meanwhile
	}
	return err
}

// remove takes a finished entry out and, in the same transaction, raises the token's counter to what was seen.
func (o *Outbox) remove(c vault.Change, seen Observation) error {
	return o.v.Update(func(tx *vault.Tx) error {
		if err := tx.DeleteChange(c.Seq); err != nil && !errors.Is(err, vault.ErrNotFound) {
			return err
		}
		t, err := tx.Token(c.Token)
		switch {
		case errors.Is(err, vault.ErrNotFound):
			return nil
		case err != nil:
			return err
		case t.Generation != c.Generation || seen.Counter <= t.Counter:
			return nil
		}
		t.Counter = seen.Counter
		return tx.PutToken(t)
	})
}

// pause doubles with every attempt, and is shortened at random by up to half, so that desks which lost
// the service together do not come back together.
func (b Backoff) pause(attempts int) time.Duration {
	d := b.Min
	for i := 1; i < attempts && d < b.Max; i++ {
		d *= 2
	}
	d = min(d, b.Max)
	return d - rand.N(d/2+1)
}
