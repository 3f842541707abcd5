package device_test

import (
	"strings"
	"testing"

	"tokendesk/device"
)

func TestTokenNames(t *testing.T) {
	for _, c := range []struct {
		id      device.TokenID
		device  device.ID
		family  device.Family
		slot    int
		serial  device.Serial
		central string
	}{
		{"yk-12345678/otp2", "yk-12345678", device.YubiKey, 2, 12345678, "YK12345678-2"},
		{"yk-12345678/oath:alice.b-2", "yk-12345678", device.YubiKey, 0, 12345678, "YK12345678-OATH-ALICE.B-2"},
		{"yk-12345678/piv", "yk-12345678", device.YubiKey, 0, 12345678, ""},
		{"nk-00005d19/hotp3", "nk-00005d19", device.Nitrokey, 0, 0x5D19, "NK00005D19-3"},
		{"nk-ffffffff/oath:a", "nk-ffffffff", device.Nitrokey, 0, 0xFFFFFFFF, "NKFFFFFFFF-OATH-A"},
		{"fob-2308001", "fob-2308001", device.Fob, 0, 0, "FOB2308001"},
		{"fob-0023zz", "fob-0023zz", device.Fob, 0, 0, "FOB0023ZZ"},
		{"mail-17", "mail-17", device.Mail, 0, 0, ""},
		{"phone-4294967295", "phone-4294967295", device.Phone, 0, 0, ""},
	} {
		id, err := device.ParseTokenID(string(c.id))
		serial, _ := id.Device().Serial()
		if err != nil || id.Device() != c.device || id.Device().Family() != c.family || id.Slot() != c.slot || serial != c.serial || id.Central() != c.central {
			t.Errorf("%s: %s, %s, slot %d, serial %d, %q, %v", c.id, id.Device(), id.Device().Family(), id.Slot(), serial, id.Central(), err)
		}
		if back, ok := device.ParseCentral(strings.ToLower(c.central)); ok != (c.central != "") || ok && back != c.id {
			t.Errorf("%s: its central name is that of %s, %v", c.id, back, ok)
		}
	}
	if id := device.SlotToken(device.YubiKeyID(12345678), 2); id != "yk-12345678/otp2" {
		t.Errorf("built as %s", id)
	}
	if id, err := device.FobToken("ZZ01"); err != nil || id != "fob-zz01" {
		t.Errorf("%s, %v", id, err)
	}
	for _, wrong := range []string{
		"", "-", "yk-12345678", "yk-12345678/", "yk-12345678/otp3", "yk-12345678/otp2 ", "yk-0123/otp1", "yk-4294967296/otp1", "yk-99999999999/otp1",
		"nk-1/otp1", "nk-00005d19/otp1", "nk-00005d19/piv", "nk-5d19/hotp1", "nk-00005D19/hotp1", "nk-00005d19/hotp4", "nk-00005d19/hotp", "yk-1/hotp1",
		"yk-1/oath", "yk-1/oath:", "yk-1/oath:A", "yk-1/oath:-a", "yk-1/oath:a.", "yk-1/oath:a/b", "yk-1/oath:a:b", "yk-1/oath:" + strings.Repeat("a", 33), "yk-/otp1", "yk-1/otp1\n", "../yk-1/otp1", "yk-1/otp1/otp2",
		"fob-", "fob-ZZ01", "fob-1/otp1", "fob-1/token", "fob-1 ", "fob-" + strings.Repeat("1", 21), "fob-ä", "mail-", "mail-01", "mail-x", "phone-4294967296", "mail-1/x",
	} {
		if id, err := device.ParseTokenID(wrong); err == nil {
			t.Errorf("%q is taken as %s", wrong, id)
		}
	}
	for _, wrong := range []string{"", "YK", "FOB", "YK1", "YK1-", "YK1-3", "YK01-1", "YK-1", "XX1-1", "YK1-1-1", "hotp6", "YK99999999999-1", "ÿ1-1", "FOB-1", "MAIL1", "alice", "NK5D19-1", "NK00005D19-4", "NK00005D19-", "NK00005D19-OATH-", "YK1-OATH", "YK1-OATH-ä", "YK1-PIV"} {
		if id, ok := device.ParseCentral(wrong); ok {
			t.Errorf("%q is taken as %s", wrong, id)
		}
	}
}

func FuzzParseTokenID(f *testing.F) {
	for _, name := range []string{"yk-12345678/otp2", "yk-4294967295/otp1", "fob-2308001", "mail-1", "phone-9", "yk-1/oath:a-b", "nk-00005d19/hotp1", "nk-00005d19/oath:a"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := device.ParseTokenID(s)
		if err != nil {
			return
		}
		if string(id) != s || strings.ContainsAny(s, "\x00 \n") {
			t.Errorf("%q became %s", s, id)
		}
		if back, ok := device.ParseCentral(id.Central()); ok != (id.Central() != "") || ok && back != id {
			t.Errorf("%s is %q centrally, and that is %s", id, id.Central(), back)
		}
	})
}
