package syncer

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"tokendesk/vault"
)

// pass delivers until nothing is left that can be tried now, each entry at most once, and returns when
// the next pause ends (zero if none does). An outcome that the vault does not take keeps it from nothing else:
// the entry stays, and the error is returned at the end.
func (o *Outbox) pass(ctx context.Context) (due time.Time, err error) {
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
	var unrecorded error
	for {
		if err := ctx.Err(); err != nil {
			return time.Time{}, err
		}
		q := &queue{tried: tried, now: time.Now(), longest: o.backoff.Max}
		var a attempt
		var ok bool
		err := o.v.View(func(tx *vault.Tx) (err error) {
			q.tx = tx
			if q.changes, err = tx.Changes(); err == nil {
				a, ok, err = q.next()
			}
			return err
		})
		if err != nil {
			return time.Time{}, err
		}
		if !ok {
			return q.due, unrecorded
		}
		tried[a.change.Seq] = true
		err = o.deliver(ctx, a)
		if isFinal(ctx, err) || isUnusable(err) {
			return time.Time{}, err
		}
		if unrecorded == nil {
			unrecorded = err
		}
		o.announce()
	}
}

// isFinal tells errors after which nothing can go on from those that pass, such as a full disk.
func isFinal(ctx context.Context, err error) bool {
	return err != nil && (ctx.Err() != nil || errors.Is(err, vault.ErrClosed))
}

// isUnusable tells that the vault is locked, or cannot be used before somebody has mended it.
func isUnusable(err error) bool {
	var state *vault.StateError
	return errors.As(err, &state) && !errors.Is(err, vault.ErrUnanchored)
}

// deliver applies one entry and records the outcome. It returns an error only if it could not record
// it, or if ctx ended, which says nothing about the entry.
func (o *Outbox) deliver(ctx context.Context, a attempt) error {
	defer a.seed.Wipe()
	confirmed := a.obsolete == ""
	log := o.log.With("change", a.change.Seq, "kind", a.change.Kind, "token", a.change.Token, "user", a.change.User)
	if a.obsolete != "" {
		err := o.remove(a.change, confirmed, Observation{})
		if err == nil {
			log.Info("dropped an obsolete change", "because", a.obsolete, "generation", a.change.Generation, "parked", a.change.Parked)
		}
		return err
	}
	seen, err := o.c.Apply(ctx, a.change, a.seed)
	switch {
	case err == nil:
		if err = o.remove(a.change, confirmed, seen); err == nil {
			log.Info("delivered", "counter", seen.Counter, "attempts", a.change.Attempts+1)
		}
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	c := a.change
	c.Attempts++
	c.Problem = err.Error()
	c.Parked = errors.Is(err, ErrRefused)
	c.NotBefore = time.Time{}
	if !c.Parked {
		c.NotBefore = time.Now().UTC().Add(o.backoff.pause(c.Attempts))
	}
	err = o.v.Update(func(tx *vault.Tx) error {
		if c.Parked {
			parked := vault.Done(desk, "push "+string(c.Kind), c.Token, c.User)
			parked.Outcome, parked.Reason = "parked", c.Problem
			if err := tx.Audit(parked); err != nil {
				return err
			}
		}
		return tx.PutChange(c)
	})
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return nil // removed meanwhile
	case c.Parked:
		log.Warn("parked a change", "problem", c.Problem)
	default:
		log.Warn("cannot deliver yet", "problem", c.Problem, "attempts", c.Attempts, "again", c.NotBefore)
	}
	return err
}

// remove takes a finished entry out and, in the same transaction, raises the token's counter to what was seen.
func (o *Outbox) remove(c vault.Change, confirmed bool, seen Observation) error {
	return o.v.Update(func(tx *vault.Tx) error {
		if err := tx.DeleteChange(c.Seq); err != nil && !errors.Is(err, vault.ErrNotFound) {
			return err
		}
		pushed := vault.Done(desk, "push "+string(c.Kind), c.Token, c.User)
		if !confirmed {
			pushed.Outcome = "obsolete"
		}
		if err := tx.Audit(pushed); err != nil {
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
		if other, err := replacing(tx, t); err != nil || other {
			return err
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
