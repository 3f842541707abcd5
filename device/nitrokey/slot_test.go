package nitrokey_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"tokendesk/device"
	"tokendesk/device/emulator/nitrokeypro"
	"tokendesk/vault/secret"
)

func TestIdentify(t *testing.T) {
	each(t, func(t *testing.T, k *nitrokeypro.Token) {
		s, one := open(t, k)
		program(t, one, config())
		got, err := s.Identify(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := device.Identity{
			ID: "nk-00005d19", Serial: serial, Firmware: k.Firmware(),
			Holds: []device.Holding{{Name: "hotp1", Configured: true}, {Name: "hotp2"}, {Name: "hotp3"}},
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("identity %+v, want %+v", got, want)
		}
	})
}

func TestNoSerial(t *testing.T) {
	for name, o := range kinds(t) {
		bubble(t, name, func(t *testing.T) {
			k := nitrokeypro.New(o)
			s, one := open(t, k)
			_, err := s.Identify(t.Context())
			if _, cure := device.Cure(err); cure == "" {
				t.Errorf("error %v, want one with a cure", err)
			}
			if err := one.Program(t.Context(), config()); err == nil {
				t.Error("it programs a device that has no name")
			}
		})
	}
}

func TestTokens(t *testing.T) {
	each(t, func(t *testing.T, k *nitrokeypro.Token) {
		s, _ := open(t, k)
		for _, id := range []device.TokenID{
			"nk-00005d19/hotp0", "nk-00005d19/hotp4", "nk-00005d19/oath:x", "yk-23833/hotp1", "nk-00005d19", "nk-00005d19/hotp01", "",
		} {
			_, err := s.Token(t.Context(), id)
			expectError(t, err, device.ErrNoApplication)
		}
	})
}

// TestProgram programs all slots, each in its own way, and then one in place of another.
func TestProgram(t *testing.T) {
	each(t, func(t *testing.T, k *nitrokeypro.Token) {
		s, one := open(t, k)
		eight, shifted := config(), config()
		eight.Digits, eight.Enter = 8, true
		shifted.StartCounter = 3
		for app, c := range map[string]device.HOTPConfig{"hotp1": config(), "hotp2": eight, "hotp3": shifted} {
			token, err := s.Token(t.Context(), device.AppToken(device.NitrokeyID(serial), app))
			if err != nil {
				t.Fatal(err)
			}
			configured(t, token, false)
			program(t, token, c)
			configured(t, token, true)
			want := codes
			switch app {
			case "hotp2":
				want = []string{"84755224", "94287082", "37359152"} // RFC 4226, appendix D, to 8 digits
			case "hotp3":
				want = codes[3:]
			}
			expectCodes(t, token, want...)
			if token.Emission() != device.Calculated {
				t.Error("its codes are calculated")
			}
		}
		other := config()
		other.Seed = otherSeed
		program(t, one, other)
		got, err := one.Code(t.Context())
		if err != nil || got == codes[0] {
			t.Errorf("code %s after another seed, error %v", got, err)
		}
		program(t, one, config())
		_, again := open(t, k)
		expectCodes(t, again, codes[:2]...)
		_, again = open(t, k)
		expectCodes(t, again, codes[2])
	})
}

func TestSeeds(t *testing.T) {
	old := map[string]bool{"pro-0.7": true}
	for name, o := range kinds(t) {
		bubble(t, name, func(t *testing.T) {
			_, one := open(t, newToken(o))
			for n := 1; n <= device.MaxSeedSize; n++ {
				c := config()
				c.Seed = secret.New([]byte(strings.Repeat("\xA5", n)))
				program(t, one, c)
			}
			program(t, one, config())
			zeros := config()
			zeros.Seed = secret.New(make([]byte, device.MaxSeedSize))
			if err := one.Program(t.Context(), zeros); err == nil {
				t.Error("a seed of zeros only was taken, which leaves the one before")
			}
			expectCodes(t, one, codes[0])

			leading := config()
			leading.Seed = secret.New([]byte("\x002345678901234567890"))
			err := one.Program(t.Context(), leading)
			if !old[name] {
				if err != nil {
					t.Fatal(err)
				}
				expectCodes(t, one, "546076") // oathtool --hotp 0032333435363738393031323334353637383930
				return
			}
			var firmware *device.FirmwareError
			if !errors.As(err, &firmware) || firmware.Need != (device.Version{Minor: 8}) {
				t.Errorf("error %v, want one that wants firmware 0.8", err)
			}
			expectCodes(t, one, codes[1])
		})
	}
}

func TestStartCounters(t *testing.T) {
	for name, o := range kinds(t) {
		bubble(t, name, func(t *testing.T) {
			_, one := open(t, newToken(o))
			for _, counter := range []uint64{1, 9_999_999, 10_000_000, 1<<63 - 1, 1 << 63} {
				c := config()
				c.StartCounter = counter
				err := one.Program(t.Context(), c)
				narrow := name == "storage-53" && counter > 9_999_999
				if (err != nil) != (narrow || counter == 1<<63) {
					t.Errorf("start counter %d: error %v", counter, err)
				}
				if err == nil && counter == 9_999_999 {
					expectCodes(t, one, "368430", "779386") // oathtool --hotp -c 9999999
				}
			}
		})
	}
}

func TestRefusedConfigurations(t *testing.T) {
	k := newToken(nitrokeypro.Options{Timing: &nitrokeypro.Timing{}})
	_, one := open(t, k)
	for what, change := range map[string]func(*device.HOTPConfig){
		"7 digits":           func(c *device.HOTPConfig) { c.Digits = 7 },
		"no seed":            func(c *device.HOTPConfig) { c.Seed = secret.Secret{} },
		"21 bytes":           func(c *device.HOTPConfig) { c.Seed = secret.Random(21) },
		"a token identifier": func(c *device.HOTPConfig) { c.TokenIdentifier = true },
		"an access code":     func(c *device.HOTPConfig) { c.NewAccessCode = adminPIN },
	} {
		c := config()
		change(&c)
		if err := one.Program(t.Context(), c); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	configured(t, one, false)
}

func TestDelete(t *testing.T) {
	each(t, func(t *testing.T, k *nitrokeypro.Token) {
		_, one := open(t, k)
		if err := one.Delete(t.Context(), secret.Secret{}); err != nil {
			t.Errorf("an empty slot: %v", err)
		}
		program(t, one, config())
		expectError(t, one.Delete(t.Context(), secret.Secret{}), device.ErrLocked)
		configured(t, one, true)
		for range 2 {
			if err := one.Delete(t.Context(), adminPIN); err != nil {
				t.Fatal(err)
			}
			configured(t, one, false)
		}
		if _, err := one.Code(t.Context()); err == nil || !strings.Contains(err.Error(), "the slot is empty") {
			t.Errorf("a code of an empty slot: %v", err)
		}
	})
}

// TestEditorsLeftover writes after a program that was interrupted between the two pieces of a long seed.
func TestEditorsLeftover(t *testing.T) {
	k := newToken(nitrokeypro.Options{Timing: &nitrokeypro.Timing{}})
	other := &raw{t: t, k: k}
	other.command(0x07, append([]byte("12345678"), make([]byte, 17)...), []byte(strings.Repeat("t", 25)))
	other.command(0x17, []byte(strings.Repeat("t", 25)), []byte{'S', 1}, []byte(strings.Repeat("\xFF", 10)))
	_, one := open(t, k)
	program(t, one, config())
	expectCodes(t, one, codes[:3]...)
}
