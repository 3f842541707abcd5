package localapi

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
)

// cardPatience is how long a look at a card may take, which other work may have.
const cardPatience = 10 * time.Second

// showPIV tells what the card holds if it is inserted, and what is on record otherwise.
func (d *Desk) showPIV(ctx context.Context, in *PIVPath) (api.PIV, error) {
	id, err := in.id()
	if err != nil {
		return api.PIV{}, err
	}
	out, known, err := d.recordedPIV(ctx, id)
	if err != nil {
		return out, err
	}
	state, emulated, err := d.describe(ctx, id.Device())
	if err != nil {
		if out.Token == nil && len(known) == 0 {
			return out, d.onCardError(id, err)
		}
		out.Problem, out.Cure = device.Cure(d.onCardError(id, err))
		return out, nil
	}
	out.Inserted, out.Emulated, out.Firmware = true, out.Emulated || emulated, state.Firmware.String()
	out.PINRetries, out.PUKRetries = told(state.PINRetries), told(state.PUKRetries)
	out.Fresh, out.NotTold = state.Fresh(), !state.DefaultsKnown
	for name, is := range map[string]bool{"PIN": state.DefaultPIN, "PUK": state.DefaultPUK, "management key": state.DefaultManagementKey} {
		if state.DefaultsKnown && is {
			out.Defaults = append(out.Defaults, name)
		}
	}
	slices.Sort(out.Defaults)
	out.Slots = compared(state.Keys, out.Slots)
	return out, nil
}

func told(tries int) *int {
	if tries < 0 {
		return nil
	}
	return &tries
}

// describe asks an inserted card.
func (d *Desk) describe(ctx context.Context, id device.ID) (state device.PIVState, emulated bool, err error) {
	if d.Runner.OpenPIV == nil {
		return state, false, errNoPIV
	}
	ctx, enough := context.WithTimeout(ctx, cardPatience)
	defer enough()
	err = d.Runner.OpenPIV(ctx, id, func(p device.PIV, of bool) error {
		emulated = of
		state, err = p.Describe(ctx)
		return err
	})
	return state, emulated, err
}

// errNoPIV says why no card can be asked.
var errNoPIV = &device.CureError{Err: errors.New("this desk does not look for smart cards"), Cure: "say devices.pcsc = true in its configuration"}

