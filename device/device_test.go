package device_test

import (
	"strings"
	"testing"

	"tokendesk/device"
	"tokendesk/vault/secret"
)

func TestVersion(t *testing.T) {
	order := []string{"1.3.9", "2.0.0", "2.1.0", "2.1.1", "5.2.7", "5.4.3", "5.10.0"}
	for i, a := range order {
		v, err := device.ParseVersion(a)
		if err != nil || v.String() != a {
			t.Fatalf("%s became %s, %v", a, v, err)
		}
		for j, b := range order {
			w, _ := device.ParseVersion(b)
			if v.Less(w) != (i < j) {
				t.Errorf("%s before %s: %v", a, b, v.Less(w))
			}
		}
	}
	for _, wrong := range []string{"", "5", "5.4", "5.4.3.1", "5.4.x", "256.0.0", "-1.0.0", "5..3"} {
		if v, err := device.ParseVersion(wrong); err == nil {
			t.Errorf("%q is taken as %s", wrong, v)
		}
	}
}

func TestModels(t *testing.T) {
	seen := map[uint32]bool{}
	for _, m := range device.Models {
		key := uint32(m.Vendor)<<16 | uint32(m.Product)
		if seen[key] || m.Name == "" || m.Capabilities == 0 {
			t.Errorf("%04x:%04x is there twice, or says nothing", m.Vendor, m.Product)
		}
		seen[key] = true
		if found, ok := device.FindModel(m.Vendor, m.Product); !ok || found != m {
			t.Errorf("%04x:%04x is not found", m.Vendor, m.Product)
		}
	}
	// yubikey-manager, core/__init__.py: these have the OTP interface, and no other does.
	for product, otp := range map[uint16]bool{
		0x0010: true, 0x0110: true, 0x0111: true, 0x0114: true, 0x0116: true, 0x0401: true, 0x0403: true, 0x0405: true, 0x0407: true, 0x0410: true,
		0x0112: false, 0x0113: false, 0x0115: false, 0x0120: false, 0x0402: false, 0x0404: false, 0x0406: false,
	} {
		if m, ok := device.FindModel(device.YubicoVendor, product); !ok || m.Has(device.OTP) != otp {
			t.Errorf("1050:%04x: OTP %v, known %v", product, m.Has(device.OTP), ok)
		}
	}
	if _, ok := device.FindModel(0x1234, 0x0407); ok {
		t.Error("another vendor's device is known")
	}
}

func TestHOTPConfigValidate(t *testing.T) {
	good := func() device.HOTPConfig {
		return device.HOTPConfig{Seed: secret.Random(20), Digits: 6, NewAccessCode: secret.Random(6)}
	}
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for words, spoil := range map[string]func(*device.HOTPConfig){
		"this one has 0":  func(c *device.HOTPConfig) { c.Seed = secret.Secret{} },
		"this one has 21": func(c *device.HOTPConfig) { c.Seed = secret.Random(21) },
		"not 7":           func(c *device.HOTPConfig) { c.Digits = 7 },
	} {
		c := good()
		spoil(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error()+" ", words) {
			t.Errorf("%q is not said: %v", words, err)
		}
	}
}

func TestApplications(t *testing.T) {
	types, central := map[string]bool{}, map[string]bool{}
	for _, a := range device.Applications {
		types[a.Type] = true
		if a.Label == "" || len(a.Faces) == 0 || a.HOTP != (a.Central != "") || a.HOTP != (device.Types[a.Type] != device.Type{}) || a.HOTP != (a.CounterStep != 0) {
			t.Errorf("the row of %s/%s is not complete: %+v", a.Family, a.Name, a)
		}
		if a.HOTP && central[string(a.Family)+a.Central] {
			t.Errorf("two applications of %s have the central name %s", a.Family, a.Central)
		}
		central[string(a.Family)+a.Central] = true
	}
	for code := range device.Types {
		if !types[code] {
			t.Errorf("no application is of the type %s", code)
		}
	}
	for id, keeper := range map[device.TokenID]device.TokenID{
		"yk-1/otp2": "yk-1/otp2", "yk-1/oath:alice": "yk-1/oath", "nk-00005d19/hotp3": "nk-00005d19/hotp", "nk-00005d19/oath:b": "nk-00005d19/oath",
		"yk-1/piv": "yk-1/piv", "fob-1": "fob-1",
	} {
		if got := id.Keeper(); got != keeper || keeper.IsKeeper() != (keeper != id) || id.IsKeeper() {
			t.Errorf("%s is kept by %s, not %s", id, got, keeper)
		}
	}
	for id, place := range map[device.TokenID]string{"yk-1/otp2": "slot 2", "yk-1/oath:alice": "OATH credential alice", "nk-00005d19/hotp3": "HOTP slot 3"} {
		if got := id.Place(); got != place {
			t.Errorf("%s is at %q, not %q", id, got, place)
		}
	}
}

func TestApplicationCheck(t *testing.T) {
	for _, c := range []struct {
		token device.TokenID
		start uint64
		words string // empty: it is taken
	}{
		{"yk-1/otp2", 16, ""}, {"yk-1/otp2", device.MaxStartCounter, ""}, {"yk-1/otp2", 8, "a multiple of 16"}, {"yk-1/otp2", device.MaxStartCounter + 16, "up to 1048560"},
		{"yk-1/oath:a", 1, ""}, {"yk-1/oath:a", 1<<32 - 1, ""}, {"yk-1/oath:a", 1 << 32, "at most 4294967295"},
		{"nk-00005d19/hotp1", 1 << 40, ""}, {"yk-1/piv", 0, "takes no HOTP seed"},
	} {
		row, _ := device.ApplicationOf(c.token)
		err := row.Check(device.HOTPConfig{Seed: secret.Random(20), Digits: 6, StartCounter: c.start})
		if (err == nil) != (c.words == "") || err != nil && !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s from %d: %v", c.token, c.start, err)
		}
	}
	row, _ := device.ApplicationOf("nk-00005d19/hotp1")
	if err := row.Check(device.HOTPConfig{Seed: secret.Random(20), Digits: 6, TokenIdentifier: true}); err == nil {
		t.Error("a Nitrokey is to type a token identifier")
	}
}
