package otpslot_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"tokendesk/device"
	"tokendesk/device/emulator"
	"tokendesk/device/otpslot"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault/secret"
)

const serial = device.Serial(12345678)

var (
	fw5     = device.Version{Major: 5, Minor: 4, Build: 3}
	codeA   = secret.New([]byte{1, 2, 3, 4, 5, 6})
	codeB   = secret.New([]byte{0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF})
	oldSeed = secret.New([]byte("12345678901234567890"))
	newSeed = secret.New([]byte("another seed, longer"))
)

// bubble runs fn in time that passes only while everybody waits: real timing costs nothing.
func bubble(t *testing.T, name string, fn func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, fn) })
}

func newKey(fw device.Version) *emulator.YubiKey {
	return emulator.New(emulator.Options{Serial: serial, Firmware: fw})
}

// tap is a report that runs before each write, which it numbers from 1.
type tap struct {
	device.Report
	writes int
	before func(write int)
}

func (r *tap) SetFeature(p []byte) error {
	r.writes++
	if r.before != nil {
		r.before(r.writes)
	}
	return r.Report.SetFeature(p)
}

func open(t *testing.T, k *emulator.YubiKey) (*otpslot.Session, *tap) {
	t.Helper()
	r, err := k.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	watched := &tap{Report: r}
	return otpslot.New(watched), watched
}

func slot(t *testing.T, s *otpslot.Session, number int) *otpslot.Slot {
	t.Helper()
	slot, err := s.Slot(number)
	if err != nil {
		t.Fatal(err)
	}
	return slot
}

func fault(t *testing.T, k *emulator.YubiKey, kind emulator.Fault, n int) {
	t.Helper()
	if err := k.SetFault(kind, n); err != nil {
		t.Fatal(err)
	}
}

func sequence(t *testing.T, s *otpslot.Session) byte {
	t.Helper()
	status, err := s.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return status.Sequence
}

// oldConfig and newConfig differ in everything that a slot holds.
func oldConfig() device.HOTPConfig {
	return device.HOTPConfig{Seed: oldSeed, Digits: 8, StartCounter: 16, TokenIdentifier: true, Enter: true, NewAccessCode: codeA}
}

func newConfig() device.HOTPConfig {
	return device.HOTPConfig{Seed: newSeed, Digits: 6, CurrentAccessCode: codeA, NewAccessCode: codeB}
}

// replacing is a key whose slot 2 holds oldConfig, one code of it used, and a session that may replace it.
func replacing(t *testing.T) (*emulator.YubiKey, *otpslot.Slot, *tap) {
	t.Helper()
	k := newKey(fw5)
	s, r := open(t, k)
	two := slot(t, s, 2)
	if err := two.Program(t.Context(), oldConfig()); err != nil {
		t.Fatal(err)
	}
	k.Touch(true)
	if _, err := two.Code(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.writes = 0
	return k, two, r
}

// expectOld checks that slot 2 of replacing's key, which nobody holds, is exactly what it was.
func expectOld(t *testing.T, k *emulator.YubiKey) {
	t.Helper()
	expect(t, k, fmt.Sprintf("ubhe%s%s\n", serial, hotpscan.Code(oldSeed, 8, 17)), codeA)
}

// expectNew checks that it is exactly newConfig.
func expectNew(t *testing.T, k *emulator.YubiKey) {
	t.Helper()
	expect(t, k, hotpscan.Code(newSeed, 6, 0), codeB)
}

func expect(t *testing.T, k *emulator.YubiKey, typed string, code secret.Secret) {
	t.Helper()
	if text, held, err := k.Touch(true); err != nil || held || text != typed {
		t.Fatalf("a touch typed %q (held %v, %v), not %q", text, held, err, typed)
	}
	s, _ := open(t, k)
	two := slot(t, s, 2)
	for _, other := range []secret.Secret{{}, codeA, codeB} {
		if other.Equal(code) {
			continue
		}
		if err := two.Delete(t.Context(), other); err == nil {
			t.Fatal("another access code opens the slot")
		}
	}
	if err := two.Delete(t.Context(), code); err != nil {
		t.Fatalf("its access code does not open the slot: %v", err)
	}
}
