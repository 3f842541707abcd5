package provision

import (
	"bytes"
	"context"
	"crypto/x509"
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

// inUse returns a PIV application that is provisioned and has no unfinished work.
func inUse(tx *vault.Tx, id device.TokenID) (t vault.Token, err error) {
	if err := isPIV(id); err != nil {
		return t, err
	}
	if t, err = tx.Token(id); err != nil {
		return t, err
	}
	if err := idle(tx, id); err != nil {
		return t, err
	}
	switch {
	case t.Status == vault.Compromised:
		err = refuse(instead(t), "%s is compromised (%s); it never comes back", id, t.Loss.Kind)
	case t.Generation == 0:
		err = refuse("wipe it, and provision it: tokendesk wipe "+string(id), "%s was never provisioned to the end", id)
	}
	return t, err
}

// keyOf is the newest record of the key in a slot.
func keyOf(tx *vault.Tx, id device.TokenID, generation int, slot device.PIVSlot) (vault.Certificate, error) {
	all, err := tx.CertificatesOf(id)
	for _, c := range slices.Backward(all) {
		if c.Generation == generation && c.Slot == slot.String() && len(c.PublicKey) > 0 {
			return c, err
		}
	}
	if err == nil {
		err = refuse("see what it has: tokendesk piv show "+string(id.Device()), "the desk has made no key in slot %v of %s", slot, id.Device())
	}
	return vault.Certificate{}, err
}

// ask has a key sign a request, and checks that it is of the key on record.
func ask(ctx context.Context, card device.PIV, key vault.Certificate, pin secret.Secret, subject, user string, tell Tell) (PIVRequest, error) {
	if subject == "" {
		subject = "CN=" + escapeName(user)
	}
	raw, err := parseSubject(subject)
	if err != nil {
		return PIVRequest{}, err
	}
	slot, err := device.ParsePIVSlot(key.Slot)
	if err != nil {
		return PIVRequest{}, err
	}
	if key.TouchPolicy != device.TouchNever {
		tell(Progress{Kind: Touch, Text: "touch the key, so that it signs the request of slot " + key.Slot})
	}
	der, err := card.Request(ctx, pin, slot, &x509.CertificateRequest{RawSubject: raw})
	if err != nil {
		return PIVRequest{}, err
	}
	request, err := x509.ParseCertificateRequest(der)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil {
		return PIVRequest{}, fmt.Errorf("the card's request is not one: %w", err)
	}
	if !bytes.Equal(request.RawSubjectPublicKeyInfo, key.PublicKey) {
		return PIVRequest{}, otherKey(key)
	}
	spec := device.PIVKeySpec{Slot: slot, Algorithm: key.Algorithm, PIN: key.PINPolicy, Touch: key.TouchPolicy}
	return PIVRequest{Slot: slot, DER: der, Key: device.PIVKey{PIVKeySpec: spec, Public: request.PublicKey, Generated: true, Attested: key.Attested}}, nil
}

func otherKey(key vault.Certificate) error {
	return refuse(fmt.Sprintf("wipe the card, and provision it again: tokendesk wipe %s", key.Token),
		"the card does not have the key any more that the desk has made in slot %s: somebody has reset or changed it", key.Slot)
}

// RequestPIV has the key in a slot sign another request. A zero PIN stands for the random one, while nobody has taken that; an
// empty subject for that of the owner.
func (r *Runner) RequestPIV(ctx context.Context, by audit.Officer, id device.TokenID, slot device.PIVSlot, subject string, pin secret.Secret, tell Tell) (asked PIVRequest, err error) {
	release, err := r.Claim(id)
	if err != nil {
		return asked, err
	}
	defer release()
	var t vault.Token
	var key vault.Certificate
	var ours secret.Secret
	defer func() { ours.Wipe() }()
	err = r.Vault.View(func(tx *vault.Tx) (err error) {
		if t, err = inUse(tx, id); err != nil {
			return err
		}
		if key, err = keyOf(tx, id, t.Generation, slot); err != nil {
			return err
		}
		if t.Owner == "" && subject == "" {
			return refuse("name a subject", "%s belongs to nobody", id)
		}
		if !pin.IsZero() || key.PINPolicy == device.PINNever {
			return nil
		}
		ours, err = tx.PIVSecret(id, t.Generation, vault.PIN)
		if errors.Is(err, vault.ErrNotFound) {
			err = refuse("have its holder type it", "the PIN of %s is its holder's", id)
		}
		pin = ours
		return err
	})
	if err != nil {
		return asked, err
	}
	err = r.openPIV(ctx, id.Device(), func(card device.PIV, _ bool) (err error) {
		asked, err = ask(ctx, card, key, pin, subject, t.Owner, tell)
		return pinCure(id, err)
	})
	if err != nil {
		return asked, err
	}
	err = r.Vault.Update(func(tx *vault.Tx) error {
		if key, err = tx.Certificate(key.ID); err != nil {
			return err
		}
		key.Request = asked.DER
		act := vault.Done(by, "piv csr", id, t.Owner)
		return errors.Join(tx.PutCertificate(&key), tx.Audit(explained(act, "slot "+key.Slot, "")))
	})
	return asked, err
}

// pinCure says what to do about a PIN that the card refuses.
func pinCure(id device.TokenID, err error) error {
	wrong, ok := errors.AsType[*device.PINError](err)
	switch {
	case !ok:
		return err
	case wrong.Name == "PUK":
		return &device.CureError{Err: err, Cure: fmt.Sprintf("the desk cannot manage this card any more: tokendesk wipe %s, and provision it again", id)}
	case wrong.Retries == 0:
		return &device.CureError{Err: err, Cure: "give the card a new one: tokendesk piv unblock " + string(id.Device())}
	}
	return err
}

// ImportCertificate stores a certificate (X.509, DER) beside its key on the card, and records it. It may be repeated.
func (r *Runner) ImportCertificate(ctx context.Context, by audit.Officer, id device.TokenID, slot device.PIVSlot, der []byte) (c vault.Certificate, err error) {
	x, err := x509.ParseCertificate(der)
	if err != nil {
		return c, refuse("give it as PEM or DER", "that is no certificate (X.509)")
	}
	release, err := r.Claim(id)
	if err != nil {
		return c, err
	}
	defer release()
	var key secret.Secret
	// It is on record before the card has it: whatever happens then, it has to be revoked one day.
	err = r.Vault.Update(func(tx *vault.Tx) error {
		t, err := inUse(tx, id)
		if err != nil {
			return err
		}
		if c, err = certified(tx, t, slot, x); err != nil {
			return err
		}
		key.Wipe()
		if key, err = tx.PIVSecret(id, t.Generation, vault.ManagementKey); err != nil {
			return err
		}
		return tx.PutCertificate(&c)
	})
	defer func() { key.Wipe() }()
	if err != nil {
		return vault.Certificate{}, err
	}
	err = r.openPIV(ctx, id.Device(), func(card device.PIV, _ bool) error { return store(ctx, card, key, slot, c, x) })
	if err != nil {
		return vault.Certificate{}, err
	}
	err = r.Vault.Update(func(tx *vault.Tx) error {
		now, err := tx.Certificate(c.ID)
		if err != nil {
			return err
		}
		now.Imported = time.Now()
		c = now
		_, err = revokeDue(tx, by, id, "superseded", func(old vault.Certificate) bool {
			return old.ID < c.ID && old.Generation == c.Generation && old.Slot == c.Slot
		})
		if err != nil {
			return err
		}
		act := vault.Done(by, "piv import-cert", id, c.Owner)
		return errors.Join(tx.PutCertificate(&c), tx.Audit(explained(act, described(c), "")))
	})
	return c, err
}

// certified is the record of a certificate for the key in a slot, or refuses it.
func certified(tx *vault.Tx, t vault.Token, slot device.PIVSlot, x *x509.Certificate) (vault.Certificate, error) {
	c, err := keyOf(tx, t.ID, t.Generation, slot)
	if err != nil {
		return c, err
	}
	subject := clip(x.Subject.String())
	switch now := time.Now(); {
	case !bytes.Equal(x.RawSubjectPublicKeyInfo, c.PublicKey):
		return c, refuse("see which slot it is for: tokendesk piv show "+string(t.ID.Device()), "the certificate of %s is not for the key in slot %v of %s", subject, slot, t.ID.Device())
	case now.After(x.NotAfter):
		return c, refuse("have it issued again", "the certificate of %s has expired on %s", subject, x.NotAfter.Local().Format(time.DateOnly))
	case now.Before(x.NotBefore):
		return c, refuse("look at the clocks, or wait", "the certificate of %s is not valid before %s", subject, x.NotBefore.Local().Format("2006-01-02 15:04"))
	case x.IsCA:
		return c, refuse("give the one that was issued for the card", "the certificate of %s is that of an issuer", subject)
	}
	all, err := tx.CertificatesBySHA256(vault.Certificate{DER: x.Raw}.SHA256())
	for _, other := range all {
		switch {
		case other.Token != t.ID: // on whose card anybody could have put it
		case !other.Revoked.IsZero() || !other.RevokeDue.IsZero():
			return c, refuse("have another one issued", "the certificate of %s is revoked, or to be revoked", subject)
		case other.Generation == t.Generation && other.Slot == c.Slot:
			return other, nil // another try
		}
	}
	if len(c.DER) > 0 { // it takes the place of another one, which is valid still
		c.ID, c.Created, c.Imported = 0, time.Time{}, time.Time{}
	}
	fill(&c, x)
	c.Owner, c.Tenant = t.Owner, t.Tenant
	return c, err
}

// follow keeps the certificates of a token with it: of those that nobody has had they are its new owner's, and of those that are
// its present ones another tenant's when it moves. What is to be revoked stays whose it was.
func (o Order) follow(tx *vault.Tx, t vault.Token, moved string) error {
	if !t.ID.PIV() || o.Action != ActAssign && t.Tenant == moved {
		return nil
	}
	all, err := tx.CertificatesOf(t.ID)
	if err != nil {
		return err
	}
	for _, c := range all {
		if c.Generation != t.Generation || !c.RevokeDue.IsZero() {
			continue
		}
		before := c.Owner
		if o.Action == ActAssign && (len(c.DER) == 0 || c.Owner == "") {
			c.Owner = t.Owner
		}
		if c.Tenant == t.Tenant && c.Owner == before {
			continue
		}
		c.Tenant = t.Tenant
		if err := tx.PutCertificate(&c); err != nil {
			return err
		}
	}
	return nil
}

// fill copies what a certificate says.
func fill(c *vault.Certificate, x *x509.Certificate) {
	c.DER, c.Subject, c.Issuer, c.NotAfter = bytes.Clone(x.Raw), clip(x.Subject.String()), clip(x.Issuer.String()), x.NotAfter
	if x.SerialNumber != nil {
		c.Serial = clip(x.SerialNumber.Text(16))
	}
}

// clip bounds a name of a certificate, which anybody may have made.
func clip(name string) string {
	name = strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7F {
			return '�'
		}
		return r
	}, name), "�")
	if len(name) > 1000 {
		name = strings.ToValidUTF8(name[:1000], "") + "…"
	}
	return name
}

