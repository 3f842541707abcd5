package pivcard_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"testing"

	"tokendesk/device"
	"tokendesk/device/emulator/smartcard"
	"tokendesk/device/pivcard"
	"tokendesk/vault/secret"
)

// inProcess is an emulated card without reader, which is much faster to pull.
type inProcess struct{ card *smartcard.Card }

func (p inProcess) Transmit(apdu []byte) (data []byte, status uint16, err error) {
	for {
		answer := p.card.Transmit(apdu)
		if len(answer) < 2 {
			return nil, 0, device.ErrGone
		}
		n := len(answer) - 2
		data = append(data, answer[:n]...)
		if answer[n] != 0x61 {
			return data, uint16(answer[n])<<8 | uint16(answer[n+1]), nil
		}
		apdu = []byte{0, 0xC0, 0, 0, answer[n+1]}
	}
}

func (inProcess) Close() error { return nil }

func direct(t *testing.T, firmware device.Version) *pivcard.Card {
	t.Helper()
	c, err := pivcard.New(t.Context(), inProcess{smartcard.New(smartcard.Options{Serial: serial, Firmware: firmware})}, true)
	must(t, err)
	return c
}

// operations are all that a card can do, on one that was provisioned with key, pin 123456 and puk 12345678.
var operations = map[string]func(ctx context.Context, c *pivcard.Card, key secret.Secret) error{
	"describe": func(ctx context.Context, c *pivcard.Card, key secret.Secret) error {
		_, err := c.Describe(ctx)
		return err
	},
	"reset": func(ctx context.Context, c *pivcard.Card, key secret.Secret) error { return c.Reset(ctx) },
	"set the management key": func(ctx context.Context, c *pivcard.Card, key secret.Secret) error {
		return c.SetManagementKey(ctx, key, key)
	},
	"check the management key": func(ctx context.Context, c *pivcard.Card, key secret.Secret) error {
		return c.CheckManagementKey(ctx, key)
	},
	"verify": func(ctx context.Context, c *pivcard.Card, key secret.Secret) error { return c.VerifyPIN(ctx, factory) },
	"change the PIN": func(ctx context.Context, c *pivcard.Card, key secret.Secret) error {
		return c.ChangePIN(ctx, factory, pin("123456"))
	},
	"change the PUK": func(ctx context.Context, c *pivcard.Card, key secret.Secret) error {
		return c.ChangePUK(ctx, factory, pin("12345678"))
	},
	"unblock": func(ctx context.Context, c *pivcard.Card, key secret.Secret) error {
		return c.Unblock(ctx, factory, pin("123456"))
	},
	"generate": func(ctx context.Context, c *pivcard.Card, key secret.Secret) error {
		_, err := c.Generate(ctx, key, device.PIVKeySpec{Slot: 0x9C, Algorithm: device.ECCP256, PIN: device.PINAlways, Touch: device.TouchNever})
		return err
	},
	"attest": func(ctx context.Context, c *pivcard.Card, key secret.Secret) error {
		_, err := c.Attest(ctx, 0x9A)
		return err
	},
	"request": func(ctx context.Context, c *pivcard.Card, key secret.Secret) error {
		_, err := c.Request(ctx, factory, 0x9A, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "alice"}})
		return err
	},
	"set the certificate": func(ctx context.Context, c *pivcard.Card, key secret.Secret) error {
		return c.SetCertificate(ctx, key, 0x9A, certificate)
	},
}

var certificate *x509.Certificate

// provisioned makes a card with a key and a certificate.
func provisioned(t *testing.T, firmware device.Version) (card *smartcard.Card, key secret.Secret) {
	t.Helper()
	card = smartcard.New(smartcard.Options{Serial: serial, Firmware: firmware})
	c, err := pivcard.New(t.Context(), inProcess{card}, true)
	must(t, err)
	key = secret.Random(device.ManagementKeySize)
	must(t, c.SetManagementKey(t.Context(), factory, key))
	public, err := c.Generate(t.Context(), key, device.PIVKeySpec{Slot: 0x9A, Algorithm: device.ECCP256, PIN: device.PINOnce, Touch: device.TouchNever})
	must(t, err)
	if certificate = issue(t, public, 2200); len(certificate.Raw) < 2048 {
		t.Fatal("a small certificate")
	}
	must(t, c.SetCertificate(t.Context(), key, 0x9A, certificate))
	return card, key
}

