package otpslot_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"tokendesk/device"
	"tokendesk/device/emulator"
	"tokendesk/device/otpslot"
	"tokendesk/vault/secret"
)

func version(major, minor uint8) device.Version { return device.Version{Major: major, Minor: minor} }

func TestFirmwareGates(t *testing.T) {
	plain := device.HOTPConfig{Seed: oldSeed, Digits: 6}
	started, identified := plain, plain
	started.StartCounter = 16
	identified.TokenIdentifier = true
	for _, c := range []struct {
		have    device.Version
		slot    int
		config  device.HOTPConfig
		feature string // empty: it works
		need    device.Version
	}{
		{version(1, 9), 2, plain, "slot 2", version(2, 0)},
		{version(1, 9), 1, plain, "HOTP", version(2, 1)},
		{version(2, 0), 1, plain, "HOTP", version(2, 1)},
		{version(2, 0), 2, plain, "HOTP", version(2, 1)},
		{version(2, 1), 1, plain, "", version(0, 0)},
		{version(2, 1), 2, plain, "", version(0, 0)},
		{version(2, 1), 2, started, "a start counter", version(2, 2)},
		{version(2, 1), 2, identified, "the serial number", version(2, 2)},
		{version(2, 2), 2, started, "", version(0, 0)},
		{version(2, 2), 1, identified, "", version(0, 0)},
	} {
		bubble(t, fmt.Sprintf("%s slot %d %s", c.have, c.slot, c.feature), func(t *testing.T) {
			s, r := open(t, newKey(c.have))
			err := slot(t, s, c.slot).Program(t.Context(), c.config)
			if c.feature == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			want := device.FirmwareError{Feature: c.feature, Need: c.need, Have: c.have}
			if got, ok := errors.AsType[*device.FirmwareError](err); !ok || *got != want {
				t.Fatalf("%v, not %v", err, &want)
			}
			if r.writes != 0 {
				t.Fatalf("%d writes to a key that is too old", r.writes)
			}
		})
	}
}

func TestFirmwareGateOfDeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := open(t, newKey(version(1, 9)))
		err := slot(t, s, 2).Delete(t.Context(), secret.Secret{})
		if _, ok := errors.AsType[*device.FirmwareError](err); !ok {
			t.Fatal(err)
		}
	})
}

func TestSerialTooLongForAnIdentifier(t *testing.T) {
	for serial, fits := range map[device.Serial]bool{99_999_999: true, 100_000_000: false} {
		bubble(t, serial.String(), func(t *testing.T) {
			k := emulator.New(emulator.Options{Serial: serial, Firmware: fw5})
			s, r := open(t, k)
			one := slot(t, s, 1)
			config := oldConfig()
			err := one.Program(t.Context(), config)
			if fits {
				if r.Close(); err != nil {
					t.Fatal(err)
				}
				if text, _, _ := k.Touch(false); !strings.HasPrefix(text, "ubhe99999999") {
					t.Fatalf("it types %q", text)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), "program it without one") || sequence(t, s) != 0 {
				t.Fatal(err)
			}
			config.TokenIdentifier = false
			if err := one.Program(t.Context(), config); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestSlotNumbers(t *testing.T) {
	for _, n := range []int{-1, 0, 3} {
		if _, err := otpslot.New(nil).Slot(n); err == nil {
			t.Errorf("there is a slot %d", n)
		}
	}
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := open(t, newKey(fw5))
		one := slot(t, s, 1)
		for name, spoil := range map[string]func(*device.HOTPConfig){
			"no seed":         func(c *device.HOTPConfig) { c.Seed = secret.Secret{} },
			"long seed":       func(c *device.HOTPConfig) { c.Seed = secret.Random(21) },
			"7 digits":        func(c *device.HOTPConfig) { c.Digits = 7 },
			"odd counter":     func(c *device.HOTPConfig) { c.StartCounter = 17 },
			"high counter":    func(c *device.HOTPConfig) { c.StartCounter = device.MaxStartCounter + 16 },
			"new code of 5":   func(c *device.HOTPConfig) { c.NewAccessCode = secret.Random(5) },
			"current of 7":    func(c *device.HOTPConfig) { c.CurrentAccessCode = secret.Random(7) },
			"current of many": func(c *device.HOTPConfig) { c.CurrentAccessCode = secret.Random(100) },
		} {
			config := oldConfig()
			spoil(&config)
			if err := one.Program(t.Context(), config); err == nil || r.writes != 0 {
				t.Errorf("%s: %v, %d writes", name, err, r.writes)
			}
		}
		for _, n := range []int{1, 5, 7, 100} {
			if err := one.Delete(t.Context(), secret.Random(n)); err == nil || r.writes != 0 {
				t.Errorf("deletion with a code of %d bytes: %v", n, err)
			}
		}
	})
}

// The sequence is one byte: after 255 comes 0, which here does not mean that the slots are empty.
func TestSequenceWraps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := open(t, newKey(fw5))
		one := slot(t, s, 1)
		for i := range 258 {
			if err := one.Program(t.Context(), device.HOTPConfig{Seed: oldSeed, Digits: 6}); err != nil {
				t.Fatalf("write %d: %v", i, err)
			}
			if got := sequence(t, s); got != byte(i+1) {
				t.Fatalf("sequence %d after write %d", got, i)
			}
		}
	})
}

func TestDeletionOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := open(t, newKey(fw5))
		for range 2 {
			if err := slot(t, s, 2).Delete(t.Context(), codeA); err != nil || r.writes != 0 {
				t.Fatalf("%v, %d writes", err, r.writes)
			}
		}
	})
}
