package localapi_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
	"tokendesk/device"
	"tokendesk/device/drivers"
	"tokendesk/device/trace"
)

// tracePath is that of recording a slot of the key.
func tracePath(slot int) string {
	return "/v1/tokens/" + string(device.SlotToken(device.YubiKeyID(keySerial), slot)) + "/trace"
}

func (d *desk) trace(slot int, in api.RecordTrace, tell func(api.Progress)) (api.Outcome, error) {
	d.Helper()
	return d.Client.Work(d.Context(), tracePath(slot), in, tell)
}

var published = api.RecordTrace{Seed: "rfc4226", Digits: 6}

// What was recorded can be repeated without the key, and nothing of it is left on the key or in the inventory.
func TestRecordTrace(t *testing.T) {
	d := start(t, world.Options{NoCentral: true})
	out, err := d.trace(1, published, d.touch)
	d.must(nil, err)
	recorded, err := trace.Parse([]byte(out.Trace))
	d.must(nil, err)
	var came []string
	for _, s := range recorded.Steps {
		came = append(came, s.Outcome)
	}
	state := "state serial=" + keySerial.String() + " firmware=5.4.3"
	if want := []string{"ok", state, "ok", "code 755224", "code 287082", "ok", state}; !slices.Equal(came, want) {
		t.Errorf("the steps came to %q, not %q", came, want)
	}
	if !recorded.Emulated || recorded.Token != device.SlotToken(device.YubiKeyID(keySerial), 1) || recorded.Product != 0x0407 {
		t.Errorf("it is said to be of %+v", recorded.Header)
	}
	synctest.Test(t, func(t *testing.T) {
		if err := recorded.Replay(t.Context(), trace.Drivers{OverReport: drivers.OverReport, OverCard: drivers.OverCard}); err != nil {
			t.Error(err)
		}
	})
	var inserted api.Keys
	d.get("/v1/devices", &inserted)
	if len(inserted.Keys) != 1 || inserted.Keys[0].Slots[0].Configured || inserted.Keys[0].Slots[0].Token == "" {
		t.Errorf("the key: %+v", inserted.Keys)
	}
	d.recorded("trace", "done")
	_, err = d.Client.Work(d.Context(), "/v1/tokens/mail-1/token/trace", published, d.touch)
	d.expect(err, api.Refused, "is not programmed with a seed")
	_, err = d.trace(1, api.RecordTrace{Seed: "mine", Digits: 6}, d.touch)
	d.expect(err, api.Invalid, "seed")
}

// What somebody has on a key is not lost unless that is said, and not at all if it is the desk's.
func TestTraceOverwritesNothing(t *testing.T) {
	d := start(t, world.Options{NoCentral: true})
	d.enroll()
	for _, in := range []api.RecordTrace{published, {Seed: "rfc4226", Digits: 6, Overwrite: true}} {
		_, err := d.trace(2, in, d.touch)
		d.expect(err, api.Refused, "is in the inventory")
	}
	_, err := d.trace(1, published, func(p api.Progress) {
		if p.Kind == "touch" { // that of the other slot, which the desk knows
			d.must(nil, d.Press(t.Context(), keySerial, true))
		}
	})
	d.expect(err, api.NotVerified, "thrown away; nothing was kept, and the token is erased")
	if out, err := d.trace(1, published, d.touch); err != nil || out.Trace == "" {
		t.Errorf("after it was erased: %v", err)
	}
}

// A record that ends with a pulled key says that its seed may still be there, and the next one can take it away.
func TestTraceOfPulledKey(t *testing.T) {
	d := start(t, world.Options{NoCentral: true})
	_, err := d.trace(1, published, func(p api.Progress) {
		if p.Kind == "touch" {
			d.must(nil, d.Emulator.Remove(t.Context(), "emu1"))
		}
	})
	d.expect(err, api.Device, "may have a published seed now")
	d.must(nil, d.Emulator.Insert(t.Context(), "emu1"))
	d.must(nil, d.AwaitKeys(t.Context(), keySerial))
	_, err = d.trace(1, published, d.touch)
	d.expect(err, api.Refused, "there is something in slot 1 of "+string(device.YubiKeyID(keySerial)))
	out, err := d.trace(1, api.RecordTrace{Seed: "rfc2202-2", Digits: 8, Overwrite: true}, d.touch)
	d.must(nil, err)
	if !strings.Contains(out.Trace, "\nis fails rejected\n") || !strings.Contains(out.Trace, "current=code-a\n") {
		t.Errorf("it had an access code, of which nothing is said:\n%s", out.Trace)
	}
}

// A Nitrokey is recorded with the admin PIN that it has left the factory with.
func TestTraceOfNitrokey(t *testing.T) {
	d := start(t, world.Options{NoCentral: true, Nitrokeys: []string{"serial=00005d19"}})
	d.must(nil, d.AwaitDevices(t.Context(), "nk-00005d19"))
	out, err := d.Client.Work(d.Context(), "/v1/tokens/nk-00005d19/hotp3/trace", published, d.touch)
	d.must(nil, err)
	for _, line := range []string{"reports 20a0:4108 emulated", "do unlock\nis fails locked", "do unlock current=admin-pin", "is code 755224", "is code 287082"} {
		if !strings.Contains(out.Trace, line+"\n") {
			t.Errorf("%q is not in it", line)
		}
	}
	recorded, err := trace.Parse([]byte(out.Trace))
	d.must(nil, err)
	synctest.Test(t, func(t *testing.T) {
		if err := recorded.Replay(t.Context(), trace.Drivers{OverReport: drivers.OverReport, OverCard: drivers.OverCard}); err != nil {
			t.Error(err)
		}
	})
}

// Who hangs up leaves nothing behind.
func TestHangingUpInATrace(t *testing.T) {
	d := start(t, world.Options{NoCentral: true})
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	_, err := d.Client.Work(ctx, tracePath(2), published, func(p api.Progress) {
		if p.Kind == "touch" {
			hangUp()
		}
	})
	d.expect(err, api.Unfinished, "interrupted")
	// The daemon learns of it when it likes: whoever works on the token until then is told so.
	for {
		if _, err = d.trace(2, published, d.touch); err == nil || !strings.Contains(err.Error(), "another officer's work") {
			break
		}
	}
	d.must(nil, err) // without --overwrite
}
