package pivcard_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/go-piv/piv-go/v2/piv"

	"tokendesk/device"
	"tokendesk/device/emulator/smartcard"
	"tokendesk/device/management"
	"tokendesk/device/pcsc"
	"tokendesk/device/pivcard"
	"tokendesk/vault/secret"
)

var factory secret.Secret // the zero one stands for those

func pin(s string) secret.Secret { return secret.New([]byte(s)) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func expectPIN(t *testing.T, err error, name string, retries int) {
	t.Helper()
	if e, ok := errors.AsType[*device.PINError](err); !ok || e.Name != name || e.Retries != retries {
		t.Errorf("%v, not a wrong %s with %d tries left", err, name, retries)
	}
}

func describe(t *testing.T, c *pivcard.Card) device.PIVState {
	t.Helper()
	s, err := c.Describe(t.Context())
	must(t, err)
	return s
}

// issue makes a certificate of about size bytes for a key, by a CA of its own.
func issue(t *testing.T, key crypto.PublicKey, size int) *x509.Certificate {
	t.Helper()
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "alice"}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
		ExtraExtensions: []pkix.Extension{{Id: []int{1, 2, 3}, Value: make([]byte, size)}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key, ca)
	must(t, err)
	c, err := x509.ParseCertificate(der)
	must(t, err)
	return c
}

// The whole life of a card, of every firmware, with a second opinion by piv-go.
func TestLife(t *testing.T) {
	for _, firmware := range firmwares {
		t.Run(firmware.String(), func(t *testing.T) {
			k := newToken(t, firmware)
			c, ctx := k.open(), t.Context()
			tells := !firmware.Less(device.Version{Major: 5, Minor: 3})
			fresh := device.PIVState{Serial: serial, Firmware: firmware, PINRetries: 3, PUKRetries: -1}
			if tells {
				fresh.PUKRetries = 3
				fresh.DefaultsKnown, fresh.DefaultPIN, fresh.DefaultPUK, fresh.DefaultManagementKey = true, true, true, true
			}
			if s := describe(t, c); fmt.Sprint(s) != fmt.Sprint(fresh) || !s.Fresh() {
				t.Errorf("%+v", s)
			}
			key, myPIN, myPUK := secret.Random(device.ManagementKeySize), pin("471108"), pin("87654321")
			must(t, c.CheckManagementKey(ctx, factory))
			must(t, c.SetManagementKey(ctx, factory, key))
			must(t, c.CheckManagementKey(ctx, key))
			must(t, c.ChangePIN(ctx, factory, myPIN))
			must(t, c.ChangePUK(ctx, factory, myPUK))
			spec := device.PIVKeySpec{Slot: device.PIVAuthentication, Algorithm: device.ECCP256, PIN: device.PINOnce, Touch: device.TouchNever}
			public, err := c.Generate(ctx, key, spec)
			must(t, err)
			attested, err := c.Attest(ctx, spec.Slot)
			must(t, err)
			if attested.PIVKeySpec != spec || !attested.Attested || !attested.Generated || !public.(*ecdsa.PublicKey).Equal(attested.Public) {
				t.Errorf("%+v", attested)
			}
			der, err := c.Request(ctx, myPIN, spec.Slot, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "alice"}})
			must(t, err)
			request, err := x509.ParseCertificateRequest(der)
			must(t, err)
			if request.Subject.String() != "CN=alice" || !public.(*ecdsa.PublicKey).Equal(request.PublicKey) {
				t.Errorf("%v", request.Subject)
			}
			certificate := issue(t, public, 2200)
			must(t, c.SetCertificate(ctx, key, spec.Slot, certificate))
			s := describe(t, c)
			if len(s.Keys) != 1 || s.Fresh() || s.DefaultPIN || s.DefaultPUK || s.DefaultManagementKey || s.PINRetries != 3 {
				t.Fatalf("%+v", s)
			}
			if got := s.Keys[0]; got.PIVKeySpec != spec || !got.Attested || !public.(*ecdsa.PublicKey).Equal(got.Public) || !certificate.Equal(got.Certificate) {
				t.Errorf("%+v", got)
			}
			must(t, c.Close())
			k.secondOpinion("471108", certificate)

			c = k.open()
			must(t, c.Reset(ctx))
			must(t, c.Reset(ctx))
			if s := describe(t, c); fmt.Sprint(s) != fmt.Sprint(fresh) {
				t.Errorf("after a reset: %+v", s)
			}
			must(t, c.VerifyPIN(ctx, factory))
			must(t, c.CheckManagementKey(ctx, factory))
		})
	}
}

// secondOpinion has piv-go read the certificate in slot 9a, and sign by its key.
func (k *token) secondOpinion(pin string, want *x509.Certificate) {
	k.t.Helper()
	yk, err := piv.Open(rig.Readers[0])
	must(k.t, err)
	defer yk.Close()
	got, err := yk.Certificate(piv.SlotAuthentication)
	must(k.t, err)
	if !want.Equal(got) {
		k.t.Error("piv-go reads another certificate")
	}
	key, err := yk.PrivateKey(piv.SlotAuthentication, got.PublicKey, piv.KeyAuth{PIN: pin})
	must(k.t, err)
	digest := sha256.Sum256([]byte("text"))
	signature, err := key.(crypto.Signer).Sign(rand.Reader, digest[:], crypto.SHA256)
	must(k.t, err)
	if !ecdsa.VerifyASN1(got.PublicKey.(*ecdsa.PublicKey), digest[:], signature) {
		k.t.Error("the signature does not fit the certificate")
	}
}

