package provision_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"strings"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

func everywhere(string) bool { return true }

func (b *bench) ordered(o provision.Order) {
	b.t.Helper()
	if _, _, err := b.Do(b.t.Context(), officer, o); err != nil {
		b.t.Fatal(err)
	}
}

// moved gives the smart card to another tenant.
func (b *bench) moved(tenant string) {
	b.t.Helper()
	b.ordered(provision.Order{Action: provision.ActEdit, Tokens: []device.TokenID{pivID}, Tenant: &tenant})
}

// onOther puts a token on record that is on another key than the one at hand.
func (b *bench) onOther(id device.TokenID, owner string) {
	b.t.Helper()
	number, _ := id.Device().Serial()
	b.update(func(tx *vault.Tx) error {
		return errors.Join(tx.SetSeed(id, 1, secret.Random(20)), tx.SetAccessCode(id, secret.Random(6)),
			tx.PutToken(vault.Token{ID: id, Serial: number, Status: vault.Active, Owner: owner, Digits: 6, Generation: 1}))
	})
}

// The card of another tenant is reset with its key only for those who may.
func TestReissueOfAnotherTenantsCard(t *testing.T) {
	for _, shape := range []provision.Shape{provision.AtHand, provision.Absent} {
		b, _ := leavers(t)
		b.moved("clinic")
		o := provision.Reissue{Token: slot2, User: "bob", Shape: shape, May: func(tenant string) bool { return tenant == "" }}
		_, err := b.Reissue(t.Context(), officer, o, b.tell)
		wantRefused(t, err, "in use by another tenant", "officer of the whole desk")
		if b.token(slot2).Owner != "alice" || b.token(pivID).Owner != "alice" || b.onIt().Fresh() {
			t.Errorf("%s: something has happened", shape)
		}
		b.wantDue("")
	}
	b, c := leavers(t)
	b.moved("clinic")
	if err := b.reissue(t.Context(), slot2, "bob"); err != nil {
		t.Fatal(err)
	}
	b.wantTaken(c)
}

// It may come to another tenant while the reissue waits for its device.
func TestReissueOfCardThatHasMoved(t *testing.T) {
	b, c := leavers(t)
	_, err := b.Reissue(t.Context(), officer, provision.Reissue{Token: slot2, User: "bob", Shape: provision.Absent}, b.tell)
	if !errors.Is(err, provision.ErrDeviceWanted) {
		t.Fatal(err)
	}
	b.moved("clinic")
	_, err = b.Resolve(t.Context(), officer, slot2, nil, b.tell)
	b.wantUnfinished(err, slot2, "seal", nil)
	if !strings.Contains(err.Error(), "tokendesk wipe "+string(pivID)) || b.onIt().Fresh() {
		t.Errorf("%v", err)
	}
	if _, err := b.Wipe(t.Context(), officer, pivID, "", b.tell); err != nil {
		t.Fatal(err)
	}
	b.resolve(slot2)
	b.wantTaken(c)
}

func TestFoundCertificateIsOfItsCardsTenant(t *testing.T) {
	b, _ := leavers(t)
	b.moved("clinic")
	ca := newIssuer(t)
	key, err := b.pivSecret(pivID, 1, vault.ManagementKey)
	if err != nil {
		t.Fatal(err)
	}
	b.onCard(func(p device.PIV) error {
		return p.SetCertificate(t.Context(), key, 0x82, ca.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "boss"}}, ca.key.Public()))
	})
	if err := b.reissue(t.Context(), slot2, "bob"); err != nil {
		t.Fatal(err)
	}
	b.wantDue("9a CN=alice, 82 CN=boss")
	for _, c := range b.certificates(pivID) {
		if c.Subject == "CN=boss" && c.Tenant != "clinic" {
			t.Errorf("%+v", c)
		}
	}
}

