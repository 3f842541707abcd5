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
	"tokendesk/vault"
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
	bus := &genuine{Bus: bussocket.New(socket)}
	var opened error
	err = bus.Watch(ctx, func(e device.Event) {
		seen = append(seen, e)
		_, opened = bus.Open(ctx, e.Info.Path)
		cancel()
	})
	if !errors.Is(err, context.Canceled) || len(seen) != 1 {
		t.Fatalf("%v, %+v", err, seen)
	}
	if i := seen[0].Info; !i.Emulated || !strings.Contains(i.Problem, "EMULATED") || !strings.Contains(i.Cure, "allow_emulated") {
		t.Errorf("%+v", i)
	}
	if opened == nil || !strings.Contains(opened.Error(), "EMULATED") {
		t.Errorf("it was opened: %v", opened)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Rule D6: what may stand beside which vault.
func TestBuses(t *testing.T) {
	names := func(buses []device.Bus) (text string) {
		for _, b := range buses {
			if _, guarded := b.(*genuine); guarded {
				text += "genuine "
			}
			text += b.Name() + " "
		}
		return text
	}
	usb, both := DevicesConfig{USB: true}, DevicesConfig{USB: true, Emulator: "/run/emu.sock"}
	allowed := both
	allowed.AllowEmulated = true
	for _, c := range []struct {
		level  vault.Level
		config DevicesConfig
		want   string // empty: refused
	}{
		{vault.LevelTPM, usb, "genuine usb "},
		{vault.LevelTPM, both, ""},
		{vault.LevelTPM, allowed, "usb emulator "},
		{vault.LevelEmulated, both, "usb emulator "},
		{vault.LevelPassphrase, both, "usb emulator "},
	} {
		buses, err := c.config.buses(c.level)
		if got := names(buses); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("level %s, %+v: %q, %v", c.level, c.config, got, err)
		}
		if err != nil && !strings.Contains(err.Error(), "allow_emulated") {
			t.Errorf("%v names no cure", err)
		}
	}
}
