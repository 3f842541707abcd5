package provision

import (
	"context"
	"errors"
	"fmt"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

// shared tells whether a token is protected by a password that is its device's, and not by an access code that the desk has drawn.
func shared(id device.TokenID) bool {
	row, _ := device.ApplicationOf(id)
	return row.Access == device.SharedPassword
}

// codeFor returns what protects a token from being programmed, for the caller to wipe: its access code, or the password that it
// shares with others, empty if the desk knows none.
func codeFor(tx *vault.Tx, id device.TokenID) (secret.Secret, error) {
	if !shared(id) {
		return tx.AccessCode(id)
	}
	code, err := tx.Password(id.Keeper())
	if errors.Is(err, vault.ErrNotFound) {
		err = nil
	}
	return code, err
}

// unlock shows a device the password that it wants for a token, if it wants one. Nothing has been changed if it fails.
func (r *Runner) unlock(ctx context.Context, t device.HOTPToken, id device.TokenID) error {
	if !shared(id) {
		return nil
	}
	var password secret.Secret
	err := r.Vault.View(func(tx *vault.Tx) (err error) { password, err = codeFor(tx, id); return err })
	if err != nil {
		return err
	}
	defer password.Wipe()
	err = t.Unlock(ctx, password)
	wrong, known := (*device.PINError)(nil), (*device.CureError)(nil)
	switch {
	case errors.As(err, &wrong) && !password.IsZero():
		// It is not shown to the device again: that would take its owner's tries, one after another.
		err = errors.Join(err, r.Vault.Update(func(tx *vault.Tx) error { return tx.DeletePassword(id.Keeper()) }))
	case errors.Is(err, device.ErrLocked):
		err = device.ErrLocked
	default:
		return err
	}
	err = fmt.Errorf("%s of %s cannot be programmed: %w", id.Place(), id.Device(), err)
	if errors.As(err, &known) {
		return err
	}
	return &device.CureError{Err: err, Cure: "give it to the desk: tokendesk password " + string(id)}
}

// errNoPassword means that a device has nothing to be unlocked.
var errNoPassword = errors.New("it wants no password")

// LearnPassword tries the password or PIN of a token's application on the inserted device, and seals it if that is it. Other tokens
// that share it have it, too.
func (r *Runner) LearnPassword(ctx context.Context, by audit.Officer, id device.TokenID, password secret.Secret, tell Tell) error {
	if !shared(id) {
		return refuse("", "%s has no password: the desk gives it an access code of its own", id)
	}
	release, err := r.Claim(id)
	if err != nil {
		return err
	}
	defer release()
	err = r.Open(ctx, id, func(t device.HOTPToken, _ bool) error {
		switch err := t.Unlock(ctx, secret.Secret{}); {
		case err == nil:
			return errNoPassword
		case !errors.Is(err, device.ErrLocked):
			return err
		}
		return t.Unlock(ctx, password)
	})
	if errors.Is(err, errNoPassword) {
		return refuse("enroll it without", "%s wants no password or PIN", id.Device())
	}
	if err != nil {
		return fmt.Errorf("%s does not take it: %w", id.Device(), err)
	}
	err = r.Vault.Update(func(tx *vault.Tx) error {
		return errors.Join(tx.SetPassword(id.Keeper(), password), tx.Audit(vault.Done(by, "learn password", id, "")))
	})
	if err != nil {
		return err
	}
	tell(Progress{Kind: Done, Step: "seal", Text: "the device takes it; sealed in the vault"})
	return nil
}

// ForgetPassword has the vault forget the password or PIN of a token's application. Work that needs it says so again.
func (r *Runner) ForgetPassword(by audit.Officer, id device.TokenID) error {
	return r.Vault.Update(func(tx *vault.Tx) error {
		known := shared(id)
		if known {
			s, err := tx.Password(id.Keeper())
			if err != nil && !errors.Is(err, vault.ErrNotFound) {
				return err
			}
			known = !s.IsZero()
			s.Wipe()
		}
		if !known {
			return refuse("", "the desk knows no password or PIN of %s", id)
		}
		return errors.Join(tx.DeletePassword(id.Keeper()), tx.Audit(vault.Done(by, "forget password", id, "")))
	})
}

// forgetPassword forgets the password that a token had, which is gone, if no other token of its device needs it.
func forgetPassword(tx *vault.Tx, id device.TokenID) error {
	if !shared(id) {
		return nil
	}
	for t, err := range tx.AllTokens(vault.Filter{Device: id.Device(), Limit: 100}) {
		if err != nil {
			return err
		}
		if t.ID.Keeper() == id.Keeper() {
			return nil
		}
	}
	return tx.DeletePassword(id.Keeper())
}
