//go:build guest

package devicetest_test

import (
	"context"
	"os"
	"testing"

	"tokendesk/device"
	"tokendesk/device/bussocket"
	"tokendesk/device/devicetest"
	"tokendesk/device/usbhid"
)

// TestUSB runs both suites over the kernel's USB, where tokenemu attach, behind TOKENEMU_SOCKET, has one key for
// each test. make e2e runs it, in the guest.
func TestUSB(t *testing.T) {
	hand := bussocket.Control{Socket: os.Getenv("TOKENEMU_SOCKET")}
	keys, err := hand.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rig := func(t *testing.T) devicetest.Rig {
		if len(keys) == 0 {
			t.Fatal("there are more tests than keys")
		}
		k := keys[0]
		keys = keys[1:]
		rig := devicetest.Rig{
			Bus:      usbhid.Bus{},
			Serial:   k.Serial,
			Firmware: version(t, k.Firmware),
			Touch: func(ctx context.Context, long bool) error {
				_, err := hand.Touch(ctx, k.Port, long, 1)
				return err
			},
			Insert: func(ctx context.Context) error { return hand.Insert(ctx, k.Port) },
			Remove: func(ctx context.Context) error { return hand.Remove(ctx, k.Port) },
		}
		if err := rig.Insert(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := rig.Remove(context.Background()); err != nil {
				t.Error(err)
			}
		})
		return rig
	}
	devicetest.Run(t, rig)
	devicetest.RunToken(t, func(t *testing.T) devicetest.TokenRig { return onUSB(t, rig(t)) })
}

// onUSB is slot 2 of a key that is plugged in.
func onUSB(t *testing.T, rig devicetest.Rig) devicetest.TokenRig {
	t.Helper()
	// next waits for a change, which do may make as soon as the key was seen.
	next := func(ctx context.Context, removed bool, do func() error) (info device.Info, err error) {
		ctx, found := context.WithCancel(ctx)
		defer found()
		done := false
		werr := rig.Bus.Watch(ctx, func(e device.Event) {
			if !e.Removed && do != nil {
				err = do()
			}
			if info = e.Info; e.Removed == removed || err != nil {
				done = true
				found()
			}
		})
		if !done {
			err = werr
		}
		return info, err
	}
	return devicetest.TokenRig{
		ID: device.SlotToken(device.YubiKeyID(rig.Serial), 2), Firmware: rig.Firmware, Samples: 1,
		OpenReport: func(ctx context.Context) (info device.Info, r device.Report, err error) {
			if info, err = next(ctx, false, nil); err == nil {
				r, err = rig.Bus.Open(ctx, info.Path)
			}
			return info, r, err
		},
		Insert: func(ctx context.Context) error {
			if err := rig.Insert(ctx); err != nil {
				return err
			}
			_, err := next(ctx, false, nil)
			return err
		},
		Remove: func(ctx context.Context) error { // the kernel has to know before it is inserted again
			_, err := next(ctx, true, func() error { return rig.Remove(ctx) })
			return err
		},
		Touch: func(ctx context.Context) (string, error) { return "", rig.Touch(ctx, true) },
	}
}