// A certificate of the stock is its owner's from when the card has one.
func TestCertificateOfStockIsAssigned(t *testing.T) {
	b := newCardBench(t, firmware5)
	b.enrolled(slot2, "alice")
	b.deliver()
	requests, err := b.provision(provision.PIVProvision{Subject: "CN=alice"})
	if err != nil || len(requests) != 1 {
		t.Fatal(requests, err)
	}
	if _, err := b.ImportCertificate(t.Context(), officer, pivID, device.PIVAuthentication, newIssuer(t).issue(requests[0])); err != nil {
		t.Fatal(err)
	}
	b.ordered(provision.Order{Action: provision.ActAssign, Tokens: []device.TokenID{pivID}, User: "alice"})
	if c := b.certificates(pivID)[0]; c.Owner != "alice" {
		t.Errorf("%+v", c)
	}
	// One of a time when that was not recorded is found by the token's owner.
	b.update(func(tx *vault.Tx) error {
		all, err := tx.CertificatesOf(pivID)
		if err != nil {
			return err
		}
		all[0].Owner = ""
		return tx.PutCertificate(&all[0])
	})
	_, err = b.Reissue(t.Context(), officer, provision.Reissue{Token: slot2, User: "bob", Shape: provision.Absent}, b.tell)
	if !errors.Is(err, provision.ErrDeviceWanted) {
		t.Fatal(err)
	}
	b.wantDue("9a CN=alice")
}

// Certificates go with a card that moves; those that were to be revoked before stay where they were.
func TestCertificatesMove(t *testing.T) {
	b := newCardBench(t, firmware5)
	r, ca := b.provisioned(), newIssuer(t)
	for range 2 {
		if _, err := b.ImportCertificate(t.Context(), officer, pivID, r.Slot, ca.issue(r)); err != nil {
			t.Fatal(err)
		}
	}
	b.moved("clinic")
	for i, want := range []string{"", "clinic"} {
		if c := b.certificates(pivID)[i]; c.Tenant != want || c.Due() != (want == "") {
			t.Errorf("%+v", c)
		}
	}
}

// Whoever has a lost key has all that is on it.
func TestLostKeyIsOneKey(t *testing.T) {
	b, _ := leavers(t)
	o := provision.Order{Action: provision.ActCompromise, Tokens: []device.TokenID{slot2}, Loss: vault.Lost}
	words := "the same key is also " + string(pivID) + " of alice: tokendesk compromise " + string(pivID) + " --reason lost"
	in, err := b.Prepare(t.Context(), o)
	if err != nil || in.Effects[0].Warning != words {
		t.Errorf("%+v, %v", in, err)
	}
	b.ordered(o)
	b.wantDue("9a CN=alice")
	b.view(func(tx *vault.Tx) error {
		lines, err := provision.SameKey(tx, o)
		if len(lines) != 1 || lines[0] != words {
			t.Errorf("%q", lines)
		}
		return err
	})
	o.Tokens = []device.TokenID{pivID}
	if in, err = b.Prepare(t.Context(), o); err != nil || in.Effects[0].Warning != "" {
		t.Errorf("all of it is compromised: %+v, %v", in, err)
	}

	b, _ = leavers(t)
	o = provision.Order{Action: provision.ActCompromise, Tokens: []device.TokenID{slot2}, Loss: vault.Damaged}
	if in, err = b.Prepare(t.Context(), o); err != nil || in.Effects[0].Warning != "" {
		t.Errorf("a damaged slot: %+v, %v", in, err)
	}
	b.ordered(o)
	b.wantDue("")
	o.Tokens, o.Loss = []device.TokenID{pivID}, vault.Stolen
	if in, err = b.Prepare(t.Context(), o); err != nil || in.Effects[0].Warning != "" {
		t.Errorf("the slot is compromised already: %+v, %v", in, err)
	}
}

