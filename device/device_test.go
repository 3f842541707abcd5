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
		"this one has 0":       func(c *device.HOTPConfig) { c.Seed = secret.Secret{} },
		"this one has 21":      func(c *device.HOTPConfig) { c.Seed = secret.Random(21) },
		"not 7":                func(c *device.HOTPConfig) { c.Digits = 7 },
		"not 8 ":               func(c *device.HOTPConfig) { c.StartCounter = 8 },
		"1048560, not":         func(c *device.HOTPConfig) { c.StartCounter = device.MaxStartCounter + 16 },
		"an access code has 6": func(c *device.HOTPConfig) { c.CurrentAccessCode = secret.Random(5) },
	} {
		c := good()
		spoil(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error()+" ", words) {
			t.Errorf("%q is not said: %v", words, err)
		}
	}
}
