package usbhid

import (
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"tokendesk/device"
)

// leftPeriod is how long a key must have been without driver until it counts as left behind. A program that takes
// it away from the kernel needs 0.2 s until it has claimed it.
const (
	leftPeriod    = time.Second
	leftPeriodMax = 16 * time.Second // after attempts that were of no use
	leftLooks     = 4                // in that time
)

// left is about a key without driver that nobody is seen to have claimed.
type left struct {
	since  time.Time
	period time.Duration // how long it has to last
}

// due follows up a key at a look. It reports whether it is time to give it back, and if not 0, when to look again.
func (l *left) due(now time.Time, open bool) (due bool, again time.Duration) {
	if l.since.IsZero() || open { // what this process opens or closes is no business of others
		*l = left{since: now, period: leftPeriod}
	}
	if now.Sub(l.since) >= l.period {
		*l = left{since: now, period: min(2*l.period, leftPeriodMax)}
		due = true
	}
	return due, min(l.period/leftLooks, l.period-now.Sub(l.since))
}

// giveBack lets the kernel's keyboard driver have a key that was left behind, unless another program has the
// node open. It needs access to the node, but not root. It can wait for the kernel as long as that keeps the
// device locked.
func (b *bus) giveBack(k key) {
	taken, _ := b.take(k, hold{returned: make(chan struct{})})
	if !taken {
		return
	}
	defer b.release(k)
	if len(b.tree.holders(b.tree.nodePath(k))) == 0 {
		_ = b.reconnect(k) // Examine says why it is still so
	}
}

// reconnect makes the kernel look for a driver of a key that this process holds and that has none.
func (b *bus) reconnect(k key) error {
	if !b.abandoned(k) {
		return nil
	}
	number, _ := interfaceNumber(k.info.Path)
	err := b.connect(b.tree.nodePath(k), number)
	switch {
	case !b.abandoned(k): // also if somebody was faster
		return nil
	case err != nil:
		return &device.CureError{
			Err:  fmt.Errorf("the kernel's keyboard driver has lost the key and it cannot be given back: %w", err),
			Cure: "pull it and insert it again",
		}
	}
	return withoutDriver()
}

// abandoned reports whether the key is there and its HID interface has no driver. Claimed by a program it
// has one, named usbfs.
func (b *bus) abandoned(k key) bool {
	now, present := b.tree.find(k.info.Path)
	return present && now == k && k.info.Problem == "" && b.tree.driver(k) == ""
}

// Requests of linux/usbdevice_fs.h.
const (
	usbdevfsIoctl   = 3<<30 | unsafe.Sizeof(usbdevfsCommand{})<<16 | 'U'<<8 | 18 // _IOWR
	usbdevfsConnect = 'U'<<8 | 23                                                // _IO
)

// usbdevfsCommand is struct usbdevfs_ioctl.
type usbdevfsCommand struct {
	interfaceNumber int32
	code            int32
	data            unsafe.Pointer
}

// connect asks the kernel to look for a driver of an interface. It does nothing if there is one.
func connect(node string, number int) error {
	f, err := os.OpenFile(node, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	command := usbdevfsCommand{interfaceNumber: int32(number), code: usbdevfsConnect}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), usbdevfsIoctl, uintptr(unsafe.Pointer(&command)))
	if errno != 0 {
		return fmt.Errorf("USBDEVFS_CONNECT on %s: %w", node, errno)
	}
	return nil
}
