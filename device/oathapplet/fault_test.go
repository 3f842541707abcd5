package oathapplet_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"tokendesk/device"
	"tokendesk/device/emulator/smartcard"
	"tokendesk/device/oathapplet"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault/secret"
)

// operations are all that a token can do on a card with this password, or PIN.
var operations = map[string]func(ctx context.Context, t device.HOTPToken) error{
	"describe": func(ctx context.Context, t device.HOTPToken) error {
		return errors.Join(t.Unlock(ctx, text("123456")), second(t.Describe(ctx)))
	},
	"program": func(ctx context.Context, t device.HOTPToken) error { return t.Program(ctx, withPassword("123456")) },
	"delete":  func(ctx context.Context, t device.HOTPToken) error { return t.Delete(ctx, text("123456")) },
	"code": func(ctx context.Context, t device.HOTPToken) error {
		if err := t.Unlock(ctx, text("123456")); err != nil {
			return err
		}
		return second(t.Code(ctx))
	},
}

// dialects are a card of each: firmware makes no difference to what follows.
var dialects = []kind{kinds[1], kinds[3]}

// protected is a card with alice on it, and a password or PIN: on a Nitrokey 3, alice is hidden behind it.
func protected(t *testing.T, k kind) *bench {
	b := newBench(t, k)
	b.must(b.alice().Program(t.Context(), hotp))
	if k.nitrokey {
		b.setPIN("123456")
	} else {
		b.setPassword("123456")
	}
	return b
}

func (b *bench) operate(operate func(context.Context, device.HOTPToken) error) error {
	s, err := oathapplet.Open(b.Context(), b)
	if err != nil {
		return err
	}
	return operate(b.Context(), b.token(s, "alice"))
}

// Pulled at every APDU of every operation, it says so, and the same operation succeeds when the card is back. A counter moves by
// one at most.
func TestPulledAtEveryCommand(t *testing.T) {
	for _, k := range dialects {
		for name, operate := range operations {
			for _, fault := range []smartcard.Fault{smartcard.FaultPullBefore, smartcard.FaultPullAfter} {
				for n := 1; ; n++ {
					b := protected(t, k)
					b.must(b.card.SetFault(fault, n))
					err := b.operate(operate)
					if err == nil {
						if n < 4 {
							t.Errorf("%s on a %s takes %d APDUs", name, k.name, n-1)
						}
						break
					}
					if !errors.Is(err, device.ErrGone) {
						t.Errorf("%s on a %s, %s %d: %v", name, k.name, fault, n, err)
					}
					b.card.PowerUp()
					b.expectWhole(name)
					if err := b.operate(operate); err != nil {
						t.Errorf("%s again on a %s after %s %d: %v", name, k.name, fault, n, err)
					}
				}
			}
		}
	}
}

// expectWhole checks that alice is as before or as after an operation, or, where writing takes deleting first, not there.
func (b *bench) expectWhole(operation string) {
	b.Helper()
	one := b.alice()
	b.must(one.Unlock(b.Context(), text("123456")))
	state, err := one.Describe(b.Context())
	b.must(err)
	if !state.Configured {
		if operation != "delete" && (operation != "program" || !b.nitrokey) {
			b.Errorf("%s has erased alice", operation)
		}
		return
	}
	code, err := one.Code(b.Context())
	b.must(err)
	possible := []string{"755224"}
	if operation == "code" {
		possible = append(possible, hotpscan.Code(rfc(), 6, 1))
	}
	if !slices.Contains(possible, code) {
		b.Errorf("after %s: code %s", operation, code)
	}
}

// Whatever a card says, it is an error or what it ought to be.
func TestLyingLengths(t *testing.T) {
	for _, k := range dialects {
		for name, operate := range operations {
			b := protected(t, k)
			one := b.alice()
			b.must(b.card.SetFault(smartcard.FaultLyingLength, 0))
			if err := operate(t.Context(), one); err != nil && !errors.Is(err, device.ErrCorrupt) {
				t.Errorf("%s on a %s: %v", name, k.name, err)
			} else if err == nil && (name == "code" || name == "describe") {
				t.Errorf("%s on a %s believes it", name, k.name)
			}
		}
		b := protected(t, k)
		b.must(b.card.SetFault(smartcard.FaultLyingLength, 0))
		if _, err := oathapplet.Open(t.Context(), b); !errors.Is(err, device.ErrCorrupt) {
			t.Errorf("opening a %s: %v", k.name, err)
		}
	}
}

// odd is a card that answers the commands from the nth on in a way of its own.
type odd struct {
	*bench
	after  int
	answer func() ([]byte, uint16, error)
}

func (o *odd) Transmit(apdu []byte) ([]byte, uint16, error) {
	if o.after--; o.after < 0 {
		return o.answer()
	}
	return o.bench.Transmit(apdu)
}

// An answer that makes no sense, at whatever command, is an error, and no other one than that.
func TestOddAnswers(t *testing.T) {
	for _, k := range dialects {
		for name, operate := range operations {
			for what, c := range map[string]struct {
				answer string
				status uint16
				err    error
				want   error
			}{
				"a status":     {"", 0x6F42, nil, nil},
				"no data":      {"", 0x9000, nil, nil},
				"half a field": {"\x76", 0x9000, nil, nil},
				"another one":  {"\x7f\x01\x00", 0x9000, nil, nil},
				"mute":         {"", 0, device.ErrMute, device.ErrMute},
				"damaged":      {"", 0, device.ErrCorrupt, device.ErrCorrupt},
			} {
				for n := 0; ; n++ {
					b := protected(t, k)
					o := &odd{b, n, func() ([]byte, uint16, error) { return []byte(c.answer), c.status, c.err }}
					s, err := oathapplet.Open(t.Context(), o)
					if err == nil {
						err = operate(t.Context(), b.token(s, "alice"))
					}
					if o.after >= 0 { // all went well before
						b.must(err)
						break
					}
					// Nothing has to be said to a write, and nothing at all is a list without entries.
					harmless := c.status == 0x9000 && (name == "program" || name == "delete" || name == "describe" && what == "no data")
					if err == nil && !harmless || c.want != nil && !errors.Is(err, c.want) || errors.Is(err, device.ErrGone) {
						t.Errorf("%s on a %s, %s from command %d on: %v", name, k.name, what, n, err)
					}
				}
			}
		}
	}
}

// Opened by somebody else in between, it is not mistaken for a card without password.
func TestLockedInBetween(t *testing.T) {
	b := protected(t, kinds[1])
	one := b.alice()
	b.must(one.Unlock(t.Context(), text("123456")))
	b.open()
	if _, err := one.Describe(t.Context()); !errors.Is(err, device.ErrLocked) {
		t.Error(err)
	}
	b.must(one.Unlock(t.Context(), text("123456")))
	b.expect(one, true)
	b.must(one.Delete(t.Context(), secret.Secret{}))
}
