//go:build guest

package e2e

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
)

const deaths = 20

// keyboardDriver is the kernel driver of the OTP keyboard on a port; empty if it has none.
func keyboardDriver(t *testing.T, port string) string {
	t.Helper()
	target, err := os.Readlink("/sys/bus/usb/devices/" + port + ":1.0/driver")
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Base(target)
}

// The daemon is killed while it captures, so that the key's keyboard has no driver. The next start, without root,
// gives it back to the kernel, and what is typed arrives.
func TestKilledWithTheKeyOpen(t *testing.T) {
	const s device.Serial = 40000001
	d := start(t, present(s))
	if err := d.AwaitKeys(d.bounded(), s); err != nil {
		t.Fatal(err)
	}
	d.enroll(s)
	port := d.port(s)
	back := 0
	for range deaths {
		d.killWhileCapturing(s)
		if driver := keyboardDriver(t, port); driver != "" {
			t.Fatalf("after the kill the keyboard has the driver %s: nothing is there to recover", driver)
		}
		if err := d.StartDaemon(); err != nil {
			t.Fatal(err)
		}
		if err := d.AwaitKeys(d.bounded(), s); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Touch(d.bounded(), s, true, 1); err != nil {
			t.Fatalf("after the restart: %v (driver %q)", err, keyboardDriver(t, port))
		}
		back++
	}
	figure("kill9_keyboard_back", float64(back))

	d.killWhileCapturing(s)
	d.remove(s)
	if err := d.Emulator.Insert(d.bounded(), s.String()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Touch(d.bounded(), s, true, 1); err != nil {
		t.Fatalf("after the next insertion: %v", err)
	}
}

// killWhileCapturing ends the daemon as a power cut would, when it waits for a touch.
func (d *desk) killWhileCapturing(s device.Serial) {
	d.Helper()
	ctx, cancel := context.WithCancel(d.bounded())
	defer cancel()
	_, err := d.Client.Work(ctx, tokenPath(s)+"/resync", api.Codes{Capture: true}, func(p api.Progress) {
		if p.Kind == "touch" {
			d.KillDaemon()
		}
	})
	if err == nil {
		d.Fatal("the daemon survived its death")
	}
}
