package oathapplet_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/oathapplet"
	"tokendesk/vault/secret"
)

// script is a card that answers what is expected of it: lines "command > answer status".
type script struct {
	t     *testing.T
	steps []string
}

func newScript(t *testing.T, lines string) *script {
	s := &script{t: t}
	s.add(lines)
	t.Cleanup(func() {
		if len(s.steps) > 0 {
			t.Errorf("not sent: %s", s.steps)
		}
	})
	return s
}

func (s *script) add(lines string) {
	for line := range strings.Lines(lines) {
		if line = strings.TrimSpace(line); line != "" {
			s.steps = append(s.steps, line)
		}
	}
}

func (s *script) Transmit(apdu []byte) ([]byte, uint16, error) {
	s.t.Helper()
	if len(s.steps) == 0 {
		s.t.Fatalf("%x was sent after the end", apdu)
	}
	command, answer, _ := strings.Cut(s.steps[0], ">")
	s.steps = s.steps[1:]
	if want := bin(s.t, command); string(want) != string(apdu) {
		s.t.Fatalf("%x was sent, not %x", apdu, want)
	}
	b := bin(s.t, answer)
	n := len(b) - 2
	return b[:n], uint16(b[n])<<8 | uint16(b[n+1]), nil
}

func (s *script) Close() error { return nil }

