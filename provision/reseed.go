package provision

import (
	"context"
	"fmt"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

func reseedPlan() []step {
	return []step{
		{name: "seal", done: "fresh seed sealed in the vault", commit: sealNext},
		{name: "program", done: "%s reprogrammed; the key confirmed the write", device: true, act: program, commit: written},
		{name: "verify", done: "verified: the key gives codes of the new seed and not of the old one", device: true, repeat: true, act: verify, commit: activate},
		{name: "put", done: "recorded, and left for the central service", commit: putAgain, gives: true},
	}
}

// Reseed replaces the seed of an enrolled token, whose owner, if it has one, stays. Until the new seed is verified and
// delivered, the central service goes on with the old one.
func (r *Runner) Reseed(ctx context.Context, by audit.Officer, id device.TokenID, reason string, tell Tell) ([]vault.Change, error) {
	reason, err := sensible(reason)
	if err != nil {
		return nil, err
	}
	release, err := r.Claim(id)
	if err != nil {
		return nil, err
	}
	defer release()
	t, err := r.fitFor(id, ActReseed)
	if err != nil {
		return nil, err
	}
	_, emulated, err := r.inspect(ctx, id)
	if err != nil {
		return nil, err
	}
	p := afresh(t, emulated)
	p.Reason = reason
	return r.begin(ctx, planReseed, by, id, p, tell)
}

// Ready refuses an action that the table does not allow on a token, or that unfinished work on it forbids.
func (r *Runner) Ready(id device.TokenID, a Action) error {
	_, err := r.fitFor(id, a)
	return err
}

// fitFor returns a token on which the table allows an action, and which has no unfinished work.
func (r *Runner) fitFor(id device.TokenID, a Action) (t vault.Token, err error) {
	err = r.Vault.View(func(tx *vault.Tx) (err error) {
		if t, err = tx.Token(id); err != nil {
			return err
		}
		return CheckIdle(tx, t, a)
	})
	return t, err
}

// CheckIdle is Ready within a transaction that has read the token.
func CheckIdle(tx *vault.Tx, t vault.Token, a Action) error {
	if err := idle(tx, t.ID); err != nil {
		return err
	}
	return Check(t, a)
}

// afresh is what programming a token again starts from.
func afresh(t vault.Token, emulated bool) params {
	return params{
		Digits: t.Digits, Identifier: t.Identifier, Enter: t.Enter, Generation: t.Generation + 1,
		Serial: t.Serial, Firmware: t.Firmware, Emulated: t.Emulated || emulated,
	}
}

// putAgain leaves word of the new seed for the central service.
func putAgain(tx *vault.Tx, w *work, _ time.Time) error {
	t, err := tx.Token(w.job.Token)
	if err != nil {
		return err
	}
	_, err = w.push(tx, t, vault.Put, t.Owner)
	return err
}

// keepOn refuses to undo a reseed: the key may hold the new seed.
func keepOn(id device.TokenID) error {
	return refuse(fmt.Sprintf("finish it: tokendesk resolve %s; or, without the key: tokendesk compromise %s", id, id),
		"this reseed cannot be undone: a new seed is sealed for the key")
}
