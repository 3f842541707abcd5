package provision_test

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/emulator/smartcard"
	"tokendesk/provision"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// leavers gives alice a key with codes and, on its card, a certificate.
func leavers(t *testing.T) (*bench, vault.Certificate) {
	b := newCardBench(t, firmware5)
	b.enrolled(slot2, "alice")
	b.deliver()
	return b, b.imported()
}

// wantTaken checks that bob has the key, and that nothing of alice is on its card.
func (b *bench) wantTaken(c vault.Certificate) {
	b.t.Helper()
	b.wantOnly(slot2, "bob")
	b.wantNoPIV(pivID)
	b.wantFresh()
	b.wantDue("9a CN=alice")
	h := b.handovers(slot2)[0]
	if len(h.Revoke) != 1 || h.Revoke[0] != c.Revocation() || h.Revoke[0].Subject != "CN=alice" || h.To != "bob" {
		b.t.Errorf("%+v", h)
	}
	if err := b.Vault.Check(); err != nil {
		b.t.Error(err)
	}
}

func TestReissueWipesPIV(t *testing.T) {
	b, c := leavers(t)
	if err := b.reissue(t.Context(), slot2, "bob"); err != nil {
		t.Fatal(err)
	}
	if !b.told("to be revoked at its issuer: the certificate of CN=alice, slot 9a") || !b.told("its smart card is reset, too") {
		t.Errorf("nobody is told: %+v", b.seen)
	}
	b.wantTaken(c)
	var acts []string
	for _, a := range b.history(pivID) {
		acts = append(acts, a.Action+" "+a.Reason)
	}
	if all := strings.Join(acts, "\n"); !strings.Contains(all, "reissue: piv user alice; card reset; certificates to be revoked: 1") || !strings.Contains(all, "piv revocation due user alice; slot 9a: CN=alice, issued by CN=Test CA") {
		t.Errorf("the trail does not tell of it:\n%s", all)
	}
	b.view(func(tx *vault.Tx) error {
		stone, found, err := tx.Tombstone(pivID)
		if !found || stone.Owner != "alice" || stone.Generation != 1 {
			t.Errorf("%+v", stone)
		}
		return err
	})
	// Bob's begins above, and is nobody else's.
	if _, err := b.provision(provision.PIVProvision{User: "bob"}); err != nil {
		t.Fatal(err)
	}
	if tok := b.token(pivID); tok.Generation != 2 || tok.Owner != "bob" {
		t.Errorf("%+v", tok)
	}
	b.wantOurs(pivID)
	b.wantDue("9a CN=alice")
}

// A key without a smart card is reissued as ever, also where the desk uses no cards.
func TestReissueWithoutCard(t *testing.T) {
	for name, prepare := range map[string]func(b *bench){
		"no PIV":    func(b *bench) { b.OpenPIV = nil },
		"no card":   func(b *bench) { b.card = nil },
		"all fresh": func(b *bench) {},
	} {
		t.Run(name, func(t *testing.T) {
			b := newCardBench(t, firmware5)
			prepare(b)
			b.enrolled(slot2, "alice")
			if err := b.reissue(t.Context(), slot2, "bob"); err != nil {
				t.Fatal(err)
			}
			b.wantOnly(slot2, "bob")
			if h := b.handovers(slot2)[0]; h.Revoke != nil || len(b.history(pivID)) > 0 {
				t.Errorf("%+v", h)
			}
		})
	}
}

// What others have put on the card of a key is no business of its next owner, and their certificates have to be revoked, too.
func TestReissueOfForeignCard(t *testing.T) {
	b := newCardBench(t, firmware4)
	b.enrolled(slot2, "alice")
	ca := newIssuer(t)
	b.onCard(func(p device.PIV) error {
		public, err := p.Generate(t.Context(), secret.Secret{}, device.PIVKeySpec{Slot: 0x82, Algorithm: device.ECCP256, PIN: device.PINOnce, Touch: device.TouchNever})
		if err != nil {
			return err
		}
		return p.SetCertificate(t.Context(), secret.Secret{}, 0x82, ca.sign(&x509.Certificate{Subject: ca.cert.Subject}, public))
	})
	if err := b.reissue(t.Context(), slot2, "bob"); err != nil {
		t.Fatal(err)
	}
	b.wantFresh()
	b.wantDue("82 CN=Test CA")
	if h := b.handovers(slot2)[0]; len(h.Revoke) != 1 || h.Revoke[0].Slot != "82" {
		t.Errorf("%+v", h)
	}
}

