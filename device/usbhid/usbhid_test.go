package usbhid

import (
	"context"
	"errors"
	"os"
	"testing"

	"tokendesk/device"
)

func TestPortOf(t *testing.T) {
	for path, want := range map[string]string{"1-1:1.0": "1-1", "3-2.4:1.0": "3-2.4", "1-1": "1-1"} {
		if got := portOf(path); got != want {
			t.Errorf("%s is on port %s, want %s", path, got, want)
		}
	}
}

func TestCheckSize(t *testing.T) {
	for n := range 12 {
		if err := checkSize(make([]byte, n)); (err == nil) != (n == device.ReportSize) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if checkSize([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0}) == nil {
		t.Error("report number 1 is taken")
	}
}

// Whatever this machine has: either keys are watched until the context ends, or the reason is named.
func TestWatchSaysWhyNothingIsSeen(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*lookPeriod)
	defer cancel()
	err := Bus{}.Watch(ctx, func(device.Event) {})
	_, statErr := os.Stat(sysfs)
	if hasUSB := statErr == nil; hasUSB != errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("this machine has USB: %v; watching it ended with: %v", hasUSB, err)
	}
	if err == nil || err.Error() == "" {
		t.Fatal("no reason is named")
	}
}

func TestOpenOfNothing(t *testing.T) {
	_, err := Bus{}.Open(t.Context(), "99-99:1.0")
	if !errors.Is(err, device.ErrGone) {
		t.Fatalf("opening a port with nothing on it: %v", err)
	}
}
