package oathapplet_test

import (
	"context"
	"testing"

	"tokendesk/device"
	"tokendesk/device/emulator/smartcard"
	"tokendesk/device/oathapplet"
	"tokendesk/vault/secret"
)

// kind is what a card can be.
type kind struct {
	name     string
	nitrokey bool
	firmware device.Version
	capacity int // of the emulated card
}

var kinds = []kind{
	{"YubiKey 4", false, device.Version{Major: 4, Minor: 3, Build: 5}, 32},
	{"YubiKey 5", false, device.Version{Major: 5, Minor: 4, Build: 3}, 32},
	{"YubiKey 5.7", false, device.Version{Major: 5, Minor: 7, Build: 1}, 64},
	{"Nitrokey 3", true, device.Version{Major: 4, Minor: 14}, 50},
}

const serial = device.Serial(0x5D19)

// bench is an emulated card without reader.
type bench struct {
	*testing.T
	kind
	card    *smartcard.Card
	touches int  // how often it has waited for one
	away    bool // nobody touches it
	sent    int  // APDUs
}

func newBench(t *testing.T, k kind) *bench {
	b := &bench{T: t, kind: k}
	b.card = smartcard.New(smartcard.Options{
		Serial: serial, Firmware: k.firmware, Nitrokey3: k.nitrokey,
		Touch: func(context.Context) bool { b.touches++; return !b.away },
	})
	return b
}

// each runs a test on every kind of card.
func each(t *testing.T, test func(*bench)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) { test(newBench(t, k)) })
	}
}

// Transmit implements device.Card, with short APDUs.
func (b *bench) Transmit(apdu []byte) (data []byte, status uint16, err error) {
	more := byte(0xA5)
	if b.nitrokey || apdu[1] == 0xA4 {
		more = 0xC0
	}
	for {
		b.sent++
		answer := b.card.Transmit(apdu)
		if len(answer) < 2 {
			return nil, 0, device.ErrGone
		}
		n := len(answer) - 2
		data = append(data, answer[:n]...)
		if answer[n] != 0x61 {
			return data, uint16(answer[n])<<8 | uint16(answer[n+1]), nil
		}
		apdu = []byte{0, more, 0, 0, 0}
	}
}

func (b *bench) Close() error { return nil }

func (b *bench) open() *oathapplet.Session {
	b.Helper()
	return b.openOn(b)
}

func (b *bench) openOn(c device.Card) *oathapplet.Session {
	b.Helper()
	s, err := oathapplet.Open(b.Context(), c)
	b.must(err)
	return s
}

func (b *bench) id(name string) device.TokenID {
	if b.nitrokey {
		return device.AppToken(device.NitrokeyID(serial), "oath:"+name)
	}
	return device.AppToken(device.YubiKeyID(serial), "oath:"+name)
}

func (b *bench) token(s *oathapplet.Session, name string) device.HOTPToken {
	b.Helper()
	t, err := s.Token(b.Context(), b.id(name))
	b.must(err)
	return t
}

// alice is a token on a card that was just inserted.
func (b *bench) alice() device.HOTPToken {
	b.Helper()
	return b.token(b.open(), "alice")
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// raw sends what no driver of the desk sends.
func (b *bench) raw(apdu ...byte) {
	b.Helper()
	if _, status, err := b.Transmit(apdu); err != nil || status != 0x9000 {
		b.Fatalf("%x: %04x, %v", apdu, status, err)
	}
}

// rfc is the seed of RFC 4226, appendix D, and RFC 6238, appendix B.
func rfc() secret.Secret { return text("12345678901234567890") }

func text(s string) secret.Secret { return secret.New([]byte(s)) }
