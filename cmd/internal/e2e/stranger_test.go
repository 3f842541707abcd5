//go:build guest

package e2e

import (
	"context"
	"encoding/binary"
	"testing"

	"tokendesk/device"
	"tokendesk/device/emulator/vhci"
)

// stranger is a Yubico device with an interface that no driver wants.
type stranger struct{ product uint16 }

// Standard requests (USB 2.0, section 9.4).
const (
	toHost        = 0x80
	getStatus     = 0
	getDescriptor = 6
)

func (s stranger) Control(setup vhci.Setup, _ []byte) ([]byte, error) {
	switch {
	case setup.RequestType == toHost && setup.Request == getDescriptor && setup.Value>>8 == 1:
		d := []byte{18, 1, 0x00, 0x02, 0, 0, 0, 64, 0, 0, 0, 0, 0x00, 0x01, 0, 0, 0, 1}
		binary.LittleEndian.PutUint16(d[8:], device.YubicoVendor)
		binary.LittleEndian.PutUint16(d[10:], s.product)
		return d, nil
	case setup.RequestType == toHost && setup.Request == getDescriptor && setup.Value>>8 == 2:
		return []byte{9, 2, 18, 0, 1, 1, 0, 0x80, 15, 9, 4, 0, 0, 0, 0xff, 0, 0, 0}, nil
	case setup.RequestType&toHost != 0 && setup.Request == getStatus:
		return []byte{0, 0}, nil
	case setup.RequestType&toHost == 0:
		return nil, nil
	}
	return nil, vhci.ErrStall
}

func (s stranger) Out(uint8, []byte) error { return vhci.ErrStall }

func (s stranger) In(ctx context.Context, _ uint8) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// plugStranger plugs a device in until the end of the test and returns its port.
func plugStranger(t *testing.T, product uint16) string {
	t.Helper()
	port, err := vhci.Attach(stranger{product})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := port.Detach(); err != nil {
			t.Error(err)
		}
	})
	return port.Name()
}
