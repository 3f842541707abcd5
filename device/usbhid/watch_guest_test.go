//go:build guest

package usbhid

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tokendesk/udev"
)

// secluded makes a bus that listens in a network namespace of its own, and a function that sends events there
// as udev does.
func secluded(t *testing.T, f *files) (*bus, func(properties string)) {
	t.Helper()
	b := newBus(f.tree)
	monitors, sockets, failed := make(chan *udev.Monitor, 1), make(chan int, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends, its sockets stay in the namespace
		failed <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("a network namespace is made as root: %w", err)
			}
			fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
			if err != nil {
				return err
			}
			sockets <- fd
			m, err := udev.Listen("usb")
			monitors <- m
			return err
		}()
	}()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	fd := <-sockets
	t.Cleanup(func() { unix.Close(fd) })
	b.listen = func() (*udev.Monitor, error) { return <-monitors, nil }
	return b, func(properties string) {
		t.Helper()
		m := append([]byte("libudev\x00\xfe\xed\xca\xfe"), make([]byte, 28)...)
		binary.NativeEndian.PutUint32(m[16:], uint32(len(m)))
		binary.NativeEndian.PutUint32(m[20:], uint32(len(properties)))
		if err := unix.Sendto(fd, append(m, properties...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 2}); err != nil {
			t.Error(err)
		}
	}
}

const addition = "ACTION=add\x00DEVPATH=/devices/x\x00SUBSYSTEM=usb\x00DEVTYPE=usb_device\x00"

func TestWatchListens(t *testing.T) {
	f := newFiles(t)
	b, send := secluded(t, f)
	f.plugKey("1-9")
	events := started(t, b)
	next(t, events, "1-9:1.0", false)
	if err := b.whyPolling(); err != nil {
		t.Fatal(err)
	}
	f.plugKey("1-1")
	send(addition)
	next(t, events, "1-1:1.0", false)
	f.unplug("1-1")
	for range 500 { // more than can wait unread
		send(addition + strings.Repeat("x", 8000))
	}
	next(t, events, "1-1:1.0", true)
	if err := b.whyPolling(); err != nil {
		t.Error(err)
	}
}