// recordedPIV is what the desk knows of a PIV application; known are all of its keys and certificates, of whatever generation.
func (d *Desk) recordedPIV(ctx context.Context, id device.TokenID) (out api.PIV, known []vault.Certificate, err error) {
	serial, _ := id.Device().Serial()
	out = api.PIV{Device: string(id.Device()), Serial: uint32(serial), Slots: []api.PIVSlot{}}
	err = d.Vault.View(func(tx *vault.Tx) error {
		t, err := tx.Token(id)
		if errors.Is(err, vault.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if !sees(ctx, t.Tenant) {
			return vault.ErrNotFound
		}
		token, err := d.tokenOf(ctx, tx, t)
		if err != nil {
			return err
		}
		out.Token, out.Firmware, out.Emulated = &token, token.Firmware, token.Emulated
		if known, err = tx.CertificatesOf(id); err != nil {
			return err
		}
		for _, c := range current(known, t.Generation) {
			out.Slots = append(out.Slots, recordedSlot(c))
		}
		out.PINWaits, err = tx.HasPIVSecret(id, t.Generation, vault.PIN)
		return err
	})
	return out, known, err
}

func recordedSlot(c vault.Certificate) api.PIVSlot {
	out := api.PIVSlot{
		Slot: c.Slot, Algorithm: string(c.Algorithm), PINPolicy: string(c.PINPolicy), TouchPolicy: string(c.TouchPolicy), Attested: c.Attested,
		Public: printOf(c.PublicKey), Waits: len(c.DER) == 0 && len(c.Request) > 0,
	}
	if len(c.DER) > 0 {
		shown := certificateOf(c)
		out.Certificate = &shown
	}
	return out
}

// printOf is the fingerprint of something in DER; empty if there is nothing.
func printOf(der []byte) string {
	if len(der) == 0 {
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// compared are the slots of a card, with what the record says of them where the card is silent, and where the two differ.
func compared(keys []device.PIVKey, recorded []api.PIVSlot) []api.PIVSlot {
	out := []api.PIVSlot{}
	for _, k := range keys {
		shown := cardSlot(k)
		at := slices.IndexFunc(recorded, func(s api.PIVSlot) bool { return s.Slot == shown.Slot })
		if at < 0 {
			shown.Problem = "the desk does not know of it"
			if len(recorded) == 0 {
				shown.Problem = "" // of nothing here
			}
			out = append(out, shown)
			continue
		}
		out = append(out, joined(shown, recorded[at]))
		recorded = slices.Delete(slices.Clone(recorded), at, at+1)
	}
	for _, r := range recorded { // a card before firmware 5.3 is silent about keys without certificate and attestation
		r.Problem = "the card does not show it"
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b api.PIVSlot) int { return cmp.Compare(a.Slot, b.Slot) })
	return out
}

func cardSlot(k device.PIVKey) api.PIVSlot {
	out := api.PIVSlot{Slot: k.Slot.String(), Algorithm: string(k.Algorithm), PINPolicy: string(k.PIN), TouchPolicy: string(k.Touch), Attested: k.Attested}
	if k.Public != nil {
		if der, err := x509.MarshalPKIXPublicKey(k.Public); err == nil {
			out.Public = printOf(der)
		}
	}
	if c := k.Certificate; c != nil {
		out.Certificate = &api.Certificate{
			Slot: out.Slot, Subject: c.Subject.String(), Issuer: c.Issuer.String(), Serial: fmt.Sprintf("%x", c.SerialNumber), NotAfter: c.NotAfter, SHA256: printOf(c.Raw),
		}
	}
	return out
}

// joined is one slot, by its card and by the record.
func joined(card, record api.PIVSlot) api.PIVSlot {
	switch there, here := card.Certificate, record.Certificate; {
	case card.Public != "" && record.Public != "" && card.Public != record.Public:
		card.Problem = "the card has another key than the record"
		return card
	case there != nil && here == nil:
		card.Problem = "the desk does not know of its certificate"
	case there == nil && here != nil:
		card.Certificate, card.Problem = here, "the certificate on record is not on the card"
	case there != nil && there.SHA256 != here.SHA256:
		card.Problem = "the card has another certificate than the record"
	case there != nil:
		card.Certificate = here
	}
	card.Algorithm, card.Public = cmp.Or(card.Algorithm, record.Algorithm), cmp.Or(card.Public, record.Public)
	card.PINPolicy, card.TouchPolicy = cmp.Or(card.PINPolicy, record.PINPolicy), cmp.Or(card.TouchPolicy, record.TouchPolicy)
	card.Attested, card.Waits = card.Attested || record.Attested, record.Waits
	return card
}

func certificateOf(c vault.Certificate) api.Certificate {
	return api.Certificate{
		Token: string(c.Token), Slot: c.Slot, Subject: c.Subject, Issuer: c.Issuer, Serial: c.Serial, NotAfter: c.NotAfter, SHA256: c.SHA256(),
		Owner: c.Owner, RevokeDue: timed(c.RevokeDue), Why: c.DueWhy, Revoked: timed(c.Revoked), RevokedBy: c.RevokedBy,
	}
}

func (d *Desk) revocations(ctx context.Context, _ *nothing) (api.Certificates, error) {
	out := api.Certificates{Certificates: []api.Certificate{}}
	err := d.Vault.View(func(tx *vault.Tx) error {
		due, err := tx.CertificatesDue()
		for _, c := range due {
			if sees(ctx, c.Tenant) {
				out.Certificates = append(out.Certificates, certificateOf(c))
			}
		}
		return err
	})
	return out, err
}

// certificatePath names a certificate.
type certificatePath struct {
	SHA256 string `path:"sha256" pattern:"^[0-9a-f]{64}$" doc:"Of the certificate, in hex" example:"0000000000000000000000000000000000000000000000000000000000000000"`
}

// mayOrder tells of which tenants the caller is an officer.
func mayOrder(ctx context.Context) func(tenant string) bool {
	r := reachOf(ctx)
	return func(tenant string) bool { return officers.admits(r.in(tenant)) }
}

func (d *Desk) markRevoked(ctx context.Context, in *certificatePath) (out api.Certificate, err error) {
	unknown := api.Errorf(api.NotFound, "no certificate on record has this fingerprint: tokendesk piv revocations lists those that are due")
	err = d.Vault.View(func(tx *vault.Tx) error {
		found, err := tx.CertificatesBySHA256(in.SHA256)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(found, func(c vault.Certificate) bool { return mayOrder(ctx)(c.Tenant) }) {
			return unknown
		}
		return nil
	})
	if err != nil {
		return out, err
	}
	c, err := d.Runner.MarkRevoked(officer(ctx), in.SHA256, mayOrder(ctx))
	if errors.Is(err, vault.ErrNotFound) {
		err = unknown
	}
	return certificateOf(c), err
}

// dueBefore are the certificates on some devices' cards that are to be revoked before something is done with those, and of which the
// caller may know.
func (d *Desk) dueBefore(ctx context.Context, ids ...device.TokenID) (due map[uint64]bool, err error) {
	due = map[uint64]bool{}
	err = d.dueOn(ctx, ids, func(c vault.Certificate) { due[c.ID] = true })
	return due, err
}

// dueSince are those that are to be revoked since.
func (d *Desk) dueSince(ctx context.Context, before map[uint64]bool, ids ...device.TokenID) (due []api.Certificate, err error) {
	err = d.dueOn(ctx, ids, func(c vault.Certificate) {
		if !before[c.ID] {
			due = append(due, certificateOf(c))
		}
	})
	return due, err
}

// toRevoke adds them to an outcome.
func (d *Desk) toRevoke(ctx context.Context, out api.Outcome, before map[uint64]bool, ids ...device.TokenID) (_ api.Outcome, err error) {
	out.Revoke, err = d.dueSince(ctx, before, ids...)
	return out, err
}

func (d *Desk) dueOn(ctx context.Context, ids []device.TokenID, fn func(vault.Certificate)) error {
	return d.Vault.View(func(tx *vault.Tx) error {
		due, err := tx.CertificatesDue()
		for _, c := range due {
			if sees(ctx, c.Tenant) && slices.ContainsFunc(ids, func(id device.TokenID) bool { return id.Device() == c.Token.Device() }) {
				fn(c)
			}
		}
		return err
	})
}

// onCardError adds to what a card has refused what to do about it, where that is not told.
func (d *Desk) onCardError(id device.TokenID, err error) error {
	var known *device.CureError
	var refused *provision.RefusedError
	var unfinished *provision.UnfinishedError
	pin := (*device.PINError)(nil)
	cure := ""
	switch {
	case err == nil, errors.As(err, &known), errors.As(err, &refused), errors.As(err, &unfinished):
	case errors.As(err, &pin) && pin.Retries == 0 && pin.Name == "PIN":
		cure = "tokendesk piv unblock " + string(id.Device())
	case errors.As(err, &pin) && pin.Retries == 0:
		cure = "nothing but a reset helps: tokendesk piv wipe " + string(id.Device())
	case errors.As(err, &pin):
		cure = "look at it, and repeat; tokendesk piv unblock " + string(id.Device()) + " makes a new PIN"
	case errors.Is(err, device.ErrManagementKey):
		cure = "somebody else has changed it: to begin anew, tokendesk piv wipe " + string(id.Device())
	case errors.Is(err, device.ErrAttestation):
		cure = "do not trust its key: use another YubiKey"
	case errors.Is(err, device.ErrMute):
		cure = "pull it and insert it again"
	}
	if cure != "" {
		return &device.CureError{Err: err, Cure: cure}
	}
	return err
}
