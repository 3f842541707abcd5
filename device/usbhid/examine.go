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
	if b.holds(k) {
		return nil
	}
	if c := b.reach(k); c != nil {
		return c
	}
	given, err := b.giveBack(k)
	switch {
	case err != nil:
		return err
	case given:
		return &device.CureError{
			Err:  errors.New("the kernel's keyboard driver had lost the key, so that it typed nothing; it was given back just now"),
			Cure: "nothing is left to do",
		}
	case b.tree.driver(k) == claimed && !b.holds(k):
		return b.busy(k)
	}
	return nil
}
