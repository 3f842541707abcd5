package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

// A PIV application is a token of its own: TypePIV. Its secrets are sealed before the card gets them, and its keys are
// made after, so that no card ever holds keys that nobody can manage. Whatever becomes of the card, its certificates stay on record
// until an officer says that they were revoked.

// ErrNoCard means that an inserted key has no smart card interface, or none that the desk sees. What opens PIV applications
// (Runner.OpenPIV) wraps it, so that a reissue of a key without one goes on.
var ErrNoCard = errors.New("the key shows no smart card")

// PIVProvision is what an officer asks for: keys on a card, for a user.
type PIVProvision struct {
	Token     device.TokenID      // "yk-12345678/piv"
	User      string              // empty: provision as stock
	Tenant    string              // whose it is; empty: the desk's
	Reason    string              // an officer's words, up to 200 bytes
	Subject   string              // of the requests, as RFC 4514 writes it; empty: CN=User
	Keys      []device.PIVKeySpec // empty: one of 9a, eccp256, PIN once, no touch
	Overwrite bool                // erase what the card holds
}

// PIVRequest asks an issuer for a certificate.
type PIVRequest struct {
	Slot device.PIVSlot
	DER  []byte // PKCS #10
	Key  device.PIVKey
}

// attests is the first firmware that can prove where a key was made.
var attests = device.Version{Major: 4, Minor: 3}

var defaultKeys = []device.PIVKeySpec{{Slot: device.PIVAuthentication, Algorithm: device.ECCP256, PIN: device.PINOnce, Touch: device.TouchNever}}

// stepReset is the step that resets a card.
const stepReset = "reset"

func pivPlan() []step {
	return []step{
		{name: stepSeal, done: "PIN, PUK and management key sealed in the vault", commit: sealPIV},
		{name: stepReset, done: "the card is as it left the factory", piv: true, act: resetCard},
		{name: "management key", done: "the card has its management key", piv: true, act: setManagementKey, commit: written},
		{name: "PIN and PUK", done: "the card has its PUK and PIN", piv: true, act: setPINs},
		{name: "generate", done: "keys made on the card", piv: true, act: generateKeys},
		{name: "attest", piv: true, act: attestKeys, commit: recordKeys},
		{name: "request", done: "certificates requested", piv: true, act: requestAll, commit: recordRequests},
		{name: "assign", done: "recorded", commit: assignPIV, gives: true},
	}
}

