// Package usbhid reaches OTP keyboard interfaces over USB, through karalabe/hid.
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
// nothing. Such a key is given back to the kernel as soon as it is seen.
package usbhid

import (
	"context"
	"sync"

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
// problem and a cure.
func (Bus) Watch(ctx context.Context, fn func(device.Event)) error { return usb.watch(ctx, fn) }

// Open implements device.Bus. Its errors are a *device.CureError, except that of ctx.
func (Bus) Open(ctx context.Context, path string) (device.Report, error) { return usb.open(ctx, path) }

// Examine looks at a key without opening it. It returns nil if this process has it open, or if it could be
// opened now and types until then; otherwise a *device.CureError. A key that has lost the kernel's keyboard
// driver is given back to it, which is told as an error as well.
func (Bus) Examine(info device.Info) error { return usb.examine(info) }

// Polling says why the last Watch looks at the bus four times a second instead of listening to the kernel;
// nil if it listens.
func (Bus) Polling() error { return usb.whyPolling() }

// bus is a USB: the machine's, or one that a test has made of files.
type bus struct {
	tree    tree
	listen  func() (*udev.Monitor, error)
	connect func(node string) error // makes the kernel look for a driver of the OTP keyboard

	mu      sync.Mutex
	held    map[string]bool // by node: open in this process, or being opened
	polling error
}

var usb = newBus(tree{sys: "/sys", dev: "/dev", udev: "/run/udev", proc: "/proc"})

func newBus(t tree) *bus {
	return &bus{
		tree: t, listen: func() (*udev.Monitor, error) { return udev.Listen("usb") }, connect: connect,
		held: map[string]bool{},
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

// hold takes a key for this process, unless it has it already.
func (b *bus) hold(k key) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held[k.node] {
		return false
	}
	b.held[k.node] = true
	return true
}

func (b *bus) release(k key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.held, k.node)
}

func (b *bus) holds(k key) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held[k.node]
}
