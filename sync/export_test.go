package syncer

import (
	"context"
	"time"

	"tokendesk/vault"
)

// Deliver ends every pause, tries each entry once that nothing holds back, and returns how many are left.
func (o *Outbox) Deliver(ctx context.Context) (remaining int, err error) {
	err = o.v.Update(func(tx *vault.Tx) error {
		waiting, err := tx.ChangesFrom(0, 0)
		if err != nil {
			return err
		}
		for _, c := range waiting {
			c.NotBefore = time.Time{}
			if err := tx.PutChange(c); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	if _, err := o.pass(ctx); err != nil {
		return 0, err
	}
	err = o.v.View(func(tx *vault.Tx) error {
		remaining = tx.Counts().Waiting
		return nil
	})
	return remaining, err
}

// Pass tries each entry once that is due.
func (o *Outbox) Pass(ctx context.Context) (due time.Time, err error) { return o.pass(ctx) }

// Sleep is what Run does between passes.
func (o *Outbox) Sleep(ctx context.Context, due time.Time) error { return o.sleep(ctx, due) }

// SetClock has pauses end by another clock.
func (o *Outbox) SetClock(now func() time.Time) { o.now = now }

// Pause is the pause after so many attempts.
func (b Backoff) Pause(attempts int) time.Duration { return b.pause(attempts) }

// ListFewer has List look at n changes in a call, until restore is called.
func ListFewer(n int) (restore func()) {
	before := mostListed
	mostListed = n
	return func() { mostListed = before }
}

// Waiters is how many are in Wait for a change.
func (o *Outbox) Waiters(seq uint64) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if w := o.waiters[seq]; w != nil {
		return w.n
	}
	return 0
}