func TestAlgorithms(t *testing.T) {
	all := []device.PIVAlgorithm{device.RSA2048, device.ECCP256, device.ECCP384, device.RSA3072, device.Ed25519, device.X25519}
	for _, firmware := range firmwares {
		c, ctx := direct(t, firmware), t.Context()
		for i, algorithm := range all {
			spec := device.PIVKeySpec{Slot: device.PIVSlot(0x82 + i), Algorithm: algorithm, PIN: device.PINAlways, Touch: device.TouchCached}
			if algorithm == device.RSA3072 && firmware == firmwares[3] || algorithm == device.RSA2048 && firmware != firmwares[3] {
				continue // finding primes takes long
			}
			public, err := c.Generate(ctx, factory, spec)
			if i >= 3 && firmware.Less(device.Version{Major: 5, Minor: 7}) {
				want := device.FirmwareError{Feature: "a key of " + string(algorithm), Need: device.Version{Major: 5, Minor: 7}, Have: firmware}
				if e, ok := errors.AsType[*device.FirmwareError](err); !ok || *e != want {
					t.Errorf("%s: %v", algorithm, err)
				}
				continue
			}
			must(t, err)
			keys := describe(t, c).Keys
			key := keys[len(keys)-1]
			if k, ok := public.(interface{ Equal(crypto.PublicKey) bool }); key.PIVKeySpec != spec || !ok || !k.Equal(key.Public) || !key.Attested {
				t.Errorf("%s: %+v", algorithm, key)
			}
			_, err = c.Request(ctx, factory, spec.Slot, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "alice"}})
			if cannot := err != nil && strings.Contains(err.Error(), "cannot sign"); cannot != (algorithm == device.X25519) || err != nil && !cannot {
				t.Errorf("%s: %v", algorithm, err)
			}
		}
	}
}

func TestBadSpecs(t *testing.T) {
	c := direct(t, firmwares[2])
	good := device.PIVKeySpec{Slot: 0x9A, Algorithm: device.ECCP256}
	for want, change := range map[string]func(*device.PIVKeySpec){
		"9b is not a PIV slot":                func(s *device.PIVKeySpec) { s.Slot = 0x9B },
		`"rsa1024" is not an algorithm`:       func(s *device.PIVKeySpec) { s.Algorithm = "rsa1024" },
		`"" is not an algorithm`:              func(s *device.PIVKeySpec) { s.Algorithm = "" },
		`"sometimes" is not a PIN policy`:     func(s *device.PIVKeySpec) { s.PIN = "sometimes" },
		`"sometimes" is not a touch policy`:   func(s *device.PIVKeySpec) { s.Touch = "sometimes" },
		"slot 9a has no key, or the firmware": nil,
	} {
		spec, err := good, error(nil)
		if change == nil {
			_, err = c.Attest(t.Context(), 0x9A)
		} else {
			change(&spec)
			_, err = c.Generate(t.Context(), factory, spec)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, not %q", err, want)
		}
	}
	_, err := c.Request(t.Context(), factory, 0x9A, &x509.CertificateRequest{})
	if err == nil || !strings.Contains(err.Error(), "slot 9a has no key") {
		t.Error(err)
	}
	if _, err := c.Generate(t.Context(), factory, good); err != nil {
		t.Errorf("policies of the card: %v", err)
	}
	if len(describe(t, c).Keys) != 1 {
		t.Error("what was refused has left something")
	}
}

func TestFactorableKeysAreRefused(t *testing.T) {
	c := direct(t, device.Version{Major: 4, Minor: 3, Build: 4})
	_, err := c.Generate(t.Context(), factory, device.PIVKeySpec{Slot: 0x9A, Algorithm: device.RSA2048})
	if e, ok := errors.AsType[*device.FirmwareError](err); !ok || e.Need != (device.Version{Major: 4, Minor: 3, Build: 5}) {
		t.Error(err)
	}
}

func TestTooLargeCertificate(t *testing.T) {
	c, ctx := direct(t, firmwares[2]), t.Context()
	public, err := c.Generate(ctx, factory, device.PIVKeySpec{Slot: 0x9A, Algorithm: device.ECCP256})
	must(t, err)
	err = c.SetCertificate(ctx, factory, 0x9A, issue(t, public, 4000))
	if _, cure := device.Cure(err); !strings.Contains(cure, "about 3000 bytes") {
		t.Error(err)
	}
	large := issue(t, public, 2500)
	must(t, c.SetCertificate(ctx, factory, 0x9A, large))
	if s := describe(t, c); !large.Equal(s.Keys[0].Certificate) {
		t.Errorf("%d bytes were stored as another certificate", len(large.Raw))
	}
}

