package usbhid

import (
	"errors"

	"tokendesk/device"
)

func (b *bus) examine(info device.Info) error {
	k, present := b.tree.find(info.Path)
	if !present {
		return gone()
	}
	if k.info.Problem != "" {
		return unusable(k.info)
	}
	if b.opened(k) {
		return nil
	}
	if c := b.reach(k); c != nil {
		return c
	}
	driver := b.tree.driver(k)
	switch {
	case b.opened(k): // meanwhile
	case driver == claimed:
		return b.busy(k)
	case driver == "" && !b.tree.hasKeyboardDriver():
		return withoutDriver()
	case driver == "":
		return &device.CureError{
			Err:  errors.New("the kernel's keyboard driver has lost the key, so that it types nothing"),
			Cure: "wait 2 seconds, it is given back unless a program is just opening it; if it stays so, pull it and insert it again",
		}
	}
	return nil
}

func withoutDriver() *device.CureError {
	return &device.CureError{
		Err:  errors.New("no keyboard driver of the kernel takes the key, so that it types nothing"),
		Cure: "as root: modprobe usbhid; then insert it again",
	}
}
