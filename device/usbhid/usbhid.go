// Package usbhid reaches the HID interfaces of tokens over USB, through karalabe/hid: the OTP keyboards of YubiKeys, and what
// the Nitrokey Pro, the Nitrokey Storage and the Librem Key have for their slots.
//
// On Linux that library carries hidapi's libusb backend: it works on USB device nodes and detaches the
// kernel's keyboard driver while an interface is open, which is what keeps captured codes private. It
// needs cgo; without cgo it would list nothing, so Watch says so instead.
//
// What is plugged in is read from sysfs when the kernel or udev tells of a change; nothing is opened for it
// and nothing polled. The library reports every failure alike; the causes are looked up in sysfs and /proc
// and named here, with their cure.
//
// A program that is killed while it holds a key leaves it without the kernel's driver, so that it types
// nothing. While Watch runs, such a key is given back to the kernel after a second in which nobody was seen to
// claim it: a program that is about to open a key leaves it so for a moment too. What was found so and opened is
// given back when it is closed.
package usbhid

import (
	"context"
	"sync"
	"time"

	"tokendesk/device"
	"tokendesk/udev"
)

// Bus is the machine's USB. Its zero value is ready; all values are the same bus, because the library beneath
// is one for the whole process.
type Bus struct{}

var _ device.Bus = Bus{}

// Name implements device.Bus.
func (Bus) Name() string { return "usb" }

// Watch implements device.Bus. Devices of Yubico that cannot be used are told with their port as path, a
// problem and a cure. A Nitrokey 3 is not told, since it has nothing for this bus; nor are others of Nitrokey's and Purism's
// vendor numbers, which many kinds of devices have.
func (Bus) Watch(ctx context.Context, fn func(device.Event)) error { return usb.watch(ctx, fn) }

// Open implements device.Bus. Its errors are a *device.CureError, except that of ctx.
func (Bus) Open(ctx context.Context, path string) (device.Report, error) { return usb.open(ctx, path) }

// Examine looks at a key without opening it. It returns nil if this process has it open, or if it could be
// opened now and types until then; otherwise a *device.CureError.
func (Bus) Examine(info device.Info) error { return usb.examine(info) }

// Polling says why the last Watch looks at the bus four times a second instead of listening to the kernel;
// nil if it listens. It tries to listen again every 30 s.
func (Bus) Polling() error { return usb.whyPolling() }

// bus is a USB: the machine's, or one that a test has made of files.
type bus struct {
	tree    tree
	listen  func() (*udev.Monitor, error)
	connect func(node string, number int) error // makes the kernel look for a driver of an interface
	sleep   func(time.Duration)

	mu      sync.Mutex
	held    map[string]hold // by node
	polling error
}

// hold is why nothing else in this process may touch a key.
type hold struct {
	returned chan struct{} // nil if it is open or being opened; else closed when giving it back has ended
}

var usb = newBus(tree{sys: "/sys", dev: "/dev", udev: "/run/udev", proc: "/proc"})

func newBus(t tree) *bus {
	return &bus{
		tree: t, listen: func() (*udev.Monitor, error) { return udev.Listen("usb") }, connect: connect,
		sleep: time.Sleep, held: map[string]hold{},
	}
}

func (b *bus) whyPolling() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.polling
}

func (b *bus) setPolling(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.polling = err
}

// take holds a key, unless this process does already; it returns the hold that there is.
func (b *bus) take(k key, h hold) (taken bool, by hold) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if by, held := b.held[k.node]; held {
		return false, by
	}
	b.held[k.node] = h
	return true, h
}

// takeToOpen takes a key, unless it is open already. If it is just being given back, that is waited for.
func (b *bus) takeToOpen(ctx context.Context, k key) (taken bool, err error) {
	for {
		taken, by := b.take(k, hold{})
		if taken || by.returned == nil {
			return taken, nil
		}
		select {
		case <-by.returned:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

func (b *bus) release(k key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h := b.held[k.node]; h.returned != nil {
		close(h.returned)
	}
	delete(b.held, k.node)
}

// opened reports whether this process has a key open, or is about to.
func (b *bus) opened(k key) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	h, held := b.held[k.node]
	return held && h.returned == nil
}
