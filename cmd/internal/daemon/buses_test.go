package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tokendesk/device"
	"tokendesk/device/bussocket"
	"tokendesk/device/emulator"
)

// A key that hangs on the kernel's virtual host controller looks like this to the registry beside a real TPM.
func TestEmulatedKeysAreShownBesideAHardwareTPM(t *testing.T) {
	dir, err := os.MkdirTemp("", "td")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "bus")
	server, err := emulator.Listen(socket, emulator.New(emulator.Options{Serial: 7}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	var seen []device.Event
	err = genuine{bussocket.New(socket)}.Watch(ctx, func(e device.Event) {
		seen = append(seen, e)
		cancel()
	})
	if !errors.Is(err, context.Canceled) || len(seen) != 1 {
		t.Fatalf("%v, %+v", err, seen)
	}
	if i := seen[0].Info; !i.Emulated || !strings.Contains(i.Problem, "EMULATED") || !strings.Contains(i.Cure, "allow_emulated") {
		t.Errorf("%+v", i)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