func described(c vault.Certificate) string {
	return fmt.Sprintf("slot %s: %s, issued by %s, serial %s, valid until %s, SHA-256 %s",
		c.Slot, c.Subject, c.Issuer, c.Serial, c.NotAfter.Local().Format(time.DateOnly), c.SHA256())
}

// store gives a certificate to the card, if the key is the one on record, and reads it back.
func store(ctx context.Context, card device.PIV, management secret.Secret, slot device.PIVSlot, c vault.Certificate, x *x509.Certificate) error {
	state, err := expected(ctx, card, c.Token)
	if err != nil {
		return err
	}
	there, err := publicIn(state, slot)
	if err != nil {
		return err
	}
	if !bytes.Equal(there, c.PublicKey) {
		return otherKey(c)
	}
	err = card.SetCertificate(ctx, management, slot, x)
	if errors.Is(err, device.ErrManagementKey) {
		return &device.CureError{Err: err, Cure: fmt.Sprintf("somebody has changed it: tokendesk wipe %s, and provision it again", c.Token)}
	}
	if err != nil {
		return err
	}
	if state, err = card.Describe(ctx); err != nil {
		return err
	}
	for _, k := range state.Keys {
		if k.Slot == slot && k.Certificate != nil && bytes.Equal(k.Certificate.Raw, x.Raw) {
			return nil
		}
	}
	return fmt.Errorf("%w: the certificate does not come back as it was written: import it again", device.ErrCorrupt)
}

