package keeper

import (
	"context"
	"errors"
	"time"

	"tokendesk/vault"
)

// expiryCheck is how often it is looked whether a token's time is over, while one has an end: a timer does not notice that the
// machine slept, or that its clock was set.
const expiryCheck = time.Minute

// firstExpiry is when the next token's time is over; zero if none has an end.
func (k *Keeper) firstExpiry() (first time.Time, err error) {
	err = k.Vault.View(func(tx *vault.Tx) error {
		ids, err := tx.Expiring(endOfTime, 1)
		if err != nil || len(ids) == 0 {
			return err
		}
		t, err := tx.Token(ids[0])
		first = t.Expires
		return err
	})
	return first, err
}

// endOfTime is later than any token's end.
var endOfTime = time.Unix(1<<40, 0)

// expireDue has tokens refused whose time is over.
func (k *Keeper) expireDue(ctx context.Context, now time.Time) time.Time {
	if k.Expire == nil || !k.IsOpen() {
		return time.Time{}
	}
	due, err := k.firstExpiry()
	if state := (*vault.StateError)(nil); errors.As(err, &state) || err == nil && due.IsZero() {
		return time.Time{}
	}
	if pause := k.stale.over(); pause.After(due) {
		due = pause
	}
	if due.After(now) {
		return earlier(due, now.Add(expiryCheck))
	}
	n := 0
	if err == nil {
		n, err = k.Expire(ctx)
	}
	if n > 0 {
		k.Log.Info("tokens have expired", "tokens", n)
	}
	if err != nil {
		k.failed("expire", "tokens", err)
		k.stale.fail(now)
		return k.stale.over()
	}
	k.stale.reset()
	again := now.Add(expiryCheck)
	if due, err = k.firstExpiry(); err == nil && due.After(now) {
		return earlier(due, again)
	}
	return again // what could not be expired yet is tried again
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
