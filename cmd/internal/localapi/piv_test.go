package localapi_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
	"tokendesk/device"
	"tokendesk/vault/secret"
)

var cardPath = "/v1/piv/" + string(device.YubiKeyID(keySerial))

// withCard is a desk whose key has its smart card in a reader.
func withCard(t *testing.T) *desk {
	d := start(t, world.Options{Cards: 1})
	err := d.Client.Watch(d.Context(), func(e api.KeyEvent) error {
		if e.Key.Card != nil && e.Key.Card.PIV != nil && e.Key.Bus != "pcsc" {
			return errSeen
		}
		return nil
	})
	if !errors.Is(err, errSeen) {
		t.Fatal(err)
	}
	return d
}

var errSeen = errors.New("seen")

// answer is a certificate for a request, by an issuer made on the spot.
func (d *desk) answer(request string, key crypto.PublicKey) string {
	d.Helper()
	block, _ := pem.Decode([]byte(request))
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	d.must(nil, errors.Join(err, csr.CheckSignature()))
	if key == nil {
		key = csr.PublicKey
	}
	issuer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	d.must(nil, err)
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Throw-away CA"}, IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(0xABCDEF), Subject: csr.Subject, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(90 * 24 * time.Hour),
	}, root, key, issuer)
	d.must(nil, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func (d *desk) card() (p api.PIV) {
	d.Helper()
	d.must(nil, d.Client.Get(d.Context(), cardPath, nil, &p))
	return p
}

func (d *desk) work(path string, in any) (api.Outcome, error) {
	d.Helper()
	return d.Client.Work(d.Context(), path, in, func(api.Progress) {})
}

// refused wants an error of a class, with words in it.
func (d *desk) fails(err error, code api.Code, words ...string) {
	d.Helper()
	e := (*api.Error)(nil)
	if !errors.As(err, &e) || e.Code != code {
		d.Errorf("%v, not refused as %s", err, code)
		return
	}
	for _, w := range words {
		if !strings.Contains(e.Message, w) {
			d.Errorf("%q does not say %q", e.Message, w)
		}
	}
}

// TestACardFromItsProvisioningToItsEnd goes all the way, with a real pcscd.
func TestACardFromItsProvisioningToItsEnd(t *testing.T) {
	d := withCard(t)
	if p := d.card(); !p.Inserted || !p.Fresh || !p.Emulated || p.Token != nil || len(p.Slots) != 0 || len(p.Defaults) != 3 || *p.PINRetries != 3 {
		t.Errorf("at first: %+v", p)
	}
	_, err := d.Client.TakeSecret(d.Context(), cardPath+"/pin")
	d.fails(err, api.NotFound)
	out, err := d.work(cardPath+"/provision", api.ProvisionPIV{User: "alice", Keys: []api.PIVWish{{Slot: "9a"}, {Slot: "9c", Algorithm: "eccp384"}}})
	d.must(nil, err)
	if out.Token == nil || out.Token.Owner != "alice" || out.Token.Type != "yubikey-piv" || len(out.Requests) != 2 || len(out.Revoke) != 0 {
		t.Fatalf("provisioned: %+v", out)
	}
	p := d.card()
	if !p.Inserted || p.Fresh || len(p.Defaults) != 0 || !p.PINWaits || len(p.Slots) != 2 || p.Token == nil {
		t.Fatalf("then: %+v", p)
	}
	if a, c := p.Slots[0], p.Slots[1]; !a.Attested || a.PINPolicy != "once" || a.Algorithm != "eccp256" || !a.Waits || a.Public == "" || c.PINPolicy != "always" || c.Algorithm != "eccp384" || a.Problem+c.Problem != "" {
		t.Errorf("slots: %+v", p.Slots)
	}
	if due := d.onlyKey().Card.PIV; due.Owner != "alice" || !strings.Contains(due.Due, "tokendesk piv pin") {
		t.Errorf("the key shows %+v", due)
	}

	pin, err := d.Client.TakeSecret(d.Context(), cardPath+"/pin")
	d.must(nil, err)
	defer pin.Wipe()
	if n := pin.Len(); n < device.MinPINSize || n > device.MaxPINSize || bytes.Trim(pin.Reveal(), "0123456789") != nil && len(bytes.Trim(pin.Reveal(), "0123456789")) > 0 {
		t.Errorf("a PIN of %d characters", n)
	}
	_, err = d.Client.TakeSecret(d.Context(), cardPath+"/pin") // once
	d.fails(err, api.Refused)

	wrong := secret.New([]byte("00000000"))
	defer wrong.Wipe()
	var again api.PIVRequest
	d.fails(d.Client.PostSecret(d.Context(), cardPath+"/csr", api.CSR{Slot: "9a"}, &again, wrong), api.NotVerified, "the PIN is wrong", "tries left: 2")
	d.must(nil, d.Client.PostSecret(d.Context(), cardPath+"/csr", api.CSR{Slot: "9a", Subject: "CN=alice,O=Example"}, &again, pin.Clone()))

	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	d.must(nil, err)
	var shown api.Certificate
	d.fails(d.Client.Post(d.Context(), cardPath+"/certificate", api.ImportCertificate{Slot: "9a", PEM: d.answer(again.PEM, stranger.Public())}, &shown), api.Refused, "key")
	d.fails(d.Client.Post(d.Context(), cardPath+"/certificate", api.ImportCertificate{Slot: "9a", PEM: again.PEM}, &shown), api.Invalid, "one certificate in PEM")
	d.must(nil, d.Client.Post(d.Context(), cardPath+"/certificate", api.ImportCertificate{Slot: "9a", PEM: d.answer(again.PEM, nil)}, &shown))
	if shown.Serial != "abcdef" || !strings.Contains(shown.Issuer, "Throw-away CA") || shown.Subject != "CN=alice,O=Example" || shown.Owner != "alice" {
		t.Errorf("imported: %+v", shown)
	}
	if p := d.card(); p.Slots[0].Certificate == nil || p.Slots[0].Certificate.SHA256 != shown.SHA256 || p.Slots[0].Problem != "" || p.PINWaits {
		t.Errorf("with it: %+v", p)
	}

	d.must(nil, second(d.work(cardPath+"/unblock", nil)))
	chosen := secret.New([]byte("7391846"))
	defer chosen.Wipe()
	var after api.Token
	d.must(nil, d.Client.PostSecret(d.Context(), cardPath+"/pin/set", nil, &after, chosen))
	if p := d.card(); p.PINWaits {
		t.Error("the random PIN is still there")
	}
	short := secret.New([]byte("12345"))
	defer short.Wipe()
	d.fails(d.Client.PostSecret(d.Context(), cardPath+"/pin/set", nil, &after, short), api.Invalid, "6 to 8")

	out, err = d.work("/v1/tokens/"+string(device.YubiKeyID(keySerial))+"/piv/wipe", nil)
	d.must(nil, err)
	if len(out.Revoke) != 1 || out.Revoke[0].SHA256 != shown.SHA256 {
		t.Errorf("wiped: %+v", out)
	}
	if p := d.card(); !p.Fresh || p.Token != nil || len(p.Slots) != 0 {
		t.Errorf("at last: %+v", p)
	}
	var due api.Certificates
	d.must(nil, d.Client.Get(d.Context(), "/v1/piv/revocations", nil, &due))
	if len(due.Certificates) != 1 || due.Certificates[0].SHA256 != shown.SHA256 || due.Certificates[0].RevokeDue == nil {
		t.Errorf("due: %+v", due)
	}
	d.must(nil, d.Client.Post(d.Context(), "/v1/piv/revocations/"+shown.SHA256+"/done", nil, &shown))
	d.must(nil, d.Client.Get(d.Context(), "/v1/piv/revocations", nil, &due))
	if len(due.Certificates) != 0 || shown.Revoked == nil || shown.RevokedBy == "" {
		t.Errorf("done: %+v, %+v", due, shown)
	}
	d.fails(d.Client.Post(d.Context(), "/v1/piv/revocations/"+strings.Repeat("0", 64)+"/done", nil, &shown), api.NotFound, "tokendesk piv revocations")
	d.aliveAndDiscreet("7391846")
}

func second[T any](_ T, err error) error { return err }

// onlyKey is the inserted key.
func (d *desk) onlyKey() api.Key {
	d.Helper()
	var list api.Keys
	d.must(nil, d.Client.Get(d.Context(), "/v1/devices", nil, &list))
	if len(list.Keys) != 1 {
		d.Fatalf("one key with a card is shown as %+v", list)
	}
	return list.Keys[0]
}

// What stands between the desk and a card is named, with what to do.
func TestACardThatCannotBeReached(t *testing.T) {
	d := withCard(t)
	d.must(nil, second(d.work(cardPath+"/provision", api.ProvisionPIV{User: "alice"})))
	d.must(nil, d.Readers.Stop())
	d.must(nil, d.until(func() bool { return d.onlyKey().Card == nil }))
	if p := d.card(); p.Inserted || p.Token == nil || len(p.Slots) != 1 || !strings.Contains(p.Problem, "pcscd") {
		t.Errorf("without pcscd: %+v", p)
	}
	_, err := d.work(cardPath+"/unblock", nil)
	d.fails(err, api.Device, "start pcscd")
	var found api.Findings
	d.must(nil, d.Client.Get(d.Context(), "/v1/doctor", nil, &found))
	said := false
	for _, f := range found.Findings {
		said = said || !f.OK && f.Area == "devices" && strings.Contains(f.Text, "pcscd")
	}
	if !said {
		t.Errorf("doctor does not name it: %+v", found)
	}
	d.must(nil, d.Readers.Restart())
	d.must(nil, d.until(func() bool { return d.onlyKey().Card != nil }))
	if p := d.card(); !p.Inserted {
		t.Errorf("with pcscd again: %+v", p)
	}
}

// until waits until something is so that only an inserted key's events tell.
func (d *desk) until(so func() bool) error {
	ctx, cancel := context.WithTimeout(d.Context(), patience)
	defer cancel()
	err := d.Client.Watch(ctx, func(api.KeyEvent) error {
		if so() {
			return errSeen
		}
		return nil
	})
	if errors.Is(err, errSeen) {
		return nil
	}
	return errors.Join(err, ctx.Err())
}

func TestADeskWithoutCards(t *testing.T) {
	d := start(t, world.Options{NoCentral: true})
	var p api.PIV
	d.fails(d.Client.Get(d.Context(), cardPath, nil, &p), api.Device, "devices.pcsc = true")
	if k := d.onlyKey(); k.Card != nil {
		t.Errorf("%+v", k)
	}
	a := d.ask(http.MethodPost, cardPath+"/pin", nil, nil)
	if e := a.failure(t); e.Code != api.NotFound {
		t.Errorf("%+v", e)
	}
}
