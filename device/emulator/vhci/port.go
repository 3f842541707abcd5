package vhci

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// lookAgain is how often sysfs is looked at while the kernel is about to change something there.
const lookAgain = 10 * time.Millisecond

// The kernel wants a device number on the other machine; it only shows it again.
const deviceID = 1<<16 | 1

// fullSpeed is 12 Mbit/s (include/uapi/linux/usb/ch9.h, USB_SPEED_FULL).
const fullSpeed = 2

// Port is a device that is plugged in.
type Port struct {
	host   host
	place  place
	conn   *net.UnixConn
	done   chan struct{}
	detach func() error

	// Set before done is closed:
	failed error  // why serving ended
	device string // what the kernel had at the port then
}

// Attach plugs d into a free port of the virtual host controller and speaks for it until Detach, or until
// the kernel lets go. The kernel sets the device up after Attach has returned. Errors say what is missing:
// the module, root, a free port.
func Attach(d Device) (*Port, error) { return thisHost().attach(d) }

func (h host) attach(d Device) (*Port, error) {
	deadline := time.Now().Add(h.vacancy)
	for {
		places, err := h.places()
		if err != nil {
			return nil, fmt.Errorf("cannot attach a USB device: %w", err)
		}
		taken := errors.New("all are taken; detach a device, or load vhci-hcd with more controllers")
		for _, p := range places {
			if !p.free {
				continue
			}
			port, err := h.plug(p, d)
			if err == nil {
				return port, nil
			}
			// EBUSY, or EINVAL before Linux 5.13: another process was faster.
			if !errors.Is(err, syscall.EBUSY) && !errors.Is(err, syscall.EINVAL) {
				return nil, fmt.Errorf("cannot attach a USB device: %w", err)
			}
			taken = err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("cannot attach a USB device: no port of the virtual host controller became free within %s: %w", h.vacancy, taken)
		}
		time.Sleep(lookAgain) // sysfs tells nobody; a port that was just left is free soon
	}
}

// plug takes one port.
func (h host) plug(p place, d Device) (*Port, error) {
	ours, kernels, err := socketpair()
	if err != nil {
		return nil, err
	}
	file := h.platform(0) + "/attach"
	err = h.store(file, fmt.Sprintf("%d %d %d %d", p.number, kernels.Fd(), deviceID, fullSpeed))
	kernels.Close() // the kernel has its own hold on it
	if err != nil {
		ours.Close()
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("only root may write to %s; run this as root", file)
		}
		return nil, err
	}
	port := &Port{host: h, place: p, conn: ours, done: make(chan struct{})}
	port.detach = sync.OnceValue(port.pull)
	go func() {
		defer close(port.done)
		port.failed = serve(ours, d)
		port.device = port.present()
	}()
	return port, nil
}

// socketpair makes a connection with one end for the kernel.
func socketpair() (ours *net.UnixConn, kernels *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	kernels = os.NewFile(uintptr(fds[1]), "the kernel's end")
	mine := os.NewFile(uintptr(fds[0]), "our end")
	defer mine.Close()
	c, err := net.FileConn(mine)
	if err != nil {
		kernels.Close()
		return nil, nil, err
	}
	return c.(*net.UnixConn), kernels, nil
}

// Name is the kernel's name of the port, and of the device there: "1-1".
func (p *Port) Name() string { return p.place.name }

// Done is closed when nobody speaks for the device any more: after Detach, or because the kernel let go.
func (p *Port) Done() <-chan struct{} { return p.done }

// Detach pulls the device. It returns when its entry in sysfs is gone, and with it its drivers, and when no
// goroutine calls the Device any more; or with an error if the kernel does not let go. Only the first call
// does anything.
func (p *Port) Detach() error { return p.detach() }

// pull ends the connection instead of writing to the attribute "detach". To the kernel it is the same event
// (VDEV_EVENT_DOWN), and it cannot hit a device of somebody else who got the port meanwhile.
func (p *Port) pull() error {
	deadline := time.Now().Add(p.host.patience)
	p.conn.CloseWrite()
	p.conn.SetReadDeadline(deadline)
	<-p.done
	if errors.Is(p.failed, os.ErrDeadlineExceeded) {
		return fmt.Errorf("cannot detach USB port %s: the kernel keeps the connection", p.place.name)
	}
	for now := p.present(); now != "" && now == p.device; now = p.present() {
		if time.Now().After(deadline) {
			return fmt.Errorf("cannot detach USB port %s: the kernel still has the device", p.place.name)
		}
		time.Sleep(lookAgain)
	}
	if p.failed != nil {
		return fmt.Errorf("USB port %s was not served to the end: %w", p.place.name, p.failed)
	}
	return nil
}

// present is the number of the device at the port; empty if there is none. The next one has another.
func (p *Port) present() string {
	number, err := readAttribute(p.place.folder, "devnum")
	if err != nil {
		return ""
	}
	return number
}
