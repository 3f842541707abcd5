package bussocket

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

	"tokendesk/device"
)

// patience is how long the server may take beyond what a call allows the key.
const patience = 5 * time.Second

// report is one open interface: a connection that the server has made a handle.
type report struct {
	conn   *conn
	path   string
	size   int   // of its feature reports, with the report number
	failed error // the connection is unusable
	closed bool
}

var errClosed = errors.New("the interface is closed")

// SetFeature implements device.Report. The line is built by hand and wiped, because reports carry seeds.
func (r *report) SetFeature(p []byte) error {
	if len(p) != r.size || p[0] != 0 {
		return fmt.Errorf("a feature report is %d bytes, the first of them 0", r.size)
	}
	line := make([]byte, 0, 64+2*len(p)) // not to grow, which would leave copies
	line = append(line, `{"op":"`+OpSetFeature+`","data":"`...)
	line = hex.AppendEncode(line, p)
	line = append(line, "\"}\n"...)
	_, err := r.call(line, 0)
	clear(line)
	return err
}

// GetFeature implements device.Report.
func (r *report) GetFeature(p []byte) error {
	if len(p) != r.size {
		return fmt.Errorf("a feature report is %d bytes, there is room for %d", r.size, len(p))
	}
	a, err := r.call(EncodeRequest(Request{Op: OpGetFeature}), 0)
	if err != nil {
		return err
	}
	if len(a.Data) != r.size {
		return r.fail(fmt.Errorf("%w: a feature report of %d bytes", device.ErrCorrupt, len(a.Data)))
	}
	copy(p, a.Data)
	return nil
}

// ReadInput implements device.Report.
func (r *report) ReadInput(p []byte, timeout time.Duration) (int, error) {
	if len(p) < InputSize {
		return 0, fmt.Errorf("a keyboard report is %d bytes, there is room for %d", InputSize, len(p))
	}
	end := time.Now().Add(timeout)
	for {
		// Rounded up, or the last fraction of a millisecond would be spent polling.
		wait := min(max(time.Until(end)+time.Millisecond-1, 0), MaxReadTimeout).Truncate(time.Millisecond)
		a, err := r.call(EncodeRequest(Request{Op: OpReadInput, TimeoutMS: wait.Milliseconds()}), wait)
		switch {
		case err != nil:
			return 0, err
		case len(a.Data) == InputSize:
			return copy(p, a.Data), nil
		case len(a.Data) != 0:
			return 0, r.fail(fmt.Errorf("%w: a keyboard report of %d bytes", device.ErrCorrupt, len(a.Data)))
		case !time.Now().Before(end):
			return 0, nil
		}
	}
}

// Close implements device.Report. It returns when the keyboard has been given back.
func (r *report) Close() error {
	if r.closed {
		return nil
	}
	if r.failed == nil {
		// Whatever the answer: closing the connection gives the keyboard back as well, only later.
		_, _ = r.call(EncodeRequest(Request{Op: OpClose}), 0)
	}
	r.closed = true
	return r.conn.Close()
}

func (r *report) call(line []byte, wait time.Duration) (Answer, error) {
	switch {
	case r.closed:
		return Answer{}, errClosed
	case r.failed != nil:
		return Answer{}, r.failed
	}
	r.conn.SetDeadline(time.Now().Add(wait + patience))
	a, err := r.conn.call(line)
	if err == nil {
		return a, nil
	}
	if _, lost := errors.AsType[lostError](err); lost {
		cause := device.ErrGone
		if errors.Is(err, os.ErrDeadlineExceeded) {
			cause = device.ErrTimeout
		}
		return Answer{}, r.fail(fmt.Errorf("%w: %w", cause, err))
	}
	return Answer{}, fmt.Errorf("%s: %w", r.path, err)
}

// fail makes the handle unusable: request and answer may be out of step.
func (r *report) fail(err error) error {
	r.failed = fmt.Errorf("%s: %w", r.path, err)
	return r.failed
}
