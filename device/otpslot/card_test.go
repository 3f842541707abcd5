package otpslot_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"tokendesk/device"
	"tokendesk/device/emulator"
	"tokendesk/device/otpslot"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault/secret"
)

// inReader is the card of an emulated key, without a reader around it.
type inReader struct {
	key    *emulator.YubiKey
	sent   []string       // APDUs, in hexadecimal
	before func(apdu int) // called before each, numbered from 1
}

func (r *inReader) Transmit(apdu []byte) ([]byte, uint16, error) {
	r.sent = append(r.sent, hex.EncodeToString(apdu))
	if r.before != nil {
		r.before(len(r.sent))
	}
	answer := r.key.Card().Transmit(apdu)
	if len(answer) < 2 {
		return nil, 0, device.ErrGone
	}
	n := len(answer) - 2
	return answer[:n], uint16(answer[n])<<8 | uint16(answer[n+1]), nil
}

func (r *inReader) Close() error { return nil }

// newCardKey is a key whose card has power.
func newCardKey(fw device.Version) *emulator.YubiKey {
	k := emulator.New(emulator.Options{Serial: serial, Firmware: fw, VPCD: "127.0.0.1:1"})
	k.Card().PowerUp()
	return k
}

func overCard(t *testing.T, k *emulator.YubiKey) (*otpslot.Session, *inReader) {
	t.Helper()
	r := &inReader{key: k}
	s, err := otpslot.OverCard(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return s, r
}

// reinsert plugs a key in after it was pulled, and gives its card power.
func reinsert(k *emulator.YubiKey) {
	k.Remove()
	k.Insert()
	k.Card().PowerUp()
}

const selected = "00a4040007a0000005272001"

// The configuration is that which ykpersonalize sends as a frame, see TestConfigureVector.
func TestCardVector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := overCard(t, newCardKey(fw5))
		config := oldConfig()
		config.NewAccessCode, config.CurrentAccessCode = codeA, codeB
		if err := slot(t, s, 2).Program(t.Context(), config); err != nil {
			t.Fatal(err)
		}
		const configuration = "e1631234567800" + "00000000000000" + "00003738393000" + "01313233343536" +
			"37383930313233" + "34353601020304" + "05060624604200" + "006cb3"
		want := []string{selected, selected, "0001100000", selected, "000103003a" + configuration + "aabbccddeeff"}
		if !slices.Equal(r.sent, want) {
			t.Errorf("sent %q", r.sent)
		}
	})
}

func TestLifeOverCard(t *testing.T) {
	for _, fw := range []string{"3.4.9", "5.3.0", "5.4.2", "5.4.3", "5.7.1"} {
		bubble(t, fw, func(t *testing.T) {
			v, err := device.ParseVersion(fw)
			if err != nil {
				t.Fatal(err)
			}
			k, ctx := newCardKey(v), t.Context()
			s, _ := overCard(t, k)
			for number, long := range map[int]bool{1: false, 2: true} {
				slot := slot(t, s, number)
				for n, c := range []device.HOTPConfig{
					{Seed: newSeed, Digits: 6},
					{Seed: oldSeed, Digits: 8, StartCounter: 16, TokenIdentifier: true, Enter: true, NewAccessCode: codeA},
					{Seed: newSeed, Digits: 6, CurrentAccessCode: codeA, NewAccessCode: codeB},
				} {
					if err := slot.Program(ctx, c); err != nil {
						t.Fatalf("slot %d, configuration %d: %v", number, n+1, err)
					}
					text, _, err := k.Touch(long)
					if want := hotpscan.Code(c.Seed, c.Digits, c.StartCounter); err != nil || !strings.HasSuffix(strings.TrimSpace(text), want) {
						t.Fatalf("slot %d types %q, not %s, %v", number, text, want, err)
					}
				}
			}
			reinsert(k)
			s, _ = overCard(t, k)
			for number := 1; number <= 2; number++ {
				slot := slot(t, s, number)
				want := device.State{Serial: serial, Firmware: v, Configured: true, Stale: isStale(v)}
				if state, err := slot.Describe(ctx); err != nil || state != want {
					t.Errorf("slot %d is %+v, not %+v, %v", number, state, want, err)
				}
				for _, wrong := range []secret.Secret{{}, codeA} {
					if err := slot.Delete(ctx, wrong); !errors.As(err, new(*device.RejectedError)) {
						t.Errorf("deleted without its access code: %v", err)
					}
				}
				if err := slot.Delete(ctx, codeB); err != nil {
					t.Error(err)
				}
			}
			reinsert(k)
			s, _ = overCard(t, k)
			if status, err := s.Status(ctx); err != nil || status.Configured(1) || status.Configured(2) || status.Sequence != 0 {
				t.Errorf("%+v, %v", status, err)
			}
		})
	}
}