// bin reads hexadecimal digits, and text between quotes.
func bin(t *testing.T, text string) []byte {
	t.Helper()
	var all []byte
	for i, part := range strings.Split(text, `"`) {
		if i%2 == 1 {
			all = append(all, part...)
			continue
		}
		b, err := hex.DecodeString(strings.ReplaceAll(part, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

// What a YubiKey is told and answers (YKOATH protocol, and what yubikit sends).
func TestYubiKeyBytes(t *testing.T) {
	c := newScript(t, `00a40400 07 a0000005272101 > 7903050403 7108 269f14543a0ec7ac 9000`)
	s, err := oathapplet.Open(t.Context(), c)
	must(t, err)
	if s.Nitrokey() || s.Locked() || s.Capacity() != 32 {
		t.Errorf("%v, %v, %d", s.Nitrokey(), s.Locked(), s.Capacity())
	}
	one, err := s.Token(t.Context(), "yk-12345678/oath:alice")
	must(t, err)

	c.add(`00a10000 00 > 7207 21 "yubico" 7210 11 "tokendesk:alice" 9000`)
	state, err := one.Describe(t.Context())
	must(t, err)
	if want := (device.State{Firmware: device.Version{Major: 5, Minor: 4, Build: 3}, Configured: true}); state != want {
		t.Errorf("%+v", state)
	}
	c.add(`00010000 29 710f "tokendesk:alice" 7316 1106 "12345678901234567890" > 9000`)
	must(t, one.Program(t.Context(), device.HOTPConfig{Seed: rfc(), Digits: 6}))
	c.add(`00010000 29 710f "tokendesk:alice" 7310 1108 "short" 000000000000000000 7a04 fffffffe > 9000`)
	must(t, one.Program(t.Context(), device.HOTPConfig{Seed: text("short"), Digits: 8, StartCounter: 1<<32 - 2}))
	c.add(`00a20001 13 710f "tokendesk:alice" 7400 > 7605 06 4c93cf18 9000`)
	expectText(t, "755224", one.Code)
	c.add(`00a20001 13 710f "tokendesk:alice" 7400 > 7605 08 ffffffff 9000`)
	expectText(t, "47483647", one.Code)
	c.add(`00a20001 13 710f "tokendesk:alice" 7400 > 7605 07 00000001 9000`)
	expectText(t, "0000001", one.Code)
	c.add(`00020000 11 710f "tokendesk:alice" > 9000
		00020000 11 710f "tokendesk:alice" > 6984`)
	must(t, one.Delete(t.Context(), secret.Secret{}))
	must(t, one.Delete(t.Context(), secret.Secret{}))

	totp := oathapplet.Credential{Name: "60/a:b", Type: oathapplet.TOTP, Algorithm: oathapplet.SHA512, Digits: 7, Touch: true}
	c.add(`00010000 1c 7106 "60/a:b" 7310 2307 "12345678901234" 7802 > 9000
		00a20001 12 7106 "60/a:b" 7408 0000000000000002 > 7605 07 00989680 9000
		00050000 0d 7106 "60/a:b" 7103 "a:b" > 9000`)
	must(t, s.Put(t.Context(), totp, text("12345678901234")))
	code, err := s.Calculate(t.Context(), totp, time.Unix(179, 0))
	if err != nil || code != "0000000" {
		t.Errorf("%s, %v", code, err)
	}
	must(t, s.Rename(t.Context(), "60/a:b", "a:b"))
}

// What a Nitrokey 3 is told and answers (trussed-secrets-app 0.14, and what nitrokey-sdk-py sends).
func TestNitrokeyBytes(t *testing.T) {
	c := newScript(t, `00a40400 07 a0000005272101 > 7903040e00 820108 8f0400005d19 9000`)
	s, err := oathapplet.Open(t.Context(), c)
	must(t, err)
	if !s.Nitrokey() || s.Locked() || s.Capacity() != 0 {
		t.Errorf("%v, %v, %d", s.Nitrokey(), s.Locked(), s.Capacity())
	}
	one, err := s.Token(t.Context(), "nk-00005d19/oath:alice")
	must(t, err)
	c.add(`00a40400 07 a0000005272101 > 7903040e00 820108 8f0400005d19 9000
		00b20000 08 8006 "123456" > 9000`)
	must(t, one.Unlock(t.Context(), text("123456")))
	// The name is taken.
	c.add(`00010000 29 710f "tokendesk:alice" 7316 1106 "12345678901234567890" > 6983
		00020000 11 710f "tokendesk:alice" > 9000
		00010000 29 710f "tokendesk:alice" 7316 1106 "12345678901234567890" > 9000`)
	must(t, one.Program(t.Context(), device.HOTPConfig{Seed: rfc(), Digits: 6}))
	c.add(`00a20001 1b 710f "tokendesk:alice" 7408 0000000000000000 > 7605 06 4c93cf18 9000`)
	expectText(t, "755224", one.Code)
	// It is taken by what is not seen without the PIN.
	c.add(`00010000 29 710f "tokendesk:alice" 7316 1106 "12345678901234567890" > 6983
		00020000 11 710f "tokendesk:alice" > 6a82
		00a40400 07 a0000005272101 > 7903040e00 820108 8f0400005d19 9000
		00b20000 08 8006 "123456" > 9000
		00020000 11 710f "tokendesk:alice" > 9000
		00010000 29 710f "tokendesk:alice" 7316 1106 "12345678901234567890" > 9000`)
	must(t, one.Program(t.Context(), device.HOTPConfig{Seed: rfc(), Digits: 6, CurrentAccessCode: text("123456")}))
	c.add(`00a10000 00 > 7210 11 "tokendesk:alice" 9000
		00020000 11 710f "tokendesk:alice" > 9000
		00b70000 0a 7103 "a:b" 7103 "c:d" > 9000`)
	must(t, one.Delete(t.Context(), secret.Secret{}))
	must(t, s.Rename(t.Context(), "a:b", "c:d"))
}

// The key of a password, and what it answers to a challenge: Python's hashlib.pbkdf2_hmac and hmac say the same.
func TestPasswordBytes(t *testing.T) {
	key := bin(t, "e106ce1d82005c4fbdda835fe9d1a1fd")
	const selected = `7903050403 7108 269f14543a0ec7ac 7408 0102030405060708 7b0101`
	c := &passwordCard{t: t, selected: bin(t, selected)}
	s, err := oathapplet.Open(t.Context(), c)
	must(t, err)
	c.validate = func(data []byte) []byte {
		if got := fmt.Sprintf("%x", data[:24]); got != "7514166d3a1a6c51b4f5ced61abfb654100d43ba341c7408" || len(data) != 32 {
			t.Errorf("%s is sent, in %d bytes", got, len(data))
		}
		m := hmac.New(sha1.New, key)
		m.Write(data[24:])
		return m.Sum([]byte{0x75, 20})
	}
	must(t, s.Unlock(t.Context(), text("correct horse")))
	if s.Locked() || !c.reset {
		t.Errorf("locked %v, to be reset when it is closed %v", s.Locked(), c.reset)
	}
}

type passwordCard struct {
	t        *testing.T
	selected []byte
	validate func(data []byte) []byte
	reset    bool
}

func (c *passwordCard) Transmit(apdu []byte) ([]byte, uint16, error) {
	switch apdu[1] {
	case 0xA4:
		return c.selected, 0x9000, nil
	case 0xA3:
		return c.validate(apdu[5:]), 0x9000, nil
	}
	c.t.Errorf("%x", apdu)
	return nil, 0x6D00, nil
}

func (c *passwordCard) Reset()       { c.reset = true }
func (c *passwordCard) Close() error { return nil }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func expectText(t *testing.T, want string, code func(context.Context) (string, error)) {
	t.Helper()
	got, err := code(t.Context())
	if err != nil || got != want {
		t.Errorf("code %s, not %s, %v", got, want, err)
	}
}