// Pulled at every APDU of every operation, it says so, and the same operation succeeds when the card is back.
func TestPulledAtEveryCommand(t *testing.T) {
	for _, firmware := range []device.Version{firmwares[0], firmwares[3]} {
		for name, operate := range operations {
			step := 1
			if name == "describe" {
				step = 7 // it asks for every slot alike
			}
			card, key := provisioned(t, firmware)
			for _, fault := range []smartcard.Fault{smartcard.FaultPullBefore, smartcard.FaultPullAfter} {
				if fault == smartcard.FaultPullAfter && firmware == firmwares[0] {
					continue // to save time
				}
				for n := 1; ; n += step {
					c, err := pivcard.New(t.Context(), inProcess{card}, true)
					must(t, err)
					must(t, card.SetFault(fault, n))
					if err = operate(t.Context(), c, key); err == nil {
						must(t, card.SetFault(smartcard.FaultClear, 0))
						if n == 1 {
							t.Errorf("%s sends nothing", name)
						}
						break
					}
					if !errors.Is(err, device.ErrGone) {
						t.Errorf("%s at firmware %s, %s %d: %v", name, firmware, fault, n, err)
					}
					card.PowerUp()
					c, err = pivcard.New(t.Context(), inProcess{card}, true)
					must(t, err)
					if err := operate(t.Context(), c, key); err != nil {
						t.Errorf("%s again, at firmware %s after %s %d: %v", name, firmware, fault, n, err)
					}
					if name == "reset" {
						card, key = provisioned(t, firmware)
					}
				}
			}
		}
	}
}

// The same through pcscd, which notices late.
func TestPulledThroughTheDaemon(t *testing.T) {
	k := newToken(t, firmwares[3])
	for _, fault := range []smartcard.Fault{smartcard.FaultPullBefore, smartcard.FaultPullAfter} {
		for n := 1; ; n++ {
			c := k.open()
			must(t, k.SetFault(fault, n))
			_, err := c.Generate(t.Context(), factory, device.PIVKeySpec{Slot: 0x9A, Algorithm: device.ECCP256})
			if closed := c.Close(); closed != nil {
				t.Errorf("%s %d: %v", fault, n, closed)
			}
			must(t, k.SetFault(smartcard.FaultClear, 0))
			if err == nil {
				if n < 4 {
					t.Errorf("it takes %d commands", n-1)
				}
				break
			}
			if !errors.Is(err, device.ErrGone) {
				t.Errorf("%s %d: %v", fault, n, err)
			}
			k.unplug()
			k.plug()
		}
	}
}

// Whatever a card says, it is an error or what it ought to be.
func TestLyingLengths(t *testing.T) {
	for _, firmware := range firmwares {
		for name, operate := range operations {
			card, key := provisioned(t, firmware)
			c, err := pivcard.New(t.Context(), inProcess{card}, true)
			must(t, err)
			must(t, card.SetFault(smartcard.FaultLyingLength, 0))
			err = operate(t.Context(), c, key)
			if err != nil && !errors.Is(err, device.ErrCorrupt) && !errors.Is(err, device.ErrAttestation) {
				t.Errorf("%s at firmware %s: %v", name, firmware, err)
			}
			// What gets no data back has nothing to be lied about.
			if err == nil && (name == "attest" || name == "generate" || name == "request") {
				t.Errorf("%s at firmware %s believes it", name, firmware)
			}
		}
	}
}

func TestUnexpectedStatus(t *testing.T) {
	for name, operate := range operations {
		for _, status := range []int{0x6985, 0x6F00, 0x6D00} {
			card, key := provisioned(t, firmwares[2])
			c, err := pivcard.New(t.Context(), inProcess{card}, true)
			must(t, err)
			must(t, card.SetFault(smartcard.FaultStatus, status))
			if err := operate(t.Context(), c, key); err == nil || errors.Is(err, device.ErrGone) {
				t.Errorf("%s with %04x: %v", name, status, err)
			}
		}
	}
}

func TestForeignAttestation(t *testing.T) {
	for _, firmware := range firmwares {
		card, _ := provisioned(t, firmware)
		c, err := pivcard.New(t.Context(), inProcess{card}, true)
		must(t, err)
		must(t, card.SetFault(smartcard.FaultForeignRoot, 0))
		foreign := func(c *pivcard.Card) {
			t.Helper()
			if _, err := c.Attest(t.Context(), 0x9A); !errors.Is(err, device.ErrAttestation) {
				t.Error(err)
			}
			s := describe(t, c)
			if len(s.Keys) != 1 || s.Keys[0].Attested || !certificate.PublicKey.(*ecdsa.PublicKey).Equal(s.Keys[0].Public) {
				t.Errorf("%+v", s.Keys)
			}
		}
		foreign(c)
		must(t, card.SetFault(smartcard.FaultClear, 0))
		if _, err := c.Attest(t.Context(), 0x9A); err != nil {
			t.Error(err)
		}
		c, err = pivcard.New(t.Context(), inProcess{card}, false) // as if it were hardware
		must(t, err)
		foreign(c)
	}
}
