package trace_test

import (
	"testing"

	"tokendesk/device"
	"tokendesk/device/emulator/nitrokeypro"
	"tokendesk/device/trace"
)

var (
	pro     = device.Model{Vendor: device.NitrokeyVendor, Product: 0x4108}
	storage = device.Model{Vendor: device.NitrokeyVendor, Product: 0x4109}
)

// plugged opens an emulated Nitrokey. The hand has it go wrong.
func plugged(m device.Model, fw device.Version) func(*testing.T, *trace.Recorder, device.TokenID) (rig, error) {
	return func(t *testing.T, r *trace.Recorder, token device.TokenID) (rig, error) {
		known, _ := device.FindModel(m.Vendor, m.Product)
		k := nitrokeypro.New(nitrokeypro.Options{Model: known, Serial: 0x5D19, Firmware: fw})
		s := ours.OverReport(device.Info{Vendor: m.Vendor, Product: m.Product}, r.Report(k.Open()))
		slot, err := s.Token(t.Context(), token)
		return rig{slot, func(what string) error {
			fault, n := faultOf(what)
			return k.SetFault(nitrokeypro.Fault(fault), n)
		}}, err
	}
}

var nitrokeys = []scenario{
	{
		name: "nitrokey-pro", note: "a slot is programmed, gives codes, is replaced and erased",
		token: "nk-00005d19/hotp1", model: pro, begin: plugged(pro, device.Version{}),
		do: []act{
			{"", describe}, {"", with(unlock, "admin-pin")}, {"", with(program(func(o *trace.Operation) { o.Counter = 1 }), "admin-pin")},
			{"", code}, {"", code}, {"", describe},
			{"", with(program(func(o *trace.Operation) { o.Seed, o.Digits = "rfc2202-5", 8 }), "admin-pin")}, {"", code},
			{"", with(remove, "admin-pin")}, {"", with(remove, "admin-pin")}, {"", describe}, {"", code},
		},
		want: []string{
			"ok", "state serial=23833 firmware=0.15.0", "ok", "ok", "code 287082", "code 359152",
			"state serial=23833 firmware=0.15.0 configured", "ok", "code 11198472", "ok", "ok",
			"state serial=23833 firmware=0.15.0", "fails other",
		},
	},
	{
		name: "nitrokey-pin", note: "without the admin PIN, and with another one",
		token: "nk-00005d19/hotp2", model: pro, begin: plugged(pro, device.Version{}),
		do: []act{
			{"", unlock}, {"", program(nil)}, {"", with(unlock, "wrong-pin")}, {"", with(unlock, "wrong-pin")}, {"", with(unlock, "admin-pin")},
			{"", with(program(nil), "admin-pin")}, {"", code},
		},
		want: []string{
			"ok", "fails locked", "fails locked", "fails pin 2 admin PIN", "fails pin 1 admin PIN",
			"fails pin 1 admin PIN", "fails pin 1 admin PIN", "fails other",
		},
	},
	{
		name: "nitrokey-old", note: "firmware that takes a slot in one report",
		token: "nk-00005d19/hotp3", model: pro, begin: plugged(pro, device.Version{Minor: 7}),
		do:   []act{{"", describe}, {"", with(program(nil), "admin-pin")}, {"", code}, {"", with(remove, "admin-pin")}},
		want: []string{"ok", "state serial=23833 firmware=0.7.0", "ok", "code 755224", "ok"},
	},
	{
		name: "nitrokey-storage", note: "a slot is programmed and gives codes",
		token: "nk-00005d19/hotp1", model: storage, begin: plugged(storage, device.Version{}),
		do: []act{{"", describe}, {"", with(program(nil), "admin-pin")}, {"", code}, {"", code}, {"", with(remove, "admin-pin")}, {"", describe}},
		want: []string{
			"ok", "state serial=23833 firmware=0.57.0", "ok", "code 755224", "code 287082", "ok",
			"state serial=23833 firmware=0.57.0",
		},
	},
	{
		name: "nitrokey-pulled", note: "it is pulled while a slot is written",
		token: "nk-00005d19/hotp1", model: pro, begin: plugged(pro, device.Version{}),
		do:   []act{{"", describe}, {"pull-before=4", with(program(nil), "admin-pin")}, {"", code}, {"", with(remove, "admin-pin")}},
		want: []string{"ok", "state serial=23833 firmware=0.15.0", "fails gone", "fails gone", "fails gone"},
	},
	{
		name: "nitrokey-damaged", note: "answers are damaged, commands lost, and in the end it is busy for ever",
		token: "nk-00005d19/hotp1", model: pro, begin: plugged(pro, device.Version{}),
		do: []act{
			{"", with(program(nil), "admin-pin")}, {"bad-crc=1", code}, {"drop=1", code}, {"clear", code}, {"stuck-busy", code},
		},
		want: []string{"ok", "ok", "code 755224", "fails timeout", "code 287082", "fails timeout"},
	},
}
