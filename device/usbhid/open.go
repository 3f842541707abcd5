package usbhid

import (
	"context"
	"fmt"

	"github.com/karalabe/hid"

	"tokendesk/device"
)

const otpNumber = 0 // the OTP keyboard is interface 0 of every YubiKey

func (b *bus) open(ctx context.Context, path string) (device.Report, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	k, present := b.tree.find(path)
	if !present {
		return nil, refused(gone())
	}
	if k.info.Problem != "" {
		return nil, refused(unusable(k.info))
	}
	taken, err := b.takeToOpen(ctx, k)
	if err != nil {
		return nil, err
	}
	if !taken {
		return nil, refused(&device.CureError{
			Err:  fmt.Errorf("%w: this very one", device.ErrBusy),
			Cure: "wait until its other work is done",
		})
	}
	lost := b.tree.driver(k) == ""
	d, err := (hid.DeviceInfo{Path: path}).Open()
	if err != nil {
		why := b.cause(k)
		b.release(k)
		return nil, refused(why)
	}
	r := &report{bus: b, key: k, device: d, lost: lost}
	if now, present := b.tree.find(path); !present || now != k { // what was opened may be another key
		r.Close()
		return nil, refused(gone())
	}
	if err := ctx.Err(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// refused puts before a cause what it has kept from happening. Callers know the port.
func refused(c *device.CureError) error {
	return &device.CureError{Err: fmt.Errorf("cannot open the key: %w", c.Err), Cure: c.Cure}
}

// cause finds out why the library could not open a key.
func (b *bus) cause(k key) *device.CureError {
	if now, present := b.tree.find(k.info.Path); !present || now != k {
		return gone()
	}
	if c := b.reach(k); c != nil {
		return c
	}
	if b.tree.driver(k) == claimed {
		return b.busy(k)
	}
	m, err := b.listen() // which the library needs as well, or it opens nothing
	if err != nil {
		return &device.CureError{
			Err:  fmt.Errorf("%w: %w", device.ErrPermission, err),
			Cure: "let the service use netlink (systemd: RestrictAddressFamilies=AF_NETLINK)",
		}
	}
	m.Close()
	return &device.CureError{
		Err:  fmt.Errorf("%w, or was a moment ago", device.ErrBusy),
		Cure: "try again; if it stays so, pull the key and insert it again",
	}
}
