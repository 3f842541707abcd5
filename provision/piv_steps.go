package provision

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// sealPIV draws the secrets that the card is to get.
func sealPIV(tx *vault.Tx, w *work, now time.Time) error {
	p, id := w.params, w.job.Token
	err := tx.PutToken(vault.Token{
		ID: id, Serial: p.Serial, Firmware: p.Firmware, Status: vault.Pending, Tenant: p.Tenant, Emulated: p.Emulated, Created: now,
	})
	for kind, s := range map[vault.PIVSecret]secret.Secret{
		vault.ManagementKey: secret.Random(device.ManagementKeySize),
		vault.PUK:           randomDigits(pukDigits),
		vault.PIN:           randomDigits(pinDigits),
	} {
		err = errors.Join(err, tx.SetPIVSecret(id, p.Generation, kind, s))
		s.Wipe()
	}
	return err
}

// sealed returns a secret of the work's generation, for the caller to wipe.
func (w *work) sealed(kind vault.PIVSecret) (s secret.Secret, err error) {
	err = w.Vault.View(func(tx *vault.Tx) (err error) {
		s, err = tx.PIVSecret(w.job.Token, w.params.Generation, kind)
		return err
	})
	return s, err
}

// factory checks that a card has the management key that it left the factory with.
func factory(ctx context.Context, card device.PIV) error {
	return card.CheckManagementKey(ctx, secret.Secret{})
}

// resetCard makes sure that the card is as it left the factory. What was there when the work began goes only if an officer has
// said so; what came since is not the desk's. A card that looks fresh is reset, too: it may give 255 tries of its PIN, which no reset
// leaves so.
func resetCard(ctx context.Context, w *work) error {
	state, err := expected(ctx, w.piv, w.job.Token)
	if err != nil {
		return err
	}
	fresh, err := untouched(ctx, w.piv, state)
	if err != nil {
		return err
	}
	if !fresh && !w.params.Overwrite {
		return refuse(fmt.Sprintf("give the provisioning up with tokendesk resolve --undo %s, and look what the card is used for", w.job.Token),
			"the card was fresh when the provisioning began, and now has %s", holds(state))
	}
	reset, err := w.empty(ctx, w.piv, w.job.Token, state, true)
	if err == nil && !reset {
		err = w.piv.Reset(ctx)
	}
	return err
}

// setManagementKey may be repeated: the card has the factory's, or the vault's already.
func setManagementKey(ctx context.Context, w *work) error {
	key, err := w.sealed(vault.ManagementKey)
	if err != nil {
		return err
	}
	defer key.Wipe()
	err = w.piv.CheckManagementKey(ctx, key)
	if errors.Is(err, device.ErrManagementKey) {
		err = w.piv.SetManagementKey(ctx, secret.Secret{}, key)
	}
	if errors.Is(err, device.ErrManagementKey) {
		err = w.changedBehind("management key", err)
	}
	return err
}

func (w *work) changedBehind(what string, err error) error {
	return &device.CureError{
		Err:  fmt.Errorf("the card's %s is neither the factory's nor the desk's: %w", what, err),
		Cure: w.again(),
	}
}

func (w *work) again() string {
	return fmt.Sprintf("give the provisioning up, which resets the card: tokendesk resolve --undo %s; then begin again", w.job.Token)
}