func TestSessionOverCard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, ctx := newCardKey(fw5), t.Context()
		s, _ := overCard(t, k)
		id := device.YubiKeyID(serial)
		token, err := s.Token(ctx, device.SlotToken(id, 2))
		if err != nil {
			t.Fatal(err)
		}
		if err := token.Program(ctx, device.HOTPConfig{Seed: newSeed, Digits: 6}); err != nil {
			t.Fatal(err)
		}
		holds := []device.Holding{{Name: "otp1"}, {Name: "otp2", Configured: true}}
		want := device.Identity{ID: id, Serial: serial, Firmware: fw5, Holds: holds}
		if got, err := s.Identify(ctx); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := s.Token(ctx, device.PIVToken(id)); !errors.Is(err, device.ErrNoApplication) {
			t.Errorf("a slot for PIV: %v", err)
		}
		if token.Emission() != device.Elsewhere {
			t.Errorf("its codes come out %v", token.Emission())
		}
		_, err = token.Code(ctx)
		if _, cure := device.Cure(err); cure == "" || !strings.Contains(err.Error(), "smart card does not see") {
			t.Errorf("a code: %v", err)
		}
		if err := token.Unlock(ctx, codeA); err != nil {
			t.Error(err)
		}
	})
}

// Whoever else selects an application on the card, slot commands reach none but the OTP application.
func TestOthersOnTheCard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCardKey(fw5)
		s, r := overCard(t, k)
		one := slot(t, s, 1)
		for _, aid := range []string{"a0000005272101", "a000000308", "a000000527471117"} {
			b, err := hex.DecodeString(fmt.Sprintf("00a40400%02x%s", len(aid)/2, aid))
			if err != nil {
				t.Fatal(err)
			}
			for name, do := range map[string]func() error{
				"program": func() error { return one.Program(t.Context(), device.HOTPConfig{Seed: newSeed, Digits: 6}) },
				"delete":  func() error { return one.Delete(t.Context(), secret.Secret{}) },
				"status":  func() error { _, err := s.Status(t.Context()); return err },
			} {
				if answer := k.Card().Transmit(b); !bytes.HasSuffix(answer, []byte{0x90, 0}) {
					t.Fatalf("%s is not there: %x", aid, answer)
				}
				if err := do(); err != nil {
					t.Errorf("%s after %s: %v", name, aid, err)
				}
			}
		}
		for _, apdu := range r.sent {
			if strings.HasPrefix(apdu, "0003") {
				t.Errorf("%s takes the password away from an OATH application", apdu)
			}
		}
	})
}

func TestNoOTPOnTheCard(t *testing.T) {
	for _, fw := range []device.Version{version(4, 0), {Major: 4, Minor: 3, Build: 7}, {Major: 5, Minor: 2, Build: 7}} {
		if _, err := otpslot.OverCard(t.Context(), &inReader{key: newCardKey(fw)}); !errors.Is(err, device.ErrNoApplication) {
			t.Errorf("firmware %s: %v", fw, err)
		}
	}
}

func TestPrefersCard(t *testing.T) {
	for text, want := range map[string]bool{
		"2.4.0": false, "3.4.9": false, "4.3.7": false, "5.3.0": false, "5.4.2": false, "5.4.3": true, "5.7.1": true,
	} {
		v, err := device.ParseVersion(text)
		if err != nil {
			t.Fatal(err)
		}
		if otpslot.PrefersCard(v) != want {
			t.Errorf("%s: %v", text, !want)
		}
	}
}

func TestSerialHiddenFromCard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, ctx := newCardKey(fw5), t.Context()
		s, _ := overCard(t, k)
		fault(t, k, emulator.FaultSerialHidden, 0)
		if _, err := s.Serial(ctx); !errors.Is(err, otpslot.ErrSerialHidden) {
			t.Error(err)
		}
		if state, err := slot(t, s, 1).Describe(ctx); err != nil || state != (device.State{Firmware: fw5}) {
			t.Errorf("%+v, %v", state, err)
		}
		if id, err := s.Identify(ctx); err != nil || id.ID != "" || id.Serial != 0 || len(id.Holds) != 2 {
			t.Errorf("%+v, %v", id, err)
		}
		if err := slot(t, s, 1).Program(ctx, oldConfig()); !errors.Is(err, otpslot.ErrSerialHidden) || sequence(t, s) != 0 {
			t.Errorf("a token identifier without a serial: %v", err)
		}
	})
}