func TestCertificateWithoutKey(t *testing.T) {
	c, ctx := direct(t, firmwares[0]), t.Context()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	must(t, c.SetCertificate(ctx, factory, 0x9D, issue(t, key.Public(), 0)))
	s := describe(t, c)
	if len(s.Keys) != 1 || s.Keys[0].Public != nil || s.Keys[0].Certificate == nil || s.Fresh() {
		t.Errorf("%+v", s.Keys)
	}
	// It is not signed by what only looks like the key.
	if _, err := c.Request(ctx, factory, 0x9D, &x509.CertificateRequest{}); err == nil {
		t.Error("a request by nothing")
	}
}

func TestNoTouch(t *testing.T) {
	k := smartcard.New(smartcard.Options{Serial: serial, Firmware: firmwares[2], Touch: func(context.Context) bool { return false }})
	c, err := pivcard.New(t.Context(), inProcess{k}, true)
	must(t, err)
	_, err = c.Generate(t.Context(), factory, device.PIVKeySpec{Slot: 0x9A, Algorithm: device.ECCP256, PIN: device.PINOnce, Touch: device.TouchAlways})
	must(t, err)
	_, err = c.Request(t.Context(), factory, 0x9A, &x509.CertificateRequest{})
	if !errors.Is(err, device.ErrNoTouch) {
		t.Error(err)
	}
	_, err = c.Request(t.Context(), pin("000000"), 0x9A, &x509.CertificateRequest{})
	expectPIN(t, err, "PIN", 2)
}

// Whoever has the card next cannot use what the desk has proven.
func TestCloseForgets(t *testing.T) {
	k := newToken(t, firmwares[2])
	c, ctx := k.open(), t.Context()
	must(t, c.VerifyPIN(ctx, factory))
	must(t, c.CheckManagementKey(ctx, factory))
	must(t, c.Close())
	must(t, c.Close())
	raw, err := pcsc.Bus{}.Open(ctx, rig.Readers[0])
	must(t, err)
	defer raw.Close()
	send := func(apdu string) uint16 {
		t.Helper()
		_, status, err := raw.Transmit([]byte(apdu))
		must(t, err)
		return status
	}
	if s := send("\x00\x20\x00\x80"); s == 0x9000 {
		t.Error("the PIN is still verified, without any selection")
	}
	send("\x00\xa4\x04\x00\x05\xa0\x00\x00\x03\x08")
	if s := send("\x00\x20\x00\x80"); s != 0x63C3 {
		t.Errorf("the PIN: %04x", s)
	}
	if s := send("\x00\x47\x00\x9a\x05\xac\x03\x80\x01\x11"); s != 0x6982 {
		t.Errorf("the management key: %04x", s)
	}
}

func TestExpectedCard(t *testing.T) {
	c := direct(t, firmwares[2])
	must(t, c.Expect(serial))
	if err := c.Expect(serial + 1); err == nil || !strings.Contains(err.Error(), "serial 12345678, not 12345679") {
		t.Error(err)
	}
	if i := c.Info(); i != (management.Info{Serial: serial, Firmware: firmwares[2], FormFactor: "USB-A Keychain", PIV: true}) {
		t.Errorf("%+v", i)
	}
}

func TestOpeningFails(t *testing.T) {
	if _, err := pivcard.Open(t.Context(), "no such reader", true); !errors.Is(err, device.ErrGone) {
		t.Error(err)
	}
	k := newToken(t, firmwares[2])
	must(t, k.SetFault(smartcard.FaultPullBefore, 1))
	if _, err := pivcard.Open(t.Context(), rig.Readers[0], true); !errors.Is(err, device.ErrGone) {
		t.Error(err)
	}
	k.unplug()
	k.plug()
	c := k.open() // the failure has left nothing behind
	if _, err := pivcard.Open(t.Context(), rig.Readers[0], true); !errors.Is(err, device.ErrBusy) {
		t.Error(err)
	}
	must(t, c.Close())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := pivcard.Open(ctx, rig.Readers[0], true); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// stranger is a card that knows nothing.
type stranger struct{ known string }

func (s stranger) Transmit(apdu []byte) ([]byte, uint16, error) {
	if s.known != "" && strings.Contains(string(apdu), s.known) {
		return []byte("Virtual mgr - FW version 5.4.3"), 0x9000, nil
	}
	if len(apdu) > 1 && apdu[1] == 0x1D {
		return []byte("\x0c\x01\x02\x02\x02\x02\x04\x00\xbc\x61\x4e\x04\x00"), 0x9000, nil
	}
	return nil, 0x6A82, nil
}

func (stranger) Close() error { return nil }

func TestCardsWithoutPIV(t *testing.T) {
	if _, err := pivcard.New(t.Context(), stranger{}, true); !errors.Is(err, management.ErrNotYubiKey) {
		t.Error(err)
	}
	_, err := pivcard.New(t.Context(), stranger{"\xa0\x00\x00\x05\x27\x47\x11\x17"}, true)
	if _, cure := device.Cure(err); cure != "switch it on: ykman config usb --enable PIV" {
		t.Error(err)
	}
}
