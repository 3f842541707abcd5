package usbhid

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"tokendesk/device"
)

// handover is how long a program may take between taking an interface away from the kernel and claiming it.
// What has no driver for longer was left behind.
const handover = 50 * time.Millisecond

// giveBack lets the kernel's keyboard driver have a key that has no driver and that nobody has claimed: a
// program that is killed leaves it so, and so does the library when it closes what it found so. It needs
// access to the device node, but not root. It reports whether the driver was missing and is back.
func (b *bus) giveBack(k key) (given bool, err error) {
	if !b.abandoned(k) || b.holds(k) {
		return false, nil
	}
	time.Sleep(handover)
	b.mu.Lock() // from here on this process cannot open it
	defer b.mu.Unlock()
	if b.held[k.node] || !b.abandoned(k) {
		return false, nil
	}
	err = b.connect(b.tree.nodePath(k))
	now, present := b.tree.find(k.info.Path)
	switch {
	case !present || now != k:
		return false, nil
	case b.tree.driver(k) != "": // ours or somebody's who was faster
		return true, nil
	case err != nil:
		return false, &device.CureError{
			Err:  fmt.Errorf("the kernel's keyboard driver has lost the key and it cannot be given back: %w", err),
			Cure: "pull it and insert it again",
		}
	}
	return false, &device.CureError{
		Err:  errors.New("no keyboard driver of the kernel takes the key, so that it types nothing"),
		Cure: "as root: modprobe usbhid; then insert it again",
	}
}

// abandoned reports whether the key is there and its keyboard interface has no driver. Claimed by a program it
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

// connect asks the kernel to look for a driver of the OTP keyboard. It does nothing if there is one.
func connect(node string) error {
	f, err := os.OpenFile(node, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	command := usbdevfsCommand{interfaceNumber: otpNumber, code: usbdevfsConnect}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), usbdevfsIoctl, uintptr(unsafe.Pointer(&command)))
	if errno != 0 {
		return fmt.Errorf("USBDEVFS_CONNECT on %s: %w", node, errno)
	}
	return nil
}