// replacingOverCard is a key whose slot 2 holds oldConfig, one code of it used, and a session over its card.
func replacingOverCard(t *testing.T) (*emulator.YubiKey, *otpslot.Slot, *inReader) {
	t.Helper()
	k := newCardKey(fw5)
	s, r := overCard(t, k)
	two := slot(t, s, 2)
	if err := two.Program(t.Context(), oldConfig()); err != nil {
		t.Fatal(err)
	}
	if text, _, err := k.Touch(true); err != nil || text == "" {
		t.Fatalf("%q, %v", text, err)
	}
	r.sent = nil
	return k, two, r
}

func TestCardPulled(t *testing.T) {
	const apdus = 2 // SELECT, and the command
	for _, c := range []struct {
		kind    emulator.Fault
		n       int
		written bool
	}{
		{emulator.FaultCardPullBefore, 1, false}, {emulator.FaultCardPullAfter, 1, false},
		{emulator.FaultCardPullBefore, apdus, false}, {emulator.FaultCardPullAfter, apdus, true},
		{emulator.FaultUnplugAfterWrite, 0, true},
	} {
		bubble(t, fmt.Sprint(c.kind, c.n), func(t *testing.T) {
			k, two, r := replacingOverCard(t)
			fault(t, k, c.kind, c.n)
			if err := two.Program(t.Context(), newConfig()); !errors.Is(err, device.ErrGone) || len(r.sent) > apdus {
				t.Fatalf("after %d APDUs: %v", len(r.sent), err)
			}
			reinsert(k)
			if c.written {
				expectNew(t, k)
			} else {
				expectOld(t, k)
			}
		})
	}
}

func TestCancelledOverCard(t *testing.T) {
	for n := range 2 {
		bubble(t, fmt.Sprint(n), func(t *testing.T) {
			k, two, r := replacingOverCard(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r.before = func(apdu int) {
				if apdu == n {
					cancel()
				}
			}
			if n == 0 {
				cancel()
			}
			if err := two.Program(ctx, newConfig()); !errors.Is(err, context.Canceled) || len(r.sent) != n {
				t.Fatalf("after %d APDUs: %v", len(r.sent), err)
			}
			r.before = nil
			expectOld(t, k)
		})
	}
}

func TestRejectedOverCard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, two, r := replacingOverCard(t)
		for _, wrong := range []secret.Secret{{}, codeB} {
			config := newConfig()
			config.CurrentAccessCode = wrong
			rejected, ok := errors.AsType[*device.RejectedError](two.Program(t.Context(), config))
			if !ok || rejected.Op != "program the slot" || len(rejected.Reasons) != 3 {
				t.Errorf("%+v", rejected)
			}
		}
		before := len(r.sent)
		if err := slot(t, mustOverCard(t, r), 1).Delete(t.Context(), codeA); err != nil || len(r.sent) != before+2 {
			t.Errorf("a deletion of nothing took %v: %v", r.sent[before:], err)
		}
		expectOld(t, k)
	})
}

func mustOverCard(t *testing.T, r *inReader) *otpslot.Session {
	t.Helper()
	s, err := otpslot.OverCard(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Where the status does not tell what the slots hold, a deletion is tried, and its failure says what it can mean.
func TestDeletionThatCannotBeSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCardKey(device.Version{Major: 5, Minor: 3})
		s, _ := overCard(t, k)
		one := slot(t, s, 1)
		config := oldConfig()
		for range 3 {
			if err := one.Program(t.Context(), config); err != nil {
				t.Fatal(err)
			}
			config.CurrentAccessCode = codeA
		}
		if status, err := s.Status(t.Context()); err != nil || status.Configured(1) {
			t.Fatalf("it tells %+v, %v", status, err)
		}
		rejected, ok := errors.AsType[*device.RejectedError](one.Delete(t.Context(), codeB))
		if !ok || !slices.ContainsFunc(rejected.Reasons, func(r string) bool { return strings.Contains(r, "nothing in it") }) {
			t.Errorf("%+v", rejected)
		}
		if err := one.Delete(t.Context(), codeA); err != nil {
			t.Error(err)
		}
		if text, _, _ := k.Touch(false); text != "" {
			t.Errorf("deleted, it types %q", text)
		}
	})
}

// isStale tells whether a card of some firmware tells of its slots as they were when it was inserted.
func isStale(v device.Version) bool {
	return !v.Less(device.Version{Major: 5}) && v.Less(device.Version{Major: 5, Minor: 4, Build: 3})
}