// setPINs replaces PUK and PIN. A card that tells which of them are the factory's loses no try by that.
func setPINs(ctx context.Context, w *work) error {
	state, err := w.piv.Describe(ctx)
	if err != nil {
		return err
	}
	if most := max(state.PINRetries, state.PUKRetries); most > device.FactoryTries {
		return &device.CureError{
			Err:  fmt.Errorf("the card gives %d tries of its PIN or PUK, and not %d: somebody has changed that since it was reset", most, device.FactoryTries),
			Cure: w.again(),
		}
	}
	for _, s := range []struct {
		kind    vault.PIVSecret
		initial bool
		change  func(ctx context.Context, current, next secret.Secret) error
	}{
		{vault.PUK, state.DefaultPUK, w.piv.ChangePUK},
		{vault.PIN, state.DefaultPIN, w.piv.ChangePIN},
	} {
		next, err := w.sealed(s.kind)
		if err != nil {
			return err
		}
		defer next.Wipe()
		currents := []secret.Secret{{}, next} // that of the factory first, or what an earlier try has set
		switch {
		case state.DefaultsKnown && s.initial:
			currents = currents[:1]
		case state.DefaultsKnown:
			currents = currents[1:]
		}
		for _, current := range currents {
			if err = s.change(ctx, current, next); !wrongPIN(err) {
				break
			}
		}
		if wrongPIN(err) {
			err = w.changedBehind(s.kind.String(), err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func wrongPIN(err error) bool {
	_, wrong := errors.AsType[*device.PINError](err)
	return wrong
}

// generateKeys may be repeated: a key that nobody knows of yet is replaced.
func generateKeys(ctx context.Context, w *work) error {
	key, err := w.sealed(vault.ManagementKey)
	if err != nil {
		return err
	}
	defer key.Wipe()
	for _, spec := range w.params.Keys {
		if _, err := w.piv.Generate(ctx, key, spec); err != nil {
			return fmt.Errorf("slot %v: %w", spec.Slot, err)
		}
	}
	return nil
}

// attestKeys has the card prove that each key was made there, as it was wanted.
func attestKeys(ctx context.Context, w *work) error {
	w.made = nil
	var proven []string
	for _, spec := range w.params.Keys {
		key, err := w.piv.Attest(ctx, spec.Slot)
		switch {
		case errors.Is(err, device.ErrAttestation):
			return &device.CureError{
				Err:  fmt.Errorf("slot %v: %w", spec.Slot, err),
				Cure: fmt.Sprintf("do not hand this key out; give the provisioning up, which resets the card: tokendesk resolve --undo %s", w.job.Token),
			}
		case err != nil:
			return fmt.Errorf("slot %v: %w", spec.Slot, err)
		case !key.Attested || key.PIVKeySpec != spec:
			return w.changedBehind("key in slot "+spec.Slot.String(), fmt.Errorf("it is %v, and %v was wanted", key.PIVKeySpec, spec))
		}
		print, err := fingerprint(key.Public)
		if err != nil {
			return err
		}
		w.made = append(w.made, key)
		proven = append(proven, fmt.Sprintf("%v %s (PIN %s, touch %s), SHA-256 of its public key %s", spec.Slot, spec.Algorithm, spec.PIN, spec.Touch, print))
	}
	w.other = "made on this card, as it has proven: " + strings.Join(proven, "; ")
	return nil
}

// fingerprint is the SHA-256 of a public key's SubjectPublicKeyInfo, in hexadecimal.
func fingerprint(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), err
}

// recordKeys keeps what was proven of the keys.
func recordKeys(tx *vault.Tx, w *work, now time.Time) error {
	if err := forgetKeys(tx, w.job.Token); err != nil {
		return err
	}
	for _, k := range w.made {
		der, err := x509.MarshalPKIXPublicKey(k.Public)
		if err != nil {
			return err
		}
		c := vault.Certificate{
			Token: w.job.Token, Tenant: w.params.Tenant, Owner: w.params.User, Emulated: w.params.Emulated, Generation: w.params.Generation,
			Slot: k.Slot.String(), Created: now, Algorithm: k.Algorithm, PINPolicy: k.PIN, TouchPolicy: k.Touch, Attested: k.Attested, PublicKey: der,
		}
		if err := tx.PutCertificate(&c); err != nil {
			return err
		}
	}
	return nil
}

// forgetKeys removes the record of keys without a certificate, which are or will be gone.
func forgetKeys(tx *vault.Tx, id device.TokenID) error {
	all, err := tx.CertificatesOf(id)
	for _, c := range all {
		if len(c.DER) == 0 {
			err = errors.Join(err, tx.DeleteKey(c.ID))
		}
	}
	return err
}

// requestAll has each key ask for its certificate.
func requestAll(ctx context.Context, w *work) error {
	w.asked = nil
	if w.params.User == "" && w.params.Subject == "" {
		w.other = "no certificates were requested: the keys belong to nobody yet"
		return nil
	}
	pin, err := w.sealed(vault.PIN)
	if err != nil {
		return err
	}
	defer pin.Wipe()
	var keys []vault.Certificate
	err = w.Vault.View(func(tx *vault.Tx) (err error) { keys, err = tx.CertificatesOf(w.job.Token); return err })
	if err != nil {
		return err
	}
	for _, k := range keys {
		if len(k.DER) > 0 || k.Generation != w.params.Generation {
			continue
		}
		asked, err := ask(ctx, w.piv, k, pin, w.params.Subject, w.params.User, w.tell)
		if err != nil {
			return fmt.Errorf("slot %s: %w", k.Slot, err)
		}
		w.asked = append(w.asked, asked)
	}
	return nil
}

// recordRequests keeps them beside their keys, for who wants them again.
func recordRequests(tx *vault.Tx, w *work, _ time.Time) error {
	for _, asked := range w.asked {
		c, err := keyOf(tx, w.job.Token, w.params.Generation, asked.Slot)
		if err != nil {
			return err
		}
		c.Request = asked.DER
		if err := tx.PutCertificate(&c); err != nil {
			return err
		}
	}
	return nil
}

// known notes, before a card is reset, that it is the one on record, by its management key: what it holds may go, and its secrets in the
// vault with that. One that only says its serial may be another card: then the vault keeps what the right one has.
func (w *work) known(ctx context.Context, card device.PIV, id device.TokenID) error {
	if w.params.Recognized || w.params.Overwrite {
		return nil
	}
	var t vault.Token
	err := w.Vault.View(func(tx *vault.Tx) (err error) { t, err = tx.Token(id); return err })
	if err != nil {
		return err
	}
	err = w.recognize(ctx, card, id, t.Generation)
	switch other, refused := errors.AsType[*RefusedError](err); {
	case errors.Is(err, vault.ErrNotFound): // none was recorded yet
		return nil
	case err == nil:
		return w.also(func(*vault.Tx) error { w.params.Recognized = true; return nil })
	case !refused:
		return err
	case t.Wiped.IsZero():
		w.tell(Progress{Kind: Note, Text: other.Reason + "; if it is not the right one at all, that has its keys still: the vault keeps the PUK and the management key"})
	}
	return nil
}

// undoPIV resets the card, unless it holds what is not the desk's, and removes the token.
func (w *work) undoPIV(ctx context.Context) error {
	id := w.job.Token
	reset, foreign := false, false
	err := w.openPIV(ctx, id.Device(), func(card device.PIV, _ bool) error {
		state, err := expected(ctx, card, id)
		if err != nil {
			return err
		}
		if foreign, err = w.foreign(ctx, card, state); err != nil || foreign {
			return err
		}
		reset, err = w.empty(ctx, card, id, state, w.params.Written)
		return err
	})
	if err != nil {
		return &device.CureError{Err: fmt.Errorf("cannot reset the card: %w", err), Cure: fmt.Sprintf("if it never works again: tokendesk delete %s", id)}
	}
	switch {
	case reset:
		w.tell(Progress{Kind: Done, Step: stepReset, Text: "card reset: it is as it left the factory"})
	case foreign:
		w.tell(Progress{Kind: Note, Text: "the card holds what the desk did not put there: it was left as it is"})
	}
	err = w.Vault.Update(func(tx *vault.Tx) error {
		return errors.Join(tx.DeleteJob(w.job.ID), tx.DeleteToken(id), forgetKeys(tx, id), tx.RaiseTombstone(id, w.params.Generation),
			w.record(tx, "undo "+w.job.Kind, ""))
	})
	if err != nil {
		return err
	}
	w.tell(Progress{Kind: Done, Step: "undo", Text: "secrets and record removed from the vault"})
	return nil
}

// foreign tells whether what is on the card came from somebody else since the work began, and is not to be erased.
func (w *work) foreign(ctx context.Context, card device.PIV, state device.PIVState) (bool, error) {
	fresh, err := untouched(ctx, card, state)
	if err != nil || fresh || w.params.Overwrite || w.params.Written {
		return false, err
	}
	key, err := w.sealed(vault.ManagementKey)
	if err != nil {
		return false, err
	}
	defer key.Wipe()
	err = card.CheckManagementKey(ctx, key)
	if errors.Is(err, device.ErrManagementKey) {
		return true, nil
	}
	return false, err
}
