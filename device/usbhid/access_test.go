package usbhid

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tokendesk/device"
	"tokendesk/udev"
)

// expectCure checks that an error says what it is, why, and what to do.
func expectCure(t *testing.T, err, is error, why, cure string) {
	t.Helper()
	c, ok := errors.AsType[*device.CureError](err)
	if !ok || is != nil && !errors.Is(err, is) || !strings.Contains(c.Err.Error(), why) || !strings.Contains(c.Cure, cure) {
		t.Errorf("%v, not %v with %q and %q", err, is, why, cure)
	}
}

func TestPermissionSaysWhatIsMissing(t *testing.T) {
	for _, test := range []struct {
		facts     facts
		why, cure string
	}{
		{facts{}, "which does not exist", "addgroup --system tokendesk"},
		{facts{groupExists: true, memberNow: true, member: true}, "not installed, or were not applied", "install 71-tokendesk.rules"},
		{facts{groupExists: true, given: true}, "the group tokendesk, and joe is not in it", "usermod -aG tokendesk joe"},
		{facts{groupExists: true, given: true, member: true}, "started before joe joined it", "log in again"},
		{facts{groupExists: true, given: true, memberNow: true}, "denied to this process", "DeviceAllow"},
	} {
		test.facts.node, test.facts.user = "/dev/bus/usb/001/002", "joe"
		expectCure(t, permission(test.facts), device.ErrPermission, test.why, test.cure)
	}
}

func TestReach(t *testing.T) {
	f := newFiles(t)
	b := newBus(f.tree)
	k := f.plugKey("1-1")
	if c := b.reach(k); c != nil {
		t.Error(c)
	}
	f.remove(b.tree.nodePath(k))
	expectCure(t, b.reach(k), device.ErrGone, "", "insert it")
	f.mkdir(b.tree.nodePath(k)) // what cannot be opened for another reason
	if c := b.reach(k); c == nil || errors.Is(c, device.ErrGone) || errors.Is(c, device.ErrPermission) {
		t.Error(c)
	}
}

func TestFactsAboutANode(t *testing.T) {
	node := filepath.Join(t.TempDir(), "002")
	if err := os.WriteFile(node, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := factsAbout(node)
	if f.user == "" || f.node != node || f.given || !f.groupExists && (f.member || f.memberNow) {
		t.Errorf("%+v", f)
	}
}

func TestHoldersAreNamed(t *testing.T) {
	f := newFiles(t)
	b := newBus(f.tree)
	k, other := f.plugKey("1-1"), f.plugKey("1-2")
	f.process(os.Getpid(), "me", k.node)
	f.process(17, "innocent", other.node)
	expectCure(t, b.busy(k), device.ErrBusy, "may not see", "fuser -v "+f.nodePath(k))
	f.process(40, "pcscd", k.node) // which has the smart card
	expectCure(t, b.busy(k), device.ErrBusy, "may not see", "but not pcscd or scdaemon")
	f.process(4711, "ykman", k.node)
	f.process(42, "gpg", k.node)
	f.link(filepath.Join(f.proc, "42/fd/9"), f.nodePath(k)) // twice
	expectCure(t, b.busy(k), device.ErrBusy, ": gpg (process 42), ykman (process 4711) (have it open)", "end gpg (process 42) or ykman (process 4711),")
}

func TestOpenSaysWhyNot(t *testing.T) {
	// The library finds nothing on bus 9: it looks at the real machine.
	f := newFiles(t)
	b := newBus(f.tree)
	open := func(path string) error {
		t.Helper()
		r, err := b.open(t.Context(), path)
		if r != nil {
			t.Fatalf("%s could be opened", path)
		}
		return err
	}
	expectCure(t, open("no-such-path"), device.ErrGone, "", "insert it")
	expectCure(t, open("9-1:1.0"), device.ErrGone, "cannot open the key", "insert it")

	k := f.plugKey("9-1")
	expectCure(t, open("9-1:1.0"), device.ErrBusy, "a moment ago", "try again")
	f.bind("9-1:1.0", claimed)
	f.process(42, "somebody", k.node)
	expectCure(t, open("9-1:1.0"), device.ErrBusy, "somebody (process 42) (have it open)", "end somebody")
	if taken, _ := b.take(k, hold{}); !taken {
		t.Error("a failed opening holds the key")
	}
	expectCure(t, open("9-1:1.0"), device.ErrBusy, "this very one", "wait")
	b.release(k)
	f.bind("9-1:1.0", "usbhid")
	b.listen = func() (*udev.Monitor, error) { return nil, errors.New("no netlink") }
	expectCure(t, open("9-1:1.0"), device.ErrPermission, "no netlink", "RestrictAddressFamilies")
	f.remove(f.nodePath(k))
	expectCure(t, open("9-1:1.0"), device.ErrGone, "", "insert it")

	f.plug("9-2", "1050", "0120")
	expectCure(t, open("9-2"), nil, "no OTP application", "YubiKey")
}

func TestExamine(t *testing.T) {
	f := newFiles(t)
	b := newBus(f.tree)
	expectCure(t, b.examine(device.Info{Path: "9-1:1.0"}), device.ErrGone, "", "insert it")
	f.plug("9-2", "1050", "0120")
	expectCure(t, b.examine(device.Info{Path: "9-2"}), nil, "no OTP application", "YubiKey")

	k := f.plugKey("9-1")
	if err := b.examine(k.info); err != nil {
		t.Error(err)
	}
	f.bind("9-1:1.0", claimed)
	f.process(42, "somebody", k.node)
	expectCure(t, b.examine(k.info), device.ErrBusy, "somebody (process 42) (have it open)", "end somebody")
	b.take(k, hold{})
	if err := b.examine(k.info); err != nil {
		t.Errorf("held by this process: %v", err)
	}
	b.release(k)
	f.bind("9-1:1.0", "")
	expectCure(t, b.examine(k.info), nil, "no keyboard driver", "modprobe usbhid")
	f.mkdir(filepath.Join(f.sys, "bus/usb/drivers/usbhid"))
	expectCure(t, b.examine(k.info), nil, "driver has lost the key", "wait 2 seconds")
	b.take(k, hold{returned: make(chan struct{})})
	expectCure(t, b.examine(k.info), nil, "driver has lost the key", "wait 2 seconds")
	b.release(k)
	f.remove(f.nodePath(k))
	expectCure(t, b.examine(k.info), device.ErrGone, "", "insert it")
}
