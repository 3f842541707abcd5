package emulator

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"tokendesk/device"
	"tokendesk/device/emulator/vhci"
)

// setupPatience is how long the kernel may take to set up a key that was plugged in. It needs about half a
// second for each, one after the other.
const setupPatience = 30 * time.Second

// Attach makes a socket as Listen does, but plugs the keys into this machine's USB instead: they become
// devices of the kernel, like any other key (see package vhci, which says what that takes). It returns once the
// kernel has set up those that are not Absent. The socket then answers control operations and list-all only;
// as nobody can open a key there, none is seen twice. Serve pulls them all when it ends.
//
// A key that announced other interfaces than OTP and CCID would have to answer there, so its product must be one that
// has no other; one with CCID has a smart card. Faults that strike when a key is opened are refused, and Timing.Open and Close count for
// nothing: the kernel opens a key in its own way.
func Attach(path string, keys ...*YubiKey) (*Server, error) { return attach(path, attachHere, keys) }

func attachHere(d vhci.Device) (usbPort, error) {
	p, err := vhci.Attach(d)
	if err != nil {
		return nil, err // not a port that is nil
	}
	return p, nil
}

func attach(path string, toKernel func(vhci.Device) (usbPort, error), keys []*YubiKey) (*Server, error) {
	for _, k := range keys {
		if err := k.fitsUSB(); err != nil {
			return nil, fmt.Errorf("cannot attach %s: %w", device.YubiKeyID(k.Serial()), err)
		}
	}
	s, err := newServer(path, keys)
	if err != nil {
		return nil, err
	}
	for _, p := range s.bench {
		present := p.key.moveToUSB()
		p.usb = &usbPlug{key: p.key, attach: toKernel}
		if !present {
			continue
		}
		if err := p.usb.insert(); err != nil {
			return nil, errors.Join(fmt.Errorf("cannot attach %s: %w", device.YubiKeyID(p.key.Serial()), err), s.close())
		}
	}
	return s, nil
}

// moveToUSB makes the key one of the kernel's USB. It is out until it is inserted there; present is whether it
// should be.
func (k *YubiKey) moveToUSB() (present bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	present = k.gone != nil
	k.remove()
	k.onUSB = true
	if m, known := device.FindModel(k.vendor, k.product); known && m.Has(device.CCID) && k.card == nil {
		k.addCard()
	}
	return present
}

// usbPort is a *vhci.Port.
type usbPort interface {
	Name() string
	Done() <-chan struct{}
	Detach() error
}

// usbPlug plugs one key into the kernel's USB and pulls it.
type usbPlug struct {
	key    *YubiKey
	attach func(vhci.Device) (usbPort, error)

	mu     sync.Mutex              // one insertion or removal at a time
	latest atomic.Pointer[plugged] // insertion
}

// plugged is one insertion.
type plugged struct {
	holder *Handle
	port   usbPort
	ended  chan struct{} // the kernel has let go
	err    error         // if it did not; set before ended is closed
}

// insert returns once the kernel has set the key up; nothing happens if it is plugged in.
func (u *usbPlug) insert() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if p := u.latest.Load(); p != nil {
		if !p.holder.pulled() {
			return nil
		}
		<-p.ended
	}
	p, face, err := u.plugIn()
	if err != nil {
		return err
	}
	timeout := time.NewTimer(setupPatience)
	defer timeout.Stop()
	select {
	case <-face.configured:
		return nil
	case <-p.holder.gone:
		err = fmt.Errorf("the key was gone from USB port %s before the kernel had set it up; see dmesg", p.port.Name())
	case <-timeout.C:
		err = fmt.Errorf("the kernel has not set up the key at USB port %s within %s; see dmesg", p.port.Name(), setupPatience)
	}
	u.key.Remove()
	<-p.ended
	return errors.Join(err, p.err)
}

// plugIn begins an insertion.
func (u *usbPlug) plugIn() (*plugged, *usbFace, error) {
	face := newFace(u.key.insertHeld())
	port, err := u.attach(face)
	if err != nil {
		u.key.Remove()
		return nil, nil, err
	}
	p := &plugged{holder: face.holder, port: port, ended: make(chan struct{})}
	u.latest.Store(p)
	go func() {
		defer close(p.ended)
		select {
		case <-p.holder.gone: // pulled, perhaps by a fault
		case <-port.Done():
			u.key.Remove()
		}
		if u.key.card != nil {
			u.key.card.PowerDown() // which ends a command that waits for a touch
		}
		p.err = port.Detach()
	}()
	return p, face, nil
}

// remove returns once the kernel has let go of the key; nothing happens if it is out.
func (u *usbPlug) remove() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	p := u.latest.Load()
	if p == nil {
		return nil
	}
	u.key.Remove()
	<-p.ended
	return p.err
}

// port is the kernel's name of the port where the key is; empty if it is out.
func (u *usbPlug) port() string {
	if p := u.latest.Load(); p != nil && !p.holder.pulled() {
		return p.port.Name()
	}
	return ""
}
