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

// TestUSB runs the suite over the kernel's USB, where tokenemu attach, behind TOKENEMU_SOCKET, has one key for
// each test. make e2e runs it, in the guest.
func TestUSB(t *testing.T) {
	hand := bussocket.Control{Socket: os.Getenv("TOKENEMU_SOCKET")}
	keys, err := hand.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	devicetest.Run(t, func(t *testing.T) devicetest.Rig {
		if len(keys) == 0 {
			t.Fatal("there are more tests than keys")
		}
		k := keys[0]
		keys = keys[1:]
		firmware, err := device.ParseVersion(k.Firmware)
		if err != nil {
			t.Fatal(err)
		}
		rig := devicetest.Rig{
			Bus:      usbhid.Bus{},
			Serial:   k.Serial,
			Firmware: firmware,
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
	})
}