func TestLostKeyIsReplaced(t *testing.T) {
	b := newBenchOf(t, serial+1)
	b.onOther(slot2, "alice")
	b.update(func(tx *vault.Tx) error {
		c := vault.Certificate{Token: pivID, Owner: "carol", Generation: 1, Slot: "9a", DER: []byte("c"), Subject: "CN=carol"}
		c.NotAfter = time.Now().Add(time.Hour)
		return errors.Join(tx.PutCertificate(&c), tx.SetPIVSecret(pivID, 1, vault.PUK, secret.New([]byte("12345678"))), tx.SetPIVSecret(pivID, 1, vault.ManagementKey, secret.Random(24)),
			tx.PutToken(vault.Token{ID: pivID, Serial: serial, Status: vault.Active, Owner: "carol", Generation: 1}))
	})
	with := device.SlotToken(device.YubiKeyID(serial+1), 2)
	if _, err := b.Reissue(t.Context(), officer, provision.Reissue{Token: slot2, With: with, Old: provision.OldEnd{Loss: vault.Stolen}}, b.tell); err != nil {
		t.Fatal(err)
	}
	b.wantDue("9a CN=carol")
	if !b.told("the same key is also " + string(pivID) + " of carol: tokendesk compromise " + string(pivID) + " --reason stolen") {
		t.Errorf("%+v", b.seen)
	}
}

// A copy of somebody's certificate on another card neither has that revoked, nor keeps it from its own card.
func TestPlantedCertificate(t *testing.T) {
	b := newCardBench(t, firmware5)
	r := b.provisioned()
	der := newIssuer(t).issue(r)
	x, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	planted := vault.Certificate{Token: device.PIVToken(device.YubiKeyID(serial + 7)), Tenant: "clinic", Slot: "82", DER: der, Subject: "CN=alice", NotAfter: x.NotAfter, RevokeDue: x.NotBefore}
	b.update(func(tx *vault.Tx) error { return tx.PutCertificate(&planted) })
	c, err := b.ImportCertificate(t.Context(), officer, pivID, r.Slot, der)
	if err != nil {
		t.Fatal(err)
	}
	b.ordered(provision.Order{Action: provision.ActUnassign, Tokens: []device.TokenID{pivID}})
	b.wantDue("9a CN=alice, 82 CN=alice")
	if _, err := b.MarkRevoked(officer, c.SHA256(), func(tenant string) bool { return tenant == "clinic" }); err != nil {
		t.Fatal(err)
	}
	b.wantDue("9a CN=alice")
	if c, err = b.MarkRevoked(officer, c.SHA256(), everywhere); err != nil || c.Token != pivID {
		t.Errorf("%+v, %v", c, err)
	}
	b.wantDue("")
}

// What a replacement's device has on its card is nobody's business but its receiver's.
func TestReplacementByUsedCard(t *testing.T) {
	old := device.SlotToken(device.YubiKeyID(serial+1), 2)
	o := provision.Reissue{Token: old, With: slot2}
	t.Run("somebody else's", func(t *testing.T) {
		b := newCardBench(t, firmware5)
		b.imported()
		b.onOther(old, "bob")
		_, err := b.Reissue(t.Context(), officer, o, b.tell)
		wantRefused(t, err, "belongs to alice, and not to bob", "tokendesk wipe "+string(pivID))
		b.moved("clinic")
		_, err = b.Reissue(t.Context(), officer, o, b.tell)
		wantRefused(t, err, "in use by another tenant")
		if strings.Contains(err.Error(), "alice") || b.token(old).Owner != "bob" {
			t.Errorf("%v, %+v", err, b.token(old))
		}
	})
	t.Run("of the stock", func(t *testing.T) {
		b := newCardBench(t, firmware5)
		b.imported()
		b.ordered(provision.Order{Action: provision.ActUnassign, Tokens: []device.TokenID{pivID}})
		b.onOther(old, "bob")
		_, err := b.Reissue(t.Context(), officer, o, b.tell)
		wantRefused(t, err, "has keys already", "tokendesk wipe "+string(pivID))
	})
	t.Run("its receiver's", func(t *testing.T) {
		b := newCardBench(t, firmware5)
		b.imported()
		b.onOther(old, "Alice")
		if _, err := b.Reissue(t.Context(), officer, o, b.tell); err != nil {
			t.Fatal(err)
		}
		if b.token(pivID).Owner != "alice" {
			t.Errorf("%+v", b.token(pivID))
		}
		b.wantOurs(pivID)
		b.wantDue("")
	})
	t.Run("unknown", func(t *testing.T) {
		b := newCardBench(t, firmware5)
		b.onOther(old, "bob")
		b.onCard(func(p device.PIV) error {
			_, err := p.Generate(t.Context(), secret.Secret{}, device.PIVKeySpec{Slot: 0x82, Algorithm: device.ECCP256, PIN: device.PINOnce, Touch: device.TouchNever})
			return err
		})
		_, err := b.Reissue(t.Context(), officer, o, b.tell)
		wantRefused(t, err, "a key in slot 82", "--overwrite")
		if b.token(old).Owner != "bob" {
			t.Errorf("%+v", b.token(old))
		}
		o := o
		o.Overwrite = true
		if _, err := b.Reissue(t.Context(), officer, o, b.tell); err != nil {
			t.Fatal(err)
		}
		b.wantFresh()
	})
}

