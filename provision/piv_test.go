package provision_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/emulator/smartcard"
	"tokendesk/provision"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

func TestProvisionPIV(t *testing.T) {
	for _, firmware := range []device.Version{firmware4, firmware5, firmware7} {
		t.Run(firmware.String(), func(t *testing.T) {
			b := newCardBench(t, firmware)
			b.Notices = true
			keys := []device.PIVKeySpec{
				{Slot: device.PIVAuthentication, Algorithm: device.ECCP256, PIN: device.PINOnce, Touch: device.TouchNever},
				{Slot: device.PIVSignature, Algorithm: device.ECCP384, PIN: device.PINAlways, Touch: device.TouchAlways},
			}
			if firmware == firmware7 {
				keys = append(keys, device.PIVKeySpec{Slot: device.PIVKeyManagement, Algorithm: device.Ed25519, PIN: device.PINOnce, Touch: device.TouchCached})
			}
			requests, err := b.provision(provision.PIVProvision{User: "alice", Tenant: "north", Reason: "new here", Keys: keys, Subject: `CN=Alice\, A.,O=Example,C=DE`})
			if err != nil {
				t.Fatal(err)
			}
			if len(requests) != len(keys) || requests[0].Slot != device.PIVAuthentication || requests[1].Slot != device.PIVSignature {
				t.Fatalf("%+v", requests)
			}
			for i, r := range requests {
				x, err := x509.ParseCertificateRequest(r.DER)
				if err != nil || x.CheckSignature() != nil || r.Key.PIVKeySpec != keys[i] || !r.Key.Attested {
					t.Fatalf("%+v, %v", r, err)
				}
				if got := x.Subject.String(); got != `CN=Alice\, A.,O=Example,C=DE` {
					t.Errorf("the request of %v is for %s", r.Slot, got)
				}
			}
			tok := b.token(pivID)
			if tok.Status != vault.Active || tok.Owner != "alice" || tok.Tenant != "north" || tok.Generation != 1 || tok.Serial != serial || tok.Firmware != firmware || !tok.Emulated {
				t.Errorf("%+v", tok)
			}
			if all := b.certificates(pivID); len(all) != len(keys) || !bytes.Equal(all[0].Request, requests[0].DER) || !all[0].Attested || all[0].PINPolicy != device.PINOnce || all[0].Owner != "alice" {
				t.Errorf("%+v", all)
			}
			b.wantOurs(pivID)
			if s := b.onIt(); len(s.Keys) != len(keys) || s.DefaultsKnown && (s.DefaultManagementKey || s.DefaultPIN || s.DefaultPUK) {
				t.Errorf("%+v", s)
			}
			b.wantHandover(pivID, vault.Handover{Kind: vault.Issued, To: "alice", Generation: 1, Reason: "new here", Emulated: true})
			b.wantOutbox("")
			b.view(func(tx *vault.Tx) error {
				if n := tx.Counts().Notices; n != 0 {
					t.Errorf("%d notices, all of which speak of codes", n)
				}
				return nil
			})
			if !b.told("SHA-256 of its public key") || !strings.Contains(fmt.Sprint(b.history(pivID)), "SHA-256 of its public key") {
				t.Error("nothing tells which keys were proven")
			}
			wantRefused(t, func() error { _, err := b.provision(provision.PIVProvision{User: "bob"}); return err }(), "belongs to alice", "tokendesk wipe")
		})
	}
}

func TestProvisionIsRefused(t *testing.T) {
	b := newCardBench(t, firmware5)
	key := device.PIVKeySpec{Slot: device.PIVAuthentication, Algorithm: device.ECCP256, PIN: device.PINOnce, Touch: device.TouchNever}
	with := func(change func(k *device.PIVKeySpec)) []device.PIVKeySpec {
		k := key
		change(&k)
		return []device.PIVKeySpec{k}
	}
	for word, o := range map[string]provision.PIVProvision{
		"is no PIV application":      {Token: slot2},
		"is not a PIV slot":          {Keys: with(func(k *device.PIVKeySpec) { k.Slot = 0x9B })},
		"asks for no certificate":    {Keys: with(func(k *device.PIVKeySpec) { k.Algorithm = device.X25519 })},
		"there is no algorithm":      {Keys: with(func(k *device.PIVKeySpec) { k.Algorithm = "rsa512" })},
		"there is no PIN policy":     {Keys: with(func(k *device.PIVKeySpec) { k.PIN = "" })},
		"there is no touch policy":   {Keys: with(func(k *device.PIVKeySpec) { k.Touch = "often" })},
		"is named twice":             {Keys: []device.PIVKeySpec{key, key}},
		"does not begin with CN":     {Subject: "Alice"},
		"control characters":         {Reason: "a\nb"},
		"have the desk use smart ca": {},
	} {
		if word == "have the desk use smart ca" {
			b.OpenPIV = nil
		}
		if _, err := b.provision(o); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%v, want %q", err, word)
		}
		b.OpenPIV = b.openPIV
	}
	// Of a card that is too old for an algorithm nothing is changed.
	_, err := b.provision(provision.PIVProvision{User: "alice", Keys: with(func(k *device.PIVKeySpec) { k.Algorithm = device.Ed25519 })})
	var old *device.FirmwareError
	if !errors.As(err, &old) || b.exists(pivID) {
		t.Fatal(err)
	}
	b.wantFresh()
	b.card = newCard(serial, device.Version{Major: 4, Minor: 2, Build: 7})
	if _, err := b.provision(provision.PIVProvision{User: "alice"}); !errors.As(err, &old) || b.exists(pivID) {
		t.Errorf("%v", err)
	}
	b.card = newCard(serial+1, firmware5)
	if _, err := b.provision(provision.PIVProvision{User: "alice"}); err == nil || !strings.Contains(err.Error(), "says it is 10000002") {
		t.Errorf("%v", err)
	}
}

