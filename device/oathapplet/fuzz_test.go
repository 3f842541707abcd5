package oathapplet_test

import (
	"slices"
	"testing"
	"time"

	"tokendesk/device/oathapplet"
)

// parrot is a card that gives the same answers over and over, each with its length before it.
type parrot struct{ answers, rest []byte }

func (p *parrot) Transmit([]byte) ([]byte, uint16, error) {
	if len(p.rest) == 0 {
		p.rest = p.answers
	}
	n := min(int(p.rest[0]), len(p.rest)-1)
	answer := p.rest[1 : 1+n]
	p.rest = p.rest[1+n:]
	return slices.Clone(answer), 0x9000, nil
}

func (p *parrot) Close() error { return nil }

// Whatever a card answers, there is no panic, and what is returned holds what it promises.
func FuzzAnswers(f *testing.F) {
	const yubikey = "\x79\x03\x05\x04\x03\x71\x08\x26\x9f\x14\x54\x3a\x0e\xc7\xac"
	f.Add([]byte("\x0f" + yubikey + "\x08\x72\x06\x21yubic\x07\x76\x05\x06\x4c\x93\xcf\x18"))
	f.Add([]byte("\x0e\x79\x03\x04\x0e\x00\x82\x01\x08\x8f\x04\x00\x00\x5d\x19\x02\x72\x81"))
	f.Add([]byte("\x19" + yubikey + "\x74\x08\x01\x02\x03\x04\x05\x06\x07\x08\x02\x75\x00"))
	f.Fuzz(func(t *testing.T, answers []byte) {
		if len(answers) == 0 {
			return
		}
		s, err := oathapplet.Open(t.Context(), &parrot{answers: answers})
		if err != nil {
			return
		}
		if err := s.Unlock(t.Context(), text("123456")); err == nil && s.Locked() {
			t.Error("unlocked, and locked")
		}
		if all, err := s.List(t.Context()); err == nil {
			for _, c := range all {
				if c.Name == "" {
					t.Errorf("%+v has no name", c)
				}
			}
		}
		if id, err := s.Identify(t.Context()); err == nil && (id.ID != "") != s.Nitrokey() {
			t.Errorf("%+v", id)
		}
		code, err := s.Calculate(t.Context(), oathapplet.Credential{Name: "a", Type: oathapplet.TOTP}, time.Unix(59, 0))
		if err == nil && (len(code) < 6 || len(code) > 8) {
			t.Errorf("code %q", code)
		}
	})
}