// ProvisionPIV makes keys on a card that nobody has used: with a PIN, a PUK and a management key that only the vault has, and
// with the card's proof that the keys were made there. The PIN waits for TakePIN or SetPIN. What it returns are the requests,
// one for each key; of a card of the stock, only those with a subject.
func (r *Runner) ProvisionPIV(ctx context.Context, by audit.Officer, o PIVProvision, tell Tell) ([]PIVRequest, []vault.Change, error) {
	o, err := o.normal()
	if err != nil {
		return nil, nil, err
	}
	release, err := r.Claim(o.Token)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	p := params{
		User: o.User, Tenant: o.Tenant, Reason: o.Reason, Subject: o.Subject, Keys: o.Keys, Overwrite: o.Overwrite, Generation: 1,
	}
	err = r.Vault.View(func(tx *vault.Tx) error {
		if err := provisionable(tx, o.Token); err != nil {
			return err
		}
		before, _, err := tx.Tombstone(o.Token)
		p.Generation += before.Generation // whose secrets may be on the card still
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if p.User, err = r.findUser(ctx, o.User); err != nil {
		return nil, nil, err
	}
	err = r.openPIV(ctx, o.Token.Device(), func(card device.PIV, emulated bool) error {
		p.Emulated = emulated
		state, err := expected(ctx, card, o.Token)
		if err != nil {
			return err
		}
		p.Serial, p.Firmware = state.Serial, state.Firmware
		if state.Firmware.Less(attests) {
			return &device.FirmwareError{Feature: "to prove that a key was made on the card", Need: attests, Have: state.Firmware}
		}
		for _, k := range o.Keys {
			if err := k.Supported(state.Firmware); err != nil {
				return fmt.Errorf("slot %v: %w", k.Slot, err)
			}
		}
		fresh, err := untouched(ctx, card, state)
		if err == nil && !fresh && !o.Overwrite {
			err = refuse("look what it is used for first; to erase that, repeat with --overwrite", "the card of %s is in use: it has %s", o.Token.Device(), holds(state))
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	w := r.job(planPIV, by, o.Token, p, tell)
	changes, err := w.run(ctx)
	if err != nil {
		return nil, changes, err
	}
	return w.asked, changes, nil
}

// normal refuses what cannot be meant.
func (o PIVProvision) normal() (PIVProvision, error) {
	if err := isPIV(o.Token); err != nil {
		return o, err
	}
	var err error
	if o.Reason, err = sensible(o.Reason); err != nil {
		return o, err
	}
	if o.Subject != "" {
		if _, err := parseSubject(o.Subject); err != nil {
			return o, err
		}
	}
	if len(o.Keys) == 0 {
		o.Keys = defaultKeys
	}
	o.Keys = slices.Clone(o.Keys)
	for i, k := range o.Keys {
		switch {
		case !k.Slot.Valid():
			return o, refuse("they are 9a, 9c, 9d, 9e, and 82 to 95", "%v is not a PIV slot", k.Slot)
		case slices.ContainsFunc(o.Keys[:i], func(other device.PIVKeySpec) bool { return other.Slot == k.Slot }):
			return o, refuse("", "slot %v is named twice", k.Slot)
		case k.Algorithm == device.X25519:
			return o, refuse("choose another algorithm", "a key of %s signs nothing, and so asks for no certificate", k.Algorithm)
		case !slices.Contains(algorithms, k.Algorithm):
			return o, refuse("", "there is no algorithm %q", k.Algorithm)
		case !slices.Contains([]device.PINPolicy{device.PINNever, device.PINOnce, device.PINAlways}, k.PIN):
			return o, refuse("it is never, once or always", "there is no PIN policy %q", k.PIN)
		case !slices.Contains([]device.TouchPolicy{device.TouchNever, device.TouchAlways, device.TouchCached}, k.Touch):
			return o, refuse("it is never, always or cached", "there is no touch policy %q", k.Touch)
		}
	}
	return o, nil
}

var algorithms = []device.PIVAlgorithm{device.RSA2048, device.ECCP256, device.ECCP384, device.RSA3072, device.RSA4096, device.Ed25519}

func isPIV(id device.TokenID) error {
	if _, err := device.ParseTokenID(string(id)); err != nil || !id.PIV() {
		return refuse("it is named as yk-12345678/piv", "%q is no PIV application", id)
	}
	return nil
}

// provisionable refuses a token that is in the inventory.
func provisionable(tx *vault.Tx, id device.TokenID) error {
	if err := idle(tx, id); err != nil {
		return err
	}
	t, err := tx.Token(id)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return nil
	case err != nil:
		return err
	case t.Status == vault.Compromised:
		return refuse(fmt.Sprintf("to use its name again, delete it first: tokendesk delete %s", id), "%s is compromised (%s); it never comes back", id, t.Loss.Kind)
	case t.Owner != "":
		return refuse(fmt.Sprintf("to begin anew, wipe it first: tokendesk wipe %s", id), "%s is provisioned and belongs to %s", id, t.Owner)
	}
	return refuse(fmt.Sprintf("to give it away as it is: tokendesk assign %s USER; to begin anew, wipe it first: tokendesk wipe %s", id, id), "%s is provisioned already, as stock", id)
}

// openPIV is OpenPIV that says what is missing if there is none, and opens no card in place of the one on record.
func (r *Runner) openPIV(ctx context.Context, id device.ID, fn func(p device.PIV, emulated bool) error) error {
	if r.OpenPIV == nil {
		return &device.CureError{Err: fmt.Errorf("the smart card of %s: %w", id, ErrNoCard), Cure: "have the desk use smart cards: pcsc = true in its configuration"}
	}
	return r.OpenPIV(ctx, id, func(card device.PIV, emulated bool) error {
		if err := r.sameKind(device.PIVToken(id), emulated); err != nil {
			return err
		}
		return fn(card, emulated)
	})
}

// sameKind refuses an emulated card in place of a real one, and the reverse: both may say the same serial, and only one of them has
// what is on record.
func (r *Runner) sameKind(id device.TokenID, emulated bool) error {
	return r.Vault.View(func(tx *vault.Tx) error {
		t, err := tx.Token(id)
		switch {
		case errors.Is(err, vault.ErrNotFound):
			return nil
		case err != nil || t.Emulated == emulated:
			return err
		}
		there, known := "real", "emulated"
		if emulated {
			there, known = known, there
		}
		return refuse("pull all keys and insert the right one", "the card that says it is %s is %s, and the one on record is %s", id.Device(), there, known)
	})
}

// expected is what the card says of itself; it fails if that is not the one that is meant.
func expected(ctx context.Context, card device.PIV, id device.TokenID) (device.PIVState, error) {
	state, err := card.Describe(ctx)
	if want, _ := id.Device().Serial(); err == nil && state.Serial != want {
		err = fmt.Errorf("the card says it is %s, not %s: pull all keys and insert the right one", state.Serial, want)
	}
	return state, err
}

// recognize refuses a card without the management key that the desk has given it: what else it is shown may be the secret of another
// one. It costs no tries.
func (r *Runner) recognize(ctx context.Context, card device.PIV, id device.TokenID, generation int) error {
	var key secret.Secret
	err := r.Vault.View(func(tx *vault.Tx) (err error) {
		key, err = tx.PIVSecret(id, generation, vault.ManagementKey)
		return err
	})
	if err != nil {
		return err
	}
	defer key.Wipe()
	err = card.CheckManagementKey(ctx, key)
	if !errors.Is(err, device.ErrManagementKey) {
		return err
	}
	cure := fmt.Sprintf("wipe it, and provision it again: tokendesk wipe %s", id)
	if factory(ctx, card) == nil {
		return refuse(cure, "somebody has reset the card of %s", id.Device())
	}
	return refuse(cure, "the card of %s has another management key than the desk has given it", id.Device())
}

// untouched tells whether nobody has used a card: also of one that does not tell of its secrets.
func untouched(ctx context.Context, card device.PIV, state device.PIVState) (bool, error) {
	if !state.Fresh() || state.DefaultsKnown {
		return state.Fresh(), nil
	}
	err := factory(ctx, card)
	if errors.Is(err, device.ErrManagementKey) {
		return false, nil
	}
	return err == nil, err
}

// holds says in words what a card has that a fresh one has not.
func holds(state device.PIVState) string {
	var parts []string
	for _, k := range state.Keys {
		part := "a key in slot " + k.Slot.String()
		if k.Certificate != nil {
			part = fmt.Sprintf("the certificate %q in slot %v", k.Certificate.Subject, k.Slot)
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		return "a PIN, a PUK or a management key of its own"
	}
	return strings.Join(parts, ", ")
}

// assignPIV ends a provisioning: the token is its owner's from now on.
func assignPIV(tx *vault.Tx, w *work, _ time.Time) error {
	t, err := tx.Token(w.job.Token)
	if err != nil {
		return err
	}
	t.Status, t.Generation, t.Owner = vault.Active, w.params.Generation, w.params.User
	t.Emulated = t.Emulated || w.params.Emulated
	return errors.Join(tx.PutToken(t), tx.ForgetPIV(t.ID, t.Generation), w.notify(tx, NoticeInvitation, t.ID, t.Owner, "", w.params.Reason))
}
