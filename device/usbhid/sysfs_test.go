package usbhid

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tokendesk/device"
)

func TestKeysAreListed(t *testing.T) {
	f := newFiles(t)
	f.plugKey("1-1")
	f.plugKey("3-2.4") // behind a hub of a real controller
	f.plug("3-1", "046d", "c31c")
	f.plugInterface("3-1:1.0", "03", "01", "usbhid") // somebody's keyboard
	f.plug("1-2", "1050", "0407")
	f.plugInterface("1-2:2.0", "03", "01", "") // another configuration, and no driver
	keys, err := f.keys()
	if err != nil || len(keys) != 3 {
		t.Fatalf("%+v, %v", keys, err)
	}
	for i, want := range []struct {
		path, node string
		emulated   bool
	}{{"1-1:1.0", "bus/usb/007/002", true}, {"1-2:2.0", "bus/usb/007/005", true}, {"3-2.4:1.0", "bus/usb/007/003", false}} {
		info := device.Info{Path: want.path, Port: portOf(want.path), Vendor: 0x1050, Product: 0x0407, Emulated: want.emulated}
		if keys[i].info != info || keys[i].node != want.node {
			t.Errorf("%+v, not %+v, %s", keys[i], info, want.node)
		}
		if found, ok := f.find(want.path); !ok || found != keys[i] {
			t.Errorf("%s is found as %+v, %v", want.path, found, ok)
		}
	}
	for _, path := range []string{"", "1-1", "1-1:1.1", "1-1:2.0", "1-9:1.0", "no-such-path", "../../devices", "usb1", "3-1:1.0", "1-1/../1-1:1.0"} {
		if k, ok := f.find(path); ok {
			t.Errorf("%q is found as %+v", path, k)
		}
	}
}

// Nitrokeys with slots have their HID interface in various places; what else has their vendors' numbers is not told.
func TestNitrokeysAreListed(t *testing.T) {
	f := newFiles(t)
	f.plug("1-1", "20a0", "4108") // as of firmware 0.15
	f.plugInterface("1-1:1.0", "03", "00", "usbhid")
	f.plugInterface("1-1:1.1", "0b", "00", "")
	f.plug("1-2", "20a0", "4109")
	f.plugInterface("1-2:1.0", "08", "50", "usb-storage")
	f.plugInterface("1-2:1.1", "0b", "00", "")
	f.plugInterface("1-2:1.2", "03", "00", "usbhid")
	f.plug("3-1", "316d", "4c4b") // a keyboard, as old firmware is
	f.plugInterface("3-1:1.0", "03", "01", "usbhid")
	f.plug("3-2", "20a0", "42b2") // a Nitrokey 3: FIDO only
	f.plugInterface("3-2:1.0", "03", "00", "usbhid")
	f.plug("3-3", "20a0", "0001") // somebody else's
	f.plugInterface("3-3:1.0", "03", "01", "usbhid")
	keys, err := f.keys()
	if err != nil || len(keys) != 3 {
		t.Fatalf("%+v, %v", keys, err)
	}
	for i, want := range []device.Info{
		{Path: "1-1:1.0", Port: "1-1", Vendor: 0x20A0, Product: 0x4108, Emulated: true},
		{Path: "1-2:1.2", Port: "1-2", Vendor: 0x20A0, Product: 0x4109, Emulated: true},
		{Path: "3-1:1.0", Port: "3-1", Vendor: 0x316D, Product: 0x4C4B},
	} {
		if k := keys[i]; k.info != want || k.reportSize != 65 {
			t.Errorf("%+v, not %+v", k, want)
		}
		if found, ok := f.find(want.Path); !ok || found != keys[i] {
			t.Errorf("%s is found as %+v, %v", want.Path, found, ok)
		}
	}
	f.plug("1-3", "20a0", "4108")
	f.plugInterface("1-3:1.1", "0b", "00", "")
	if k, ok := f.key("1-3"); !ok || !k.unfinished || !strings.Contains(k.info.Problem, "Nitrokey Pro (20a0:4108) shows no HID interface") {
		t.Errorf("without it: %+v, %v", k, ok)
	}
}

func TestUnusableDevicesSayWhy(t *testing.T) {
	for name, test := range map[string]struct {
		product       string
		change        func(f *files)
		problem, cure string
	}{
		"a stranger":             {"abcd", nil, "1050:abcd", "YubiKey"},
		"a Security Key":         {"0120", nil, "no OTP application", "YubiKey with"},
		"OTP off":                {"0406", nil, "OTP switched off", "ykman config usb --enable OTP"},
		"OTP off, or none":       {"0402", nil, "OTP switched off", "Security Key"},
		"not authorised":         {"0407", func(f *files) { f.write(f.folder("1-1")+"/authorized", "0") }, "not authorised", "usbguard"},
		"a stranger, not let in": {"abcd", func(f *files) { f.write(f.folder("1-1")+"/authorized", "0") }, "not authorised", "usbguard"},
		"no interface":           {"0407", nil, "no OTP keyboard", "pull it"},
		"no keyboard": {"0407", func(f *files) { f.plugInterface("1-1:1.0", "03", "00", "usbhid") },
			"no OTP keyboard", "pull it"},
		"not the first": {"0407", func(f *files) { f.plugInterface("1-1:1.1", "03", "01", "usbhid") },
			"no OTP keyboard", "pull it"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFiles(t)
			f.plug("1-1", "1050", test.product)
			if test.change != nil {
				test.change(f)
			}
			keys, err := f.keys()
			if err != nil || len(keys) != 1 || keys[0].info.Path != "1-1" {
				t.Fatalf("%+v, %v", keys, err)
			}
			if info := keys[0].info; !strings.Contains(info.Problem, test.problem) || !strings.Contains(info.Cure, test.cure) {
				t.Errorf("%s; %s", info.Problem, info.Cure)
			}
		})
	}
}

// What is being removed loses its files one after the other.
func TestHalfRemovedDevices(t *testing.T) {
	for _, file := range []string{"idVendor", "idProduct", "busnum", "devnum", "dev"} {
		f := newFiles(t)
		f.plugKey("1-1")
		f.remove(filepath.Join(f.folder("1-1"), file))
		if keys, err := f.keys(); err != nil || len(keys) != 0 {
			t.Errorf("without %s: %+v, %v", file, keys, err)
		}
	}
}

// A key that cannot be told from an emulated one is not listed.
func TestOriginIsKnown(t *testing.T) {
	f := newFiles(t)
	f.plugKey("1-1")
	f.remove(f.folder("1-1"))
	if err := os.Rename(filepath.Join(f.sys, f.where("1-1")), f.folder("1-1")); err != nil { // no link, which says where it is
		t.Fatal(err)
	}
	if keys, err := f.keys(); err != nil || len(keys) != 0 {
		t.Errorf("%+v, %v", keys, err)
	}
}

func TestMachineWithoutUSB(t *testing.T) {
	f := newFiles(t)
	f.remove(f.sys)
	if _, err := f.keys(); err == nil || !strings.Contains(err.Error(), "this machine has no USB") {
		t.Error(err)
	}
	if err := os.WriteFile(f.sys, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := f.keys(); err == nil {
		t.Error("a file is read as a folder")
	}
}