// A card that is compromised and wiped may be used again, by others.
func TestReissueOfWipedCardInUse(t *testing.T) {
	b, _ := leavers(t)
	b.ordered(provision.Order{Action: provision.ActCompromise, Tokens: []device.TokenID{pivID}, Loss: vault.Damaged})
	if _, err := b.Wipe(t.Context(), officer, pivID, "", b.tell); err != nil {
		t.Fatal(err)
	}
	b.onCard(func(p device.PIV) error {
		_, err := p.Generate(t.Context(), secret.Secret{}, device.PIVKeySpec{Slot: 0x82, Algorithm: device.ECCP256, PIN: device.PINOnce, Touch: device.TouchNever})
		return err
	})
	if err := b.reissue(t.Context(), slot2, "bob"); err != nil {
		t.Fatal(err)
	}
	b.wantOnly(slot2, "bob")
	b.wantFresh()
	if b.token(pivID).Status != vault.Compromised {
		t.Errorf("%+v", b.token(pivID))
	}
	if err := b.Vault.Check(); err != nil {
		t.Error(err)
	}
}

func TestRefusedSubjectIsHarmless(t *testing.T) {
	b := newCardBench(t, firmware5)
	r := b.provisioned()
	der := newIssuer(t).issue(r, func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.Subject = true, true, pkix.Name{CommonName: "\x1b[31m" + strings.Repeat("x", 3000)}
	})
	_, err := b.ImportCertificate(t.Context(), officer, pivID, r.Slot, der)
	wantRefused(t, err, "is that of an issuer")
	if len(err.Error()) > 1300 || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("%q", err)
	}
}

// Whoever has taken the PIN of a card knows it when that is somebody else's.
func TestAssignedCardWarnsOfPIN(t *testing.T) {
	b := newCardBench(t, firmware5)
	b.provisioned()
	tokens := []device.TokenID{pivID}
	b.ordered(provision.Order{Action: provision.ActUnassign, Tokens: tokens})
	warning := func() string {
		in, err := b.Prepare(t.Context(), provision.Order{Action: provision.ActAssign, Tokens: tokens, User: "bob"})
		if err != nil {
			t.Fatal(err)
		}
		return in.Effects[0].Warning
	}
	const unblock = "; alice knows its PIN, too; to give it a new one: tokendesk piv unblock "
	if w := warning(); !strings.Contains(w, "alice had it with the same keys") || strings.Contains(w, unblock) {
		t.Error(w)
	}
	pin, err := b.TakePIN(t.Context(), officer, pivID)
	if err != nil {
		t.Fatal(err)
	}
	pin.Wipe()
	if w := warning(); !strings.Contains(w, unblock+string(pivID.Device())) {
		t.Error(w)
	}
}