// What somebody else has put on a card goes only if an officer has said so, and the certificate on it is remembered.
func TestProvisionOverUsedCard(t *testing.T) {
	for _, firmware := range []device.Version{firmware4, firmware5} {
		t.Run(firmware.String(), func(t *testing.T) {
			b := newCardBench(t, firmware)
			ca := newIssuer(t)
			foreign := secret.New(bytes.Repeat([]byte{7}, device.ManagementKeySize))
			b.onCard(func(p device.PIV) error {
				ctx := t.Context()
				public, err := p.Generate(ctx, secret.Secret{}, device.PIVKeySpec{Slot: device.PIVAuthentication, Algorithm: device.ECCP256, PIN: device.PINOnce, Touch: device.TouchNever})
				if err != nil {
					return err
				}
				c := ca.sign(&x509.Certificate{Subject: ca.cert.Subject}, public)
				return errors.Join(p.SetCertificate(ctx, secret.Secret{}, device.PIVAuthentication, c), p.SetManagementKey(ctx, secret.Secret{}, foreign))
			})
			_, err := b.provision(provision.PIVProvision{User: "alice"})
			wantRefused(t, err, "is in use", "Test CA", "--overwrite")
			if b.exists(pivID) || b.revocations() != "" {
				t.Error("a refusal has left something")
			}
			if _, err := b.provision(provision.PIVProvision{User: "alice", Overwrite: true}); err != nil {
				t.Fatal(err)
			}
			b.wantOurs(pivID)
			b.wantDue("9a CN=Test CA")
			if !b.told("to be revoked at its issuer: the certificate of CN=Test CA") {
				t.Error("nobody is told of the certificate")
			}
		})
	}
}

// A card that is not proven to be genuine stops the work, and giving that up resets it.
func TestForeignAttestation(t *testing.T) {
	b := newCardBench(t, firmware5)
	if err := b.card.SetFault(smartcard.FaultForeignRoot, 0); err != nil {
		t.Fatal(err)
	}
	_, err := b.provision(provision.PIVProvision{User: "alice"})
	b.wantUnfinished(err, pivID, "attest", device.ErrAttestation)
	if !strings.Contains(err.Error(), "do not hand this key out") || b.token(pivID).Status != vault.Pending {
		t.Errorf("%v, %+v", err, b.token(pivID))
	}
	if err := b.Undo(t.Context(), officer, pivID, b.tell); err != nil {
		t.Fatal(err)
	}
	b.wantNoPIV(pivID)
	b.wantFresh()
}

