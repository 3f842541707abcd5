package provision

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

// How many digits the desk draws for a PIN and a PUK. Three tries guess a PIN once in 300,000 cards.
const (
	pinDigits = 6
	pukDigits = 8
)

// randomDigits draws n digits that nobody would try first.
func randomDigits(n int) secret.Secret {
	for {
		s, _ := secret.Make(n, func(out []byte) error {
			for i := range out {
				for out[i] = 255; out[i] >= 250; { // else some digits would come more often
					rand.Read(out[i : i+1])
				}
				out[i] = '0' + out[i]%10
			}
			return nil
		})
		if !obvious(s.Reveal()) {
			return s
		}
		s.Wipe()
	}
}

// obvious tells whether digits are those that are tried first: 000000, 123456, 87654321, and what leaves the factory.
func obvious(pin []byte) bool {
	for _, by := range []byte{0, 1, 255} {
		run := len(pin) > 0
		for i := 1; i < len(pin); i++ {
			run = run && pin[i] == pin[i-1]+by
		}
		if run {
			return true
		}
	}
	return len(pin) > 0 && bytes.HasPrefix([]byte("1234567890"), pin)
}

func pivUnblockPlan() []step {
	return []step{
		{name: stepSeal, done: "new PIN sealed in the vault", commit: sealPIN},
		{name: "unblock", done: "the card has the new PIN", piv: true, act: unblock, commit: func(*vault.Tx, *work, time.Time) error { return nil }},
	}
}

// UnblockPIV gives the card a new random PIN by the vault's PUK. It waits for TakePIN or SetPIN.
func (r *Runner) UnblockPIV(ctx context.Context, by audit.Officer, id device.TokenID, tell Tell) error {
	release, err := r.Claim(id)
	if err != nil {
		return err
	}
	defer release()
	var t vault.Token
	if err := r.Vault.View(func(tx *vault.Tx) (err error) { t, err = inUse(tx, id); return err }); err != nil {
		return err
	}
	p := afresh(t, false)
	p.Generation, p.User = t.Generation, t.Owner
	err = r.openPIV(ctx, id.Device(), func(card device.PIV, _ bool) error {
		state, err := expected(ctx, card, id)
		if err == nil && state.PUKRetries == 0 {
			err = pinCure(id, &device.PINError{Name: "PUK"})
		}
		if err == nil {
			err = r.recognize(ctx, card, id, t.Generation) // else its PUK is another one, too
		}
		return err
	})
	if err != nil {
		return err
	}
	_, err = r.begin(ctx, planPIVUnblock, by, id, p, tell)
	return err
}

func sealPIN(tx *vault.Tx, w *work, _ time.Time) error {
	pin := randomDigits(pinDigits)
	defer pin.Wipe()
	return tx.SetPIVSecret(w.job.Token, w.params.Generation, vault.PIN, pin)
}

// unblock may be repeated: the PUK stays.
func unblock(ctx context.Context, w *work) error {
	if _, err := expected(ctx, w.piv, w.job.Token); err != nil {
		return err
	}
	if err := w.recognize(ctx, w.piv, w.job.Token, w.params.Generation); err != nil {
		return err
	}
	puk, err := w.sealed(vault.PUK)
	if err != nil {
		return err
	}
	defer puk.Wipe()
	pin, err := w.sealed(vault.PIN)
	if err != nil {
		return err
	}
	defer pin.Wipe()
	return pinCure(w.job.Token, w.piv.Unblock(ctx, puk, pin))
}

// dropUnblock gives up an unblocking. Nobody gets to know the PIN that the card may have taken, and the one before, if nobody has taken
// that, is gone: another unblocking replaces them.
func (w *work) dropUnblock() error {
	err := w.Vault.Update(func(tx *vault.Tx) error {
		return errors.Join(tx.DeleteJob(w.job.ID), tx.DeletePIVSecret(w.job.Token, w.params.Generation, vault.PIN), w.record(tx, "undo "+w.job.Kind, ""))
	})
	if err == nil {
		w.tell(Progress{Kind: Done, Step: "undo", Text: "the new PIN is destroyed; unblock it again: tokendesk piv unblock " + string(w.job.Token.Device())})
	}
	return err
}

