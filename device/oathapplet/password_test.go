package oathapplet_test

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1"
	"errors"
	"slices"
	"testing"

	"tokendesk/device"
	"tokendesk/vault/secret"
)

// setPassword is SET CODE, which the desk never sends.
func (b *bench) setPassword(password string) {
	b.Helper()
	answer, status, err := b.Transmit([]byte{0, 0xA4, 4, 0, 7, 0xA0, 0, 0, 5, 0x27, 0x21, 1})
	if err != nil || status != 0x9000 || len(answer) < 15 {
		b.Fatalf("%x, %04x, %v", answer, status, err)
	}
	salt := answer[7:15] // after the version
	key, err := pbkdf2.Key(sha1.New, password, salt, 1000, 16)
	b.must(err)
	challenge := []byte("12345678")
	m := hmac.New(sha1.New, key)
	m.Write(challenge)
	data := slices.Concat([]byte{0x73, 17, 0x21}, key, []byte{0x74, 8}, challenge, []byte{0x75, 20}, m.Sum(nil))
	b.raw(append([]byte{0, 3, 0, 0, byte(len(data))}, data...)...)
}

var hotp = device.HOTPConfig{Seed: rfc(), Digits: 6}

func withPassword(password string) device.HOTPConfig {
	c := hotp
	c.CurrentAccessCode = text(password)
	return c
}