// publicIn is the public key in a slot (SubjectPublicKeyInfo), or nothing if there is none.
func publicIn(state device.PIVState, slot device.PIVSlot) ([]byte, error) {
	for _, k := range state.Keys {
		if k.Slot == slot && k.Public != nil {
			return x509.MarshalPKIXPublicKey(k.Public)
		}
	}
	return nil, nil
}

// MarkRevoked notes that a certificate, named by its SHA-256 in hexadecimal, was revoked at its issuer, and returns it. May tells
// of which tenants' cards the officer may say so: anybody can put a copy of a certificate on a card.
func (r *Runner) MarkRevoked(by audit.Officer, sha256 string, may func(tenant string) bool) (c vault.Certificate, err error) {
	print := strings.ToLower(strings.ReplaceAll(sha256, ":", ""))
	err = r.Vault.Update(func(tx *vault.Tx) error {
		all, err := tx.CertificatesBySHA256(print)
		if err != nil {
			return err
		}
		c = vault.Certificate{}
		for _, one := range all {
			if !one.Due() || !may(one.Tenant) {
				continue
			}
			one.Revoked, one.RevokedBy = time.Now(), by.Name
			err := errors.Join(tx.PutCertificate(&one), tx.Audit(explained(vault.Done(by, "piv revoked", one.Token, one.Owner), described(one), "")))
			if err != nil {
				return err
			}
			c = one
		}
		if c.ID == 0 {
			return refuse("see those that do: tokendesk piv revocations", "no certificate with the SHA-256 %q waits for being revoked", print)
		}
		return nil
	})
	return c, err
}