func TestPINIsTakenOnce(t *testing.T) {
	b := newCardBench(t, firmware5)
	b.provisioned()
	ctx := t.Context()
	pin, err := b.TakePIN(ctx, officer, pivID)
	if err != nil {
		t.Fatal(err)
	}
	defer pin.Wipe()
	if strings.Trim(string(pin.Reveal()), "0123456789") != "" || pin.Len() != 6 {
		t.Error("the PIN is not six digits")
	}
	b.onCard(func(p device.PIV) error { return p.VerifyPIN(ctx, pin) })
	_, err = b.TakePIN(ctx, officer, pivID)
	wantRefused(t, err, "taken already", "tokendesk piv unblock "+string(pivID.Device()))
	wantRefused(t, b.SetPIN(ctx, officer, pivID, secret.New([]byte("271828"))), "taken already")
	_, err = b.RequestPIV(ctx, officer, pivID, device.PIVAuthentication, "", secret.Secret{}, b.tell)
	wantRefused(t, err, "its holder's")
	if r, err := b.RequestPIV(ctx, officer, pivID, device.PIVAuthentication, "CN=other", pin.Clone(), b.tell); err != nil || !bytes.Equal(r.DER, b.certificates(pivID)[0].Request) {
		t.Errorf("%v", err)
	}
	if last := b.history(pivID)[0]; last.Action != "piv csr" {
		t.Errorf("%+v", last)
	}
	wrong := secret.New([]byte("000000"))
	for tries := 2; tries >= 0; tries-- {
		_, err = b.RequestPIV(ctx, officer, pivID, device.PIVAuthentication, "", wrong.Clone(), b.tell)
		var refused *device.PINError
		if !errors.As(err, &refused) || refused.Retries != tries {
			t.Fatalf("%v", err)
		}
	}
	if !strings.Contains(err.Error(), "tokendesk piv unblock") {
		t.Errorf("%v", err)
	}
	if err := b.UnblockPIV(ctx, officer, pivID, b.tell); err != nil {
		t.Fatal(err)
	}
	b.wantOurs(pivID)

	// Now its holder chooses.
	for word, bad := range map[string]string{"6 to 8": "12345", "tried first": "123456", "tried  first": "88888888", "other characters": "pass\x00wd"} {
		wantRefused(t, b.SetPIN(ctx, officer, pivID, secret.New([]byte(bad))), strings.ReplaceAll(word, "  ", " "))
	}
	chosen := secret.New([]byte("31415926"))
	if err := b.SetPIN(ctx, officer, pivID, chosen.Clone()); err != nil {
		t.Fatal(err)
	}
	b.onCard(func(p device.PIV) error { return p.VerifyPIN(ctx, chosen) })
	_, err = b.TakePIN(ctx, officer, pivID)
	wantRefused(t, err, "taken already")
}

// A PUK that the desk does not have is the end of managing the card: only wiping it helps.
func TestUnblockWithoutPUK(t *testing.T) {
	b := newCardBench(t, firmware5)
	b.imported()
	ctx := t.Context()
	puk, err := b.pivSecret(pivID, 1, vault.PUK)
	if err != nil {
		t.Fatal(err)
	}
	other := secret.New([]byte("55555555"))
	b.onCard(func(p device.PIV) error { return p.ChangePUK(ctx, puk, other) })
	err = b.UnblockPIV(ctx, officer, pivID, b.tell)
	b.wantUnfinished(err, pivID, "unblock", nil)
	if !strings.Contains(err.Error(), "cannot manage this card any more") {
		t.Errorf("%v", err)
	}
	if err := b.Undo(ctx, officer, pivID, b.tell); err != nil {
		t.Fatal(err)
	}
	_, err = b.TakePIN(ctx, officer, pivID)
	wantRefused(t, err, "taken already")
	if _, err := b.Wipe(ctx, officer, pivID, "", b.tell); err != nil {
		t.Fatal(err)
	}
	b.wantNoPIV(pivID)
	b.wantFresh()
	b.wantDue("9a CN=alice")
}

func TestImportCertificate(t *testing.T) {
	b := newCardBench(t, firmware5)
	r := b.provisioned()
	ca := newIssuer(t)
	ctx := t.Context()
	other, err := func() (provision.PIVRequest, error) {
		o := newCardBench(t, firmware5)
		return o.provisioned(), nil
	}()
	if err != nil {
		t.Fatal(err)
	}
	for word, der := range map[string][]byte{
		"no certificate":             []byte("nonsense"),
		"not for the key in slot 9a": ca.issue(other),
		"has expired": ca.issue(r, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}),
		"is not valid before": ca.issue(r, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		}),
		"is that of an issuer":        ca.issue(r, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }),
		"has made no key in slot 9c ": nil,
	} {
		slot := device.PIVAuthentication
		if der == nil {
			slot, der = device.PIVSignature, ca.issue(r)
		}
		_, err := b.ImportCertificate(ctx, officer, pivID, slot, der)
		wantRefused(t, err, word)
	}
	der := ca.issue(r)
	for range 2 { // it may be repeated
		c, err := b.ImportCertificate(ctx, officer, pivID, r.Slot, der)
		if err != nil || c.Subject != "CN=alice" || c.Issuer != "CN=Test CA" || c.Imported.IsZero() || c.NotAfter.IsZero() || !bytes.Equal(c.DER, der) {
			t.Fatalf("%+v, %v", c, err)
		}
	}
	if s := b.onIt(); len(s.Keys) != 1 || s.Keys[0].Certificate == nil || !bytes.Equal(s.Keys[0].Certificate.Raw, der) {
		t.Errorf("%+v", s)
	}
	// Another one for the same key takes its place on the card, and the one before has to be revoked.
	renewed := ca.issue(r)
	if _, err := b.ImportCertificate(ctx, officer, pivID, r.Slot, renewed); err != nil {
		t.Fatal(err)
	}
	if all := b.certificates(pivID); len(all) != 2 || all[0].ID == all[1].ID {
		t.Errorf("%+v", all)
	}
	b.wantDue("9a CN=alice")
	if c := b.certificates(pivID)[0]; !c.Due() || c.DueWhy != "superseded" || !bytes.Equal(c.DER, der) {
		t.Errorf("%+v", c)
	}
	if _, _, err := b.Do(ctx, officer, provision.Order{Action: provision.ActUnassign, Tokens: []device.TokenID{pivID}}); err != nil {
		t.Fatal(err)
	}
	b.wantDue("9a CN=alice, 9a CN=alice")
	b.wantOutbox("")
	_, err = b.ImportCertificate(ctx, officer, pivID, r.Slot, der)
	wantRefused(t, err, "to be revoked")
	for _, c := range b.certificates(pivID) {
		done, err := b.MarkRevoked(officer, strings.ToUpper(c.SHA256()), everywhere)
		if err != nil || done.RevokedBy != officer.Name || done.Due() {
			t.Fatalf("%+v, %v", done, err)
		}
		_, err = b.MarkRevoked(officer, c.SHA256(), everywhere)
		wantRefused(t, err, "waits for being revoked")
	}
	b.wantDue("")

	// The management key was changed behind the desk's back.
	key, err := b.pivSecret(pivID, 1, vault.ManagementKey)
	if err != nil {
		t.Fatal(err)
	}
	b.onCard(func(p device.PIV) error {
		return p.SetManagementKey(ctx, key, secret.New(bytes.Repeat([]byte{9}, device.ManagementKeySize)))
	})
	if _, err = b.ImportCertificate(ctx, officer, pivID, r.Slot, ca.issue(r)); !errors.Is(err, device.ErrManagementKey) || !strings.Contains(err.Error(), "tokendesk wipe") {
		t.Errorf("%v", err)
	}
}

