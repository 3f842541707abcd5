package provision

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

// Enrollment is what an officer asks for.
type Enrollment struct {
	Token        device.TokenID
	User         string // empty: enroll as stock
	Tenant       string // whose it is; empty: the desk's
	Digits       int    // 6 or 8
	StartCounter uint64 // one that the application takes (device.Application)
	Identifier   bool   // have the key type its identifier before each code
	Enter        bool   // have it press Enter after each code
	Overwrite    bool   // replace what is there now
	Typed        bool   // stop with ErrCodesWanted before the verification, and have Resolve take typed codes
}

// maxIdentifierSerial is the largest serial that fits into an OATH token identifier. Refusing it before
// anything is sealed saves the officer an undo.
const maxIdentifierSerial = 99_999_999

func enrollPlan() []step {
	return []step{
		{name: "seal", done: "seed%c sealed in the vault", commit: sealFirst},
		{name: "program", done: "%s programmed; the key confirmed the write", device: true, act: program, commit: written},
		{name: "verify", done: "verified: two codes of this key belong to the sealed seed", device: true, repeat: true, act: verify, commit: activate},
		{name: "assign", done: "recorded, and left for the central service", commit: assign, gives: true},
	}
}

// Enroll seals a fresh seed, programs it, verifies it and assigns the token.
func (r *Runner) Enroll(ctx context.Context, by audit.Officer, e Enrollment, tell Tell) ([]vault.Change, error) {
	release, err := r.Claim(e.Token)
	if err != nil {
		return nil, err
	}
	defer release()
	row, _ := device.ApplicationOf(e.Token)
	check := device.HOTPConfig{Seed: secret.New(make([]byte, seedSize)), Digits: e.Digits, StartCounter: e.StartCounter, TokenIdentifier: e.Identifier}
	if err := row.Check(check); err != nil {
		return nil, refuse("", "%v", err)
	}
	generation := 1
	err = r.Vault.View(func(tx *vault.Tx) error {
		if err := enrollable(tx, e); err != nil {
			return err
		}
		before, _, err := tx.Tombstone(e.Token)
		generation += before.Generation // the central service tells seeds of one name apart by it
		return err
	})
	if err != nil {
		return nil, err
	}
	name, served, err := r.checkUser(ctx, e.User)
	if err != nil {
		return nil, err
	}
	defer served()
	e.User = name
	state, emulated, err := r.inspect(ctx, e.Token)
	if err != nil {
		return nil, err
	}
	if state.Configured && !e.Overwrite {
		return nil, refuse("look what it is used for first; to replace it, repeat with --overwrite",
			"%s of %s already holds something", e.Token.Place(), e.Token.Device())
	}
	if e.Identifier && state.Serial > maxIdentifierSerial {
		return nil, refuse("enroll it without", "serial %s does not fit into the 8 digits of a token identifier", state.Serial)
	}
	return r.begin(ctx, planEnroll, by, e.Token, params{
		User: e.User, Tenant: e.Tenant, Digits: e.Digits, StartCounter: e.StartCounter, Identifier: e.Identifier, Enter: e.Enter, Typed: e.Typed,
		Generation: generation, Serial: state.Serial, Firmware: state.Firmware, Emulated: emulated,
		Occupied: state.Configured,
	}, tell)
}

func enrollable(tx *vault.Tx, e Enrollment) error {
	if err := idle(tx, e.Token); err != nil {
		return err
	}
	t, err := tx.Token(e.Token)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return nil
	case err != nil:
		return err
	case t.Status == vault.Compromised:
		return refuse(fmt.Sprintf("to use its name again, delete it first: tokendesk delete %s", t.ID), "%s is compromised (%s); it never comes back", t.ID, t.Loss.Kind)
	case t.Owner != "":
		return refuse(fmt.Sprintf("to give it to somebody else: tokendesk reissue %s --to USER", t.ID), "%s is enrolled and belongs to %s", t.ID, t.Owner)
	}
	return refuse(fmt.Sprintf("to hand it out with a fresh seed: tokendesk reissue %s --to USER", t.ID), "%s is already enrolled, as stock", t.ID)
}

// idle refuses a token with unfinished work.
func idle(tx *vault.Tx, id device.TokenID) error {
	job, found, err := tx.JobFor(id)
	if err != nil || !found {
		return err
	}
	return refuse(fmt.Sprintf("settle it first: tokendesk resolve %s", id), "an unfinished %s of %s is in the journal", job.Kind, id)
}

func sealFirst(tx *vault.Tx, w *work, now time.Time) error {
	p := w.params
	err := tx.PutToken(vault.Token{
		ID: w.job.Token, Serial: p.Serial, Firmware: p.Firmware, Status: vault.Pending, Digits: p.Digits,
		Identifier: p.Identifier, Enter: p.Enter, Counter: p.StartCounter, Tenant: p.Tenant, Emulated: p.Emulated, Created: now,
	})
	if err != nil {
		return err
	}
	if err := setAccessCode(tx, w.job.Token); err != nil {
		return err
	}
	seed := randomSeed()
	defer seed.Wipe()
	return tx.SetSeed(w.job.Token, w.params.Generation, seed)
}

// setAccessCode gives a token a fresh access code, if it has one of its own, unless one of a token of its name that was deleted
// is there: that one may protect the slot.
func setAccessCode(tx *vault.Tx, id device.TokenID) error {
	if row, _ := device.ApplicationOf(id); row.Access != device.OwnCode {
		return nil
	}
	code, err := tx.AccessCode(id)
	if err == nil {
		code.Wipe()
		return nil
	}
	if !errors.Is(err, vault.ErrNotFound) {
		return err
	}
	code = secret.Random(device.AccessCodeSize)
	defer code.Wipe()
	return tx.SetAccessCode(id, code)
}
