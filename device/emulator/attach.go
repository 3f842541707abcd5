package emulator

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"tokendesk/device/emulator/vhci"
)

// setupPatience is how long the kernel may take to set up a key that was plugged in. It needs about half a
// second for each, one after the other.
const setupPatience = 30 * time.Second

// Attach makes a socket as Listen does, but plugs the tokens into this machine's USB instead: they become
// devices of the kernel, like any other (see package vhci, which says what that takes). It returns once the
// kernel has set up those that are not Absent. The socket then answers control operations and list-all only;
// as nobody can open a token there, none is seen twice. Serve pulls them all when it ends.
//
// A token that announced other interfaces than the emulated ones would have to answer there, so a YubiKey's product must be one
// that has nothing but OTP, or OTP and CCID, which is its smart card. A Nitrokey Pro and a Librem Key have a reader that is empty;
// other Nitrokeys cannot be attached. Faults that strike when a token is opened are refused, and Timing.Open and Close count for
// nothing: the kernel opens it in its own way.
func Attach[T Token](path string, tokens ...T) (*Server, error) {
	return attach(path, attachHere, bench(tokens))
}

func attachHere(d vhci.Device) (usbPort, error) {
	p, err := vhci.Attach(d)
	if err != nil {
		return nil, err // not a port that is nil
	}
	return p, nil
}

func attach(path string, toKernel func(vhci.Device) (usbPort, error), tokens []Token) (*Server, error) {
	for _, t := range tokens {
		if err := t.fitsUSB(); err != nil {
			return nil, fmt.Errorf("cannot attach %s: %w", t.ID(), err)
		}
	}
	s, err := newServer(path, tokens)
	if err != nil {
		return nil, err
	}
	for _, p := range s.bench {
		present := p.token.moveToUSB()
		p.usb = &usbPlug{token: p.token, attach: toKernel}
		if !present {
			continue
		}
		if err := p.usb.insert(); err != nil {
			return nil, errors.Join(fmt.Errorf("cannot attach %s: %w", p.token.ID(), err), s.close())
		}
	}
	return s, nil
}

// usbPort is a *vhci.Port.
type usbPort interface {
	Name() string
	Done() <-chan struct{}
	Detach() error
}

// usbPlug plugs one token into the kernel's USB and pulls it.
type usbPlug struct {
	token  Token
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
	u.token.Remove()
	<-p.ended
	return errors.Join(err, p.err)
}

// plugIn begins an insertion.
func (u *usbPlug) plugIn() (*plugged, *usbFace, error) {
	face := u.token.newFace()
	port, err := u.attach(face)
	if err != nil {
		u.token.Remove()
		return nil, nil, err
	}
	p := &plugged{holder: face.holder, port: port, ended: make(chan struct{})}
	u.latest.Store(p)
	go func() {
		defer close(p.ended)
		select {
		case <-p.holder.gone: // pulled, perhaps by a fault
		case <-port.Done():
			u.token.Remove()
		}
		if c := u.token.carries(); c != nil && c.card != nil {
			c.card.PowerDown() // which ends a command that waits for a touch
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
	u.token.Remove()
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