// A card that may have the leaver's keys and cannot be reached holds the reissue up.
func TestReissueWaitsForCard(t *testing.T) {
	ctx := t.Context()
	for name, way := range map[string]func(b *bench, c vault.Certificate){
		"the card comes back": func(b *bench, c vault.Certificate) {
			b.OpenPIV = b.openPIV
			b.resolve(slot2)
			b.wantTaken(c)
		},
		"the application is deleted": func(b *bench, c vault.Certificate) {
			if _, _, err := b.Do(ctx, officer, provision.Order{Action: provision.ActDelete, Tokens: []device.TokenID{pivID}, Reason: "broken"}); err != nil {
				b.t.Fatal(err)
			}
			b.resolve(slot2)
			b.wantOnly(slot2, "bob")
			b.wantDue("9a CN=alice")
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, c := leavers(t)
			b.OpenPIV = func(context.Context, device.ID, func(device.PIV, bool) error) error { return provision.ErrNoCard }
			err := b.reissue(ctx, slot2, "bob")
			b.wantUnfinished(err, slot2, "seal", provision.ErrNoCard)
			if !strings.Contains(err.Error(), "tokendesk delete "+string(pivID)) || b.token(slot2).Owner != "" {
				t.Errorf("%v, %+v", err, b.token(slot2))
			}
			b.wantDue("9a CN=alice") // the leaver is cut off already
			way(b, c)
		})
	}
	b := newCardBench(t, firmware5)
	b.enrolled(slot2, "alice")
	b.OpenPIV = func(context.Context, device.ID, func(device.PIV, bool) error) error { return device.ErrBusy }
	b.wantUnfinished(b.reissue(ctx, slot2, "bob"), slot2, "seal", device.ErrBusy)
	b.OpenPIV = b.openPIV
	b.resolve(slot2)
	b.wantOnly(slot2, "bob")
}

func TestAbsentAndReplacedPIV(t *testing.T) {
	ctx := t.Context()
	t.Run("without device", func(t *testing.T) {
		b, c := leavers(t)
		_, err := b.Reissue(ctx, officer, provision.Reissue{Token: slot2, User: "bob", Shape: provision.Absent}, b.tell)
		if !errors.Is(err, provision.ErrDeviceWanted) {
			t.Fatal(err)
		}
		b.wantDue("9a CN=alice")
		b.resolve(slot2)
		b.wantTaken(c)
	})
	replaced := func(t *testing.T, end provision.OldEnd, due string) {
		b := newBenchOf(t, serial+1) // alice's own key is not here
		old := device.SlotToken(device.YubiKeyID(serial), 2)
		b.update(func(tx *vault.Tx) error {
			c := vault.Certificate{Token: pivID, Owner: "Alice", Generation: 1, Slot: "9a", DER: []byte("c"), Subject: "CN=alice", NotAfter: time.Now().Add(time.Hour)}
			others := c
			others.Owner, others.Subject = "carol", "CN=carol"
			return errors.Join(tx.SetSeed(old, 1, secret.Random(20)), tx.SetAccessCode(old, secret.Random(6)), tx.PutCertificate(&c), tx.PutCertificate(&others),
				tx.PutToken(vault.Token{ID: old, Serial: serial, Status: vault.Active, Owner: "alice", Digits: 6, Generation: 1}))
		})
		with := device.SlotToken(device.YubiKeyID(serial+1), 2)
		_, err := b.Reissue(ctx, officer, provision.Reissue{Token: old, With: with, Old: end}, b.tell)
		if err != nil {
			t.Fatal(err)
		}
		b.wantDue(due)
		if h := b.handovers(with)[0]; len(h.Revoke) != 1 {
			t.Errorf("%+v", h)
		}
	}
	t.Run("replacement", func(t *testing.T) { replaced(t, provision.OldEnd{}, "9a CN=alice") })
	t.Run("replacement of a lost key", func(t *testing.T) { // with all that is on it
		replaced(t, provision.OldEnd{Loss: vault.Lost}, "9a CN=alice, 9a CN=carol")
	})
	t.Run("written off", func(t *testing.T) {
		b, _ := leavers(t)
		if _, _, err := b.AddLeavers(officer, []provision.Leave{{User: "alice"}}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.Settle(ctx, officer, provision.Settlement{User: "alice", State: vault.WrittenOff}); err != nil {
			t.Fatal(err)
		}
		b.wantDue("9a CN=alice")
		if tok := b.token(pivID); tok.Status != vault.Compromised {
			t.Errorf("%+v", tok)
		}
	})
}

// Wherever the card is pulled while it is reset for the successor: the reissue goes on when it is back, and lists everything.
func TestReissuePulledAtEveryAPDU(t *testing.T) {
	for n := 1; ; n += 3 {
		b, c := leavers(t)
		kind := []smartcard.Fault{smartcard.FaultPullBefore, smartcard.FaultPullAfter}[n%2]
		pulled := b.pulledAt(kind, n, func() error { return b.reissue(t.Context(), slot2, "bob") })
		if pulled {
			b.resolve(slot2)
		}
		b.wantTaken(c)
		if t.Failed() {
			t.Fatalf("pulled at APDU %d: %s", n, kind)
		}
		if !pulled {
			t.Logf("%d APDUs", n)
			return
		}
	}
}

// Two works never meet on one card.
func TestReissueWaitsForWorkOnCard(t *testing.T) {
	b, c := leavers(t)
	release, err := b.Claim(pivID)
	if err != nil {
		t.Fatal(err)
	}
	b.wantUnfinished(b.reissue(t.Context(), slot2, "bob"), slot2, "seal", nil)
	release()
	b.resolve(slot2)
	b.wantTaken(c)
}
