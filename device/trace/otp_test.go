package trace_test

import (
	"errors"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/emulator"
	"tokendesk/device/trace"
)

// keyboard opens an emulated YubiKey by its keyboard. The hand touches it, or has it go wrong.
func keyboard(t *testing.T, r *trace.Recorder, token device.TokenID) (rig, error) {
	k := emulator.New(emulator.Options{Serial: serial, Firmware: fw5})
	report, err := k.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { report.Close() })
	s := ours.OverReport(device.Info{Vendor: yubiKey.Vendor, Product: yubiKey.Product}, r.Report(report))
	slot, err := s.Token(t.Context(), token)
	return rig{slot, func(what string) error {
		switch what {
		case "short", "long":
			_, _, err := k.Touch(what == "long")
			return err
		case "twice":
			_, _, err := k.Touch(true)
			_, _, worse := k.Touch(true)
			return errors.Join(err, worse)
		}
		fault, n := faultOf(what)
		return k.SetFault(emulator.Fault(fault), n)
	}}, err
}

var typed = []scenario{
	{
		name: "otp2", note: "a slot is programmed, gives codes, gets another seed, and is erased",
		token: "yk-12345678/otp2", model: yubiKey, begin: keyboard,
		do: []act{
			{"", describe},
			{"", program(func(o *trace.Operation) { o.Digits, o.Counter, o.Identifier, o.New = 8, 16, true, "code-a" })},
			{"long", code},
			{"long", code},
			{"", describe},
			{"", program(func(o *trace.Operation) { o.Seed, o.Current, o.New = "rfc2202-5", "code-a", "code-b" })},
			{"long", code},
			{"", with(remove, "code-b")},
			{"", describe},
			{"", remove},
		},
		want: []string{
			"ok", "state serial=12345678 firmware=5.4.3", "ok", "code 22186581", "code 94447589",
			"state serial=12345678 firmware=5.4.3 configured", "ok", "code 198472", "ok", "state serial=12345678 firmware=5.4.3", "ok",
		},
	},
	{
		name: "otp1-code", note: "writes without the access code, or with another one, are refused",
		token: "yk-12345678/otp1", model: yubiKey, begin: keyboard,
		do: []act{
			{"", program(func(o *trace.Operation) { o.New = "code-a" })},
			{"", program(nil)},
			{"", with(program(nil), "code-b")},
			{"", remove},
			{"", with(remove, "code-b")},
			{"short", code},
			{"", with(remove, "code-a")},
		},
		want: []string{"ok", "ok", "fails rejected", "fails rejected", "fails rejected", "fails rejected", "code 755224", "ok"},
	},
	{
		name: "otp2-line", note: "codes without Enter: one, two at once, and none",
		token: "yk-12345678/otp2", model: yubiKey, begin: keyboard,
		do: []act{
			{"", program(func(o *trace.Operation) { o.Enter, o.Digits, o.Seed = false, 8, "rfc2202-2" })},
			{"long", code},
			{"twice", code},
			{"", trace.Operation{Verb: trace.Code, Within: 2 * time.Second}},
		},
		want: []string{"ok", "ok", "code 19641395", "fails not-a-code", "fails no-touch"},
	},
	{
		name: "otp2-pulled", note: "it is pulled while a chunk is sent",
		token: "yk-12345678/otp2", model: yubiKey, begin: keyboard,
		do:   []act{{"", describe}, {"unplug-at-chunk=4", program(nil)}, {"", describe}, {"", code}, {"", remove}},
		want: []string{"ok", "state serial=12345678 firmware=5.4.3", "fails gone", "fails gone", "fails gone", "fails gone"},
	},
	{
		name: "otp1-pulled", note: "it is pulled when it has written",
		token: "yk-12345678/otp1", model: yubiKey, begin: keyboard,
		do:   []act{{"unplug-after-write", program(nil)}, {"", describe}},
		want: []string{"ok", "fails gone", "fails gone"},
	},
	{
		name: "otp2-reclaim", note: "answers are damaged at first", token: "yk-12345678/otp2", model: yubiKey, begin: keyboard,
		do:   []act{{"bad-crc=2", describe}, {"", describe}},
		want: []string{"ok", "state serial=12345678 firmware=5.4.3", "state serial=12345678 firmware=5.4.3"},
	},
	{
		name: "otp2-hidden", note: "the serial is never told", token: "yk-12345678/otp2", model: yubiKey, begin: keyboard,
		do:   []act{{"serial-hidden", describe}, {"", program(nil)}},
		want: []string{"ok", "fails other", "ok"},
	},
	{
		name: "otp2-stuck", note: "it is busy for ever", token: "yk-12345678/otp2", model: yubiKey, begin: keyboard,
		do:   []act{{"", describe}, {"stuck-flag", program(nil)}, {"clear", program(nil)}},
		want: []string{"ok", "state serial=12345678 firmware=5.4.3", "fails timeout", "ok"},
	},
	{
		name: "otp2-refused", note: "a write is refused that has nothing wrong",
		token: "yk-12345678/otp2", model: yubiKey, begin: keyboard,
		do:   []act{{"reject-write", program(nil)}, {"", program(nil)}},
		want: []string{"ok", "fails rejected", "ok"},
	},
}