func TestOrdersOnPIV(t *testing.T) {
	for action, want := range map[provision.Action]struct {
		due    string
		exists bool
	}{
		provision.ActCompromise: {"9a CN=alice", true},
		provision.ActDelete:     {"9a CN=alice", false},
		provision.ActUnassign:   {"9a CN=alice", true},
	} {
		t.Run(string(action), func(t *testing.T) {
			b := newCardBench(t, firmware5)
			b.imported()
			o := provision.Order{Action: action, Tokens: []device.TokenID{pivID}, Reason: "gone"}
			if action == provision.ActCompromise {
				o.Loss = vault.Stolen
			}
			if _, changes, err := b.Do(t.Context(), officer, o); err != nil || len(changes) > 0 {
				t.Fatal(changes, err)
			}
			b.wantDue(want.due)
			if b.exists(pivID) != want.exists {
				t.Errorf("in the inventory: %v", !want.exists)
			}
			// Its card has what the vault has kept.
			key, err := b.pivSecret(pivID, 1, vault.ManagementKey)
			if err != nil {
				t.Fatal(err)
			}
			b.onCard(func(p device.PIV) error { return p.CheckManagementKey(t.Context(), key) })
			if want.exists {
				if _, err := b.Wipe(t.Context(), officer, pivID, "", b.tell); err != nil {
					t.Fatal(err)
				}
				if compromised := action == provision.ActCompromise; b.exists(pivID) != compromised || compromised && b.token(pivID).Wiped.IsZero() {
					t.Error("wiped, but not as it should be")
				}
				b.wantFresh()
			}
			b.wantDue(want.due)
		})
	}
	b := newCardBench(t, firmware5)
	b.provisioned()
	for _, action := range []provision.Action{provision.ActTest, provision.ActResync, provision.ActReseed, provision.ActReissue, provision.ActDisable, provision.ActEnable, provision.ActExpire} {
		wantRefused(t, provision.Check(b.token(pivID), action), "yubikey-piv", "edit", "wipe")
	}
	later := time.Now().Add(time.Hour)
	_, _, err := b.Do(t.Context(), officer, provision.Order{Action: provision.ActEdit, Tokens: []device.TokenID{pivID}, Expires: &later})
	wantRefused(t, err, "does not expire")
	if kind := provision.TypeOf(slot2).Code; kind != provision.TypeYubiKey || provision.TypeOf(pivID).Code != provision.TypePIV {
		t.Errorf("%s, %s", kind, provision.TypeOf(pivID).Code)
	}
	// One of the stock that somebody had comes with a warning.
	if _, _, err := b.Do(t.Context(), officer, provision.Order{Action: provision.ActUnassign, Tokens: []device.TokenID{pivID}}); err != nil {
		t.Fatal(err)
	}
	in, err := b.Prepare(t.Context(), provision.Order{Action: provision.ActAssign, Tokens: []device.TokenID{pivID}, User: "bob"})
	if err != nil || !strings.Contains(in.Effects[0].Warning, "alice had it with the same keys") || len(in.Effects[0].Pushes) > 0 {
		t.Errorf("%+v, %v", in, err)
	}
}