func TestPassword(t *testing.T) {
	for _, k := range kinds {
		if k.nitrokey {
			continue
		}
		b := newBench(t, k)
		b.must(b.alice().Program(t.Context(), hotp))
		b.setPassword("correct horse")
		id, err := b.open().Identify(t.Context())
		if err != nil || len(id.Holds) != 1 || id.Holds[0] != (device.Holding{Name: "oath", Locked: true, Capacity: k.capacity}) {
			t.Errorf("%+v, %v", id, err)
		}
		one := b.alice()
		for name, err := range map[string]error{
			"describe": second(one.Describe(t.Context())),
			"code":     second(one.Code(t.Context())),
			"unlock":   one.Unlock(t.Context(), secret.Secret{}),
			"program":  one.Program(t.Context(), hotp),
			"delete":   one.Delete(t.Context(), secret.Secret{}),
		} {
			if !errors.Is(err, device.ErrLocked) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for range 3 {
			for name, err := range map[string]error{
				"unlock":  one.Unlock(t.Context(), text("wrong")),
				"program": one.Program(t.Context(), withPassword("wrong")),
				"delete":  one.Delete(t.Context(), text("wrong")),
			} {
				var wrong *device.PINError
				if !errors.As(err, &wrong) || *wrong != (device.PINError{Name: "password", Retries: device.Unlimited}) {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		b.expectNothingLost(one)
		// Who opens it again has to show it again; writing and deleting do that by themselves.
		b.must(b.alice().Program(t.Context(), withPassword("correct horse")))
		one = b.alice()
		b.must(one.Unlock(t.Context(), text("correct horse")))
		b.expect(one, true)
		b.expectCode(one, "755224")
		b.must(b.alice().Delete(t.Context(), text("correct horse")))
	}
}

// expectNothingLost unlocks a token whose counter nobody has moved.
func (b *bench) expectNothingLost(one device.HOTPToken) {
	b.Helper()
	b.must(one.Unlock(b.Context(), text("correct horse")))
	b.expectCode(one, "755224")
}

// A password where there is none does no harm.
func TestNoPassword(t *testing.T) {
	each(t, func(b *bench) {
		one := b.alice()
		b.must(one.Unlock(b.Context(), secret.Secret{}))
		b.must(one.Unlock(b.Context(), text("correct horse")))
		b.must(one.Program(b.Context(), withPassword("correct horse")))
		b.must(one.Delete(b.Context(), text("correct horse")))
		if b.touches != 0 && !b.nitrokey {
			b.Errorf("%d touches", b.touches)
		}
	})
}

// liar takes every password, and proves nothing.
type liar struct {
	*bench
	answer []byte
}

func (l *liar) Transmit(apdu []byte) ([]byte, uint16, error) {
	if apdu[1] == 0xA3 {
		return l.answer, 0x9000, nil
	}
	return l.bench.Transmit(apdu)
}

func TestTheKeyProvesThePasswordAsWell(t *testing.T) {
	b := newBench(t, kinds[1])
	b.setPassword("correct horse")
	for _, answer := range [][]byte{nil, append([]byte{0x75, 20}, make([]byte, 20)...), {0x75, 0}, {0x74, 1, 1}} {
		s := b.openOn(&liar{b, answer})
		if err := s.Unlock(t.Context(), text("correct horse")); !errors.Is(err, device.ErrCorrupt) || !s.Locked() {
			t.Errorf("%x: %v", answer, err)
		}
	}
}

const pinRetries = 8

// setPIN is SET PIN of a Nitrokey 3, and put one of its commands with which it protects a credential by the PIN.
func (b *bench) setPIN(pin string) {
	b.Helper()
	b.open()
	b.raw(append([]byte{0, 0xB4, 0, 0, byte(2 + len(pin)), 0x80, byte(len(pin))}, pin...)...)
}

func (b *bench) putProtected(pin, name string) {
	b.Helper()
	b.raw(append([]byte{0, 0xB2, 0, 0, byte(2 + len(pin)), 0x80, byte(len(pin))}, pin...)...)
	data := append([]byte{0x71, byte(len(name))}, name...)
	data = append(data, 0x73, 5, 0x11, 6, 1, 2, 3, 0x78, 4)
	b.raw(append([]byte{0, 1, 0, 0, byte(len(data))}, data...)...)
}

// The PIN of a Nitrokey 3 is wanted only where somebody has protected what is to be replaced.
func TestPIN(t *testing.T) {
	b := newBench(t, kinds[3])
	b.setPIN("123456")
	b.must(b.alice().Unlock(t.Context(), secret.Secret{}))
	b.must(b.alice().Program(t.Context(), hotp))
	b.expectCode(b.alice(), "755224")
	b.must(b.alice().Delete(t.Context(), secret.Secret{}))

	b.putProtected("123456", "tokendesk:alice")
	b.expect(b.alice(), false) // it is not seen
	if err := b.alice().Program(t.Context(), hotp); !errors.Is(err, device.ErrLocked) {
		t.Error(err)
	}
	b.expectWrongPIN(b.alice().Program(t.Context(), withPassword("654321")), pinRetries-1)
	b.must(b.alice().Program(t.Context(), withPassword("123456")))
	b.expectCode(b.alice(), "755224")

	b.must(b.alice().Delete(t.Context(), secret.Secret{}))
	b.putProtected("123456", "tokendesk:alice")
	one := b.alice()
	b.must(one.Unlock(t.Context(), text("123456")))
	b.expect(one, true) // now it is seen, once
	b.must(one.Unlock(t.Context(), text("123456")))
	if err := one.Delete(t.Context(), secret.Secret{}); !errors.Is(err, device.ErrLocked) {
		t.Error(err)
	}
	b.must(one.Unlock(t.Context(), text("123456")))
	b.must(one.Delete(t.Context(), text("123456")))
	b.must(one.Unlock(t.Context(), text("123456")))
	b.expect(one, false)
}

func (b *bench) expectWrongPIN(err error, retries int) {
	b.Helper()
	var wrong *device.PINError
	if !errors.As(err, &wrong) || wrong.Name != "PIN" || wrong.Retries != retries {
		b.Errorf("tries left should be %d: %v", retries, err)
	}
}

// Wrong PINs are counted, and the last try is somebody else's.
func TestTriesOfThePIN(t *testing.T) {
	b := newBench(t, kinds[3])
	b.setPIN("123456")
	one := b.alice()
	for left := pinRetries - 1; left > 0; left-- {
		b.expectWrongPIN(one.Unlock(t.Context(), text("654321")), left)
	}
	b.touches = 0
	b.expectWrongPIN(one.Unlock(t.Context(), text("123456")), 1)
	if b.touches != 0 {
		t.Error("the last try was spent")
	}
	b.open()
	b.raw(append([]byte{0, 0xB2, 0, 0, 8, 0x80, 6}, "123456"...)...) // with another program
	b.must(one.Unlock(t.Context(), text("123456")))

	b.away = true
	if err := one.Unlock(t.Context(), text("123456")); !errors.Is(err, device.ErrNoTouch) {
		t.Error(err)
	}
	b.away = false
	for range pinRetries {
		b.Transmit(append([]byte{0, 0xB2, 0, 0, 8, 0x80, 6}, "654321"...))
	}
	b.expectWrongPIN(one.Unlock(t.Context(), text("123456")), 0)
	if err := one.Unlock(t.Context(), secret.Random(200)); err == nil {
		t.Error("a PIN of 200 bytes")
	}
}
