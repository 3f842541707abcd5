package devicetest_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"tokendesk/device"
	"tokendesk/device/bussocket"
	"tokendesk/device/devicetest"
	"tokendesk/device/emulator"
)

// TestBusSocket runs the suite over the emulator's socket, with the times of real keys and with none.
func TestBusSocket(t *testing.T) {
	lifelike := emulator.RealTiming()
	for name, timing := range map[string]*emulator.Timing{"real timing": &lifelike, "no timing": {}} {
		t.Run(name, func(t *testing.T) {
			devicetest.Run(t, func(t *testing.T) devicetest.Rig { return rig(t, timing) })
		})
	}
}

func rig(t *testing.T, timing *emulator.Timing) devicetest.Rig {
	t.Helper()
	k := emulator.New(emulator.Options{Serial: 12345678, Firmware: device.Version{Major: 5, Minor: 4, Build: 3}, Timing: timing})
	bus, hand := served(t, k)
	return devicetest.Rig{
		Bus:      bus,
		Serial:   k.Serial(),
		Firmware: k.Firmware(),
		Touch: func(ctx context.Context, long bool) error {
			_, err := hand.Touch(ctx, "emu1", long, 1)
			return err
		},
		Insert: func(ctx context.Context) error { return hand.Insert(ctx, "emu1") },
		Remove: func(ctx context.Context) error { return hand.Remove(ctx, "emu1") },
	}
}

// served has a device at a socket of its own, until the test ends.
func served(t *testing.T, k emulator.Token) (*bussocket.Bus, bussocket.Control) {
	t.Helper()
	dir, err := os.MkdirTemp("", "td") // a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "bus")
	server, err := emulator.Listen(socket, k)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
	return bussocket.New(socket), bussocket.Control{Socket: socket}
}