// TakePIN returns the random PIN, for the caller to wipe, and destroys it in the vault: it can be taken once.
func (r *Runner) TakePIN(_ context.Context, by audit.Officer, id device.TokenID) (pin secret.Secret, err error) {
	release, err := r.Claim(id)
	if err != nil {
		return secret.Secret{}, err
	}
	defer release()
	err = r.Vault.Update(func(tx *vault.Tx) error {
		pin.Wipe()
		var t vault.Token
		if t, pin, err = randomPIN(tx, id); err != nil {
			return err
		}
		return errors.Join(tx.DeletePIVSecret(id, t.Generation, vault.PIN), tx.Audit(vault.Done(by, "piv pin: take", id, t.Owner)))
	})
	if err != nil {
		pin.Wipe()
		return secret.Secret{}, err
	}
	return pin, nil
}

// randomPIN is the one that nobody has taken yet.
func randomPIN(tx *vault.Tx, id device.TokenID) (t vault.Token, pin secret.Secret, err error) {
	if t, err = inUse(tx, id); err != nil {
		return t, pin, err
	}
	pin, err = tx.PIVSecret(id, t.Generation, vault.PIN)
	if errors.Is(err, vault.ErrNotFound) {
		err = refuse("to give it a new one: tokendesk piv unblock "+string(id.Device()), "the PIN of %s was taken already: the desk does not have it any more", id)
	}
	return t, pin, err
}

// SetPIN gives the card a PIN that its holder has chosen, in place of the random one that nobody has taken: 6 to 8 digits, or other
// printable characters of ASCII. It may be repeated if the card was pulled.
func (r *Runner) SetPIN(ctx context.Context, by audit.Officer, id device.TokenID, pin secret.Secret) error {
	if err := choosable(pin); err != nil {
		return err
	}
	release, err := r.Claim(id)
	if err != nil {
		return err
	}
	defer release()
	var t vault.Token
	var current secret.Secret
	if err := r.Vault.View(func(tx *vault.Tx) (err error) { t, current, err = randomPIN(tx, id); return err }); err != nil {
		return err
	}
	defer current.Wipe()
	stale := false
	err = r.openPIV(ctx, id.Device(), func(card device.PIV, _ bool) (err error) {
		if _, err = expected(ctx, card, id); err != nil {
			return err
		}
		if err = r.recognize(ctx, card, id, t.Generation); err != nil {
			return err
		}
		stale, err = choose(ctx, card, current, pin)
		return pinCure(id, err)
	})
	if stale {
		err = &device.CureError{Err: fmt.Errorf("it is not the one of the vault any more: %w", err), Cure: "give it a new one: tokendesk piv unblock " + string(id.Device())}
		return errors.Join(err, r.Vault.Update(func(tx *vault.Tx) error {
			act := explained(vault.Done(by, "piv pin: drop", id, t.Owner), "the card has another one", "")
			return errors.Join(tx.DeletePIVSecret(id, t.Generation, vault.PIN), tx.Audit(act))
		}))
	}
	if err != nil {
		return err
	}
	return r.Vault.Update(func(tx *vault.Tx) error {
		return errors.Join(tx.DeletePIVSecret(id, t.Generation, vault.PIN), tx.Audit(vault.Done(by, "piv pin: set by its holder", id, t.Owner)))
	})
}

// choose replaces the vault's PIN on a card, unless the card had taken the holder's when it was pulled. Stale: it has taken neither. A
// try is left then, if there were three.
func choose(ctx context.Context, card device.PIV, current, pin secret.Secret) (stale bool, err error) {
	err = card.VerifyPIN(ctx, current)
	wrong, refused := errors.AsType[*device.PINError](err)
	switch {
	case err == nil:
		return false, card.ChangePIN(ctx, current, pin)
	case !refused:
		return false, err
	case wrong.Retries > 1:
		err = card.VerifyPIN(ctx, pin)
	}
	return wrongPIN(err), err
}

// choosable refuses a PIN that no card takes, or that everybody tries first.
func choosable(pin secret.Secret) (err error) {
	b := pin.Reveal()
	switch {
	case len(b) < device.MinPINSize || len(b) > device.MaxPINSize:
		return refuse("choose another one", "a PIN has %d to %d characters", device.MinPINSize, device.MaxPINSize)
	case obvious(b):
		return refuse("choose another one", "that PIN is one of those that are tried first")
	}
	for _, c := range b {
		if c < ' ' || c > '~' {
			return refuse("choose another one", "a PIN has digits, or other characters of ASCII")
		}
	}
	return nil
}
