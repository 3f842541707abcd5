package usbhid

import (
	"errors"
	"fmt"
	"time"

	"github.com/karalabe/hid"

	"tokendesk/device"
	"tokendesk/device/keyboard"
)

// A key may take a second from its first failure until the kernel knows that it was pulled.
const (
	leavingPause = 20 * time.Millisecond
	leavingLooks = 50
)

// report is one open interface.
type report struct {
	bus    *bus
	key    key
	device hid.Device
	lost   bool // it had no driver, which the library does not mend
	failed bool // and was waited for, in vain
	gone   bool
	closed bool
}

var errClosed = errors.New("the interface is closed")

// SetFeature implements device.Report.
func (r *report) SetFeature(p []byte) error {
	if size := r.key.reportSize; len(p) != size || p[0] != 0 { // hidapi would take it: with 8 bytes a YubiKey's flags are lost
		return fmt.Errorf("a feature report is %d bytes, the first of them 0; this is one of %d", size, len(p))
	}
	if err := r.state(); err != nil {
		return err
	}
	_, err := r.device.SendFeatureReport(p)
	return r.explain("write to", err)
}

// GetFeature implements device.Report.
func (r *report) GetFeature(p []byte) error {
	if size := r.key.reportSize; len(p) != size { // with room for 8 bytes hidapi leaves out a YubiKey's flags
		return fmt.Errorf("a feature report is %d bytes, there is room for %d", size, len(p))
	}
	if err := r.state(); err != nil {
		return err
	}
	p[0] = 0
	n, err := r.device.GetFeatureReport(p)
	if err == nil && n != r.key.reportSize {
		return fmt.Errorf("%w: a feature report of %d bytes", device.ErrCorrupt, n-1)
	}
	return r.explain("read from", err)
}

func (r *report) state() error {
	switch {
	case r.closed:
		return errClosed
	case r.gone:
		return device.ErrGone
	}
	return nil
}

// ReadInput implements device.Report. Waiting is in whole milliseconds, rounded up.
func (r *report) ReadInput(p []byte, timeout time.Duration) (int, error) {
	if len(p) < keyboard.ReportSize {
		return 0, fmt.Errorf("a keyboard report is %d bytes, there is room for %d", keyboard.ReportSize, len(p))
	}
	if err := r.state(); err != nil {
		return 0, err
	}
	wait := max(timeout+time.Millisecond-1, 0) // to the library less than 0 means for ever
	n, err := r.device.ReadTimeout(p[:keyboard.ReportSize], int(wait.Milliseconds()))
	if err == nil && n != 0 && n != keyboard.ReportSize {
		return 0, fmt.Errorf("%w: a keyboard report of %d bytes", device.ErrCorrupt, n)
	}
	return n, r.explain("read from", err)
}

// Close implements device.Report.
func (r *report) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	defer r.bus.release(r.key)
	err := r.device.Close()
	if err == nil && r.lost { // nobody else can have claimed it
		err = r.bus.reconnect(r.key)
	}
	return err
}

// explain finds out whether the key is still there: the library reports every failure alike, and the first
// ones come before the kernel knows. That is waited for once.
func (r *report) explain(what string, err error) error {
	if err == nil {
		return nil
	}
	for looks := 0; !r.pulled(); looks++ {
		if r.failed || looks == leavingLooks {
			r.failed = true
			return fmt.Errorf("cannot %s the key on USB port %s: %w", what, r.key.info.Port, err)
		}
		r.bus.sleep(leavingPause)
	}
	r.gone = true
	return device.ErrGone
}

// pulled reports whether the key is no longer there, or another one is in its place. The kernel refuses to open
// the node of one that it is about to remove.
func (r *report) pulled() bool {
	if now, present := r.bus.tree.find(r.key.info.Path); !present || now != r.key {
		return true
	}
	return isGone(tryNode(r.bus.tree.nodePath(r.key)))
}
