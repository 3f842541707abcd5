//go:build guest

package e2e

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
	"tokendesk/device"
	"tokendesk/device/nitrokey"
	"tokendesk/device/usbhid"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault/secret"
)

const (
	proSerial = "00005d19"
	proPIN    = "12345678"
)

var errSeen = errors.New("it was seen")

// nitrocli is what Debian has for these keys: libnitrokey, by way of hidapi and libusb.
func nitrocli(t *testing.T, as *syscall.Credential, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nitrocli", args...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=/", "NITROCLI_NO_CACHE=1", "NITROCLI_ADMIN_PIN=" + proPIN}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// pro waits until the kernel's USB has a Nitrokey, and opens it.
func pro(t *testing.T) (device.Report, *nitrokey.Session) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, errors.New("no Nitrokey is seen"))
	defer cancel()
	watch, end := context.WithCancelCause(ctx)
	var bus usbhid.Bus
	var found device.Info
	_ = bus.Watch(watch, func(e device.Event) {
		if found = e.Info; !e.Removed {
			end(errSeen)
		}
	})
	if cause := context.Cause(watch); !errors.Is(cause, errSeen) {
		t.Fatal(cause)
	}
	m, known := device.FindModel(found.Vendor, found.Product)
	if !known || m.Name != "Nitrokey Pro" || !found.Emulated || found.Problem != "" {
		t.Fatalf("%+v", found)
	}
	r, err := bus.Open(ctx, found.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, nitrokey.New(r, m)
}

// TestNitrokeyOnUSB has the desk, which is not root, see a Nitrokey Pro on USB. What libnitrokey writes into it our driver reads,
// and the other way round.
func TestNitrokeyOnUSB(t *testing.T) {
	d := startWith(t, world.Options{Nitrokeys: []string{"serial=" + proSerial}, Officer: officer})
	if err := d.AwaitDevices(d.bounded(), "nk-"+proSerial); err != nil {
		t.Fatal(err)
	}
	if found := d.doctor(); slices.ContainsFunc(found, func(f api.Finding) bool { return !f.OK }) {
		t.Errorf("the doctor finds %+v", found)
	}
	ask := func(args ...string) string {
		t.Helper()
		out, err := nitrocli(t, officer, args...)
		if err != nil {
			t.Fatalf("nitrocli %q: %v\n%s", args, err, out)
		}
		return out
	}
	for _, want := range []string{"model:             Pro", "serial number:     0x" + proSerial, "firmware version:  0.15", "admin retry count: 3"} {
		if said := ask("status"); !strings.Contains(said, want) {
			t.Errorf("nitrocli status does not say %q:\n%s", want, said)
		}
	}
	if said, err := nitrocli(t, eve, "status"); err == nil {
		t.Errorf("eve reaches it:\n%s", said)
	}
	ask("config", "set", "--no-otp-pin") // it takes the flag of a new one, FF, for a wish for the user PIN
	ask("otp", "set", "0", "theirs", "--algorithm", "hotp", "--digits", "6", "--counter", "3", "--format", "ascii", rfcSeed)

	seed := secret.New([]byte(rfcSeed))
	r, s := pro(t)
	if id, err := s.Identify(t.Context()); err != nil || id.ID != "nk-"+proSerial {
		t.Fatalf("%+v, %v", id, err)
	}
	if said, err := nitrocli(t, officer, "status"); err == nil {
		t.Errorf("nitrocli reaches what we hold:\n%s", said)
	}
	token := func(app string) device.HOTPToken {
		t.Helper()
		token, err := s.Token(t.Context(), device.AppToken("nk-"+proSerial, app))
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	theirs, ours, empty := token("hotp1"), token("hotp2"), token("hotp3")
	for n := range uint64(2) {
		if code, err := theirs.Code(t.Context()); err != nil || code != hotpscan.Code(seed, 6, 3+n) {
			t.Errorf("what libnitrokey wrote gives %q, %v", code, err)
		}
	}
	pin := secret.New([]byte(proPIN))
	if err := ours.Program(t.Context(), device.HOTPConfig{Seed: seed, Digits: 8, StartCounter: 5, CurrentAccessCode: pin}); err != nil {
		t.Fatal(err)
	}
	if err := theirs.Delete(t.Context(), pin); err != nil {
		t.Fatal(err)
	}
	if state, err := empty.Describe(t.Context()); err != nil || state.Configured {
		t.Errorf("an empty slot: %+v, %v", state, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}

	for n := range uint64(2) {
		if said, want := strings.TrimSpace(ask("otp", "get", "1", "--algorithm", "hotp")), hotpscan.Code(seed, 8, 5+n); said != want {
			t.Errorf("of what we wrote libnitrokey reads %q, not %s", said, want)
		}
	}
	if said := ask("otp", "status", "--all"); strings.Contains(said, "theirs") {
		t.Errorf("what we erased is still there:\n%s", said)
	}

	d.enrollNitrokey("hotp3")
	if said := strings.TrimSpace(ask("otp", "get", "2", "--algorithm", "hotp")); len(said) != 6 || strings.Trim(said, "0123456789") != "" {
		t.Errorf("of what the desk wrote libnitrokey reads %q", said)
	}
	if said := ask("status"); !strings.Contains(said, "admin retry count: 3") {
		t.Errorf("a try was lost:\n%s", said)
	}

	r, s = pro(t)
	if _, err := s.Identify(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.Emulator.Remove(d.bounded(), proSerial); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Identify(t.Context()); !errors.Is(err, device.ErrGone) {
		t.Errorf("pulled: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// enrollNitrokey has the desk learn the admin PIN and program a slot, whose codes it verifies.
func (d *desk) enrollNitrokey(app string) {
	d.Helper()
	var learnt api.Outcome
	if err := d.Client.PostSecret(d.bounded(), "/v1/tokens/nk-"+proSerial+"/"+app+"/password", nil, &learnt, secret.New([]byte(proPIN))); err != nil {
		d.Fatal(err)
	}
	enroll := api.Enroll{Device: "nk-" + proSerial, App: app, User: "alice", Digits: 6}
	if _, err := d.Client.Work(d.bounded(), "/v1/enroll", enroll, func(api.Progress) {}); err != nil {
		d.Fatal(err)
	}
	keys, err := d.Emulator.List(d.bounded())
	if err != nil || !slices.Contains(keys[0].Holds, app) {
		d.Fatalf("after its enrollment: %+v, %v", keys, err)
	}
}
