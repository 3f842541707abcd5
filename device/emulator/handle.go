package emulator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tokendesk/device"
)

// queueSize bounds the boot-keyboard reports kept for a handle that does not read: about 20 codes with
// token identifiers. The oldest are kept; a stroke that does not fit is dropped whole.
const queueSize = 1024

// Handle is an open device. What it types goes there until Close.
type Handle struct {
	key    *plug
	gone   chan struct{} // of the insertion it belongs to
	wake   chan struct{} // a report was queued
	queue  []input       // guarded by key.mu
	typed  time.Time     // when the last queued report is due
	closed bool          // guarded by key.mu
}

var _ device.Report = (*Handle)(nil)

// input is a boot-keyboard report that arrives at a time.
type input struct {
	report [reportSize]byte
	at     time.Time
}

var errClosed = errors.New("the interface is closed")

// Open takes the HID interface exclusively. It fails with device.ErrGone, ErrBusy, ErrPermission or ctx.Err().
func (p *plug) Open(ctx context.Context) (*Handle, error) {
	p.mu.Lock()
	switch {
	case p.gone == nil, p.reportSize == 0:
		p.mu.Unlock()
		return nil, device.ErrGone
	case p.faults.active(FaultNoPermission):
		p.mu.Unlock()
		return nil, device.ErrPermission
	case p.taken, p.faults.active(FaultExclusiveOpen):
		p.mu.Unlock()
		return nil, device.ErrBusy
	}
	p.taken = true
	gone := p.gone
	d := p.timing.Open + time.Duration(p.faults[FaultSlowOpen])*time.Millisecond
	p.mu.Unlock()

	err := pause(ctx, gone, d)

	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.gone != gone:
		return nil, device.ErrGone
	case err != nil:
		p.taken = false
		return nil, err
	}
	return p.hold(), nil
}

// hold makes the holder of the key, with p.mu held.
func (p *plug) hold() *Handle {
	p.taken = true
	p.holder = &Handle{key: p, gone: p.gone, wake: make(chan struct{}, 1)}
	return p.holder
}

// pulled reports whether the key was pulled since the handle was made.
func (h *Handle) pulled() bool {
	select {
	case <-h.gone:
		return true
	default:
		return false
	}
}

// pause waits for d, unless the key is pulled or ctx ends before.
func pause(ctx context.Context, gone <-chan struct{}, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-gone:
		return device.ErrGone
	case <-ctx.Done():
		return ctx.Err()
	}
}

// usable says why the handle is not, with key.mu held.
func (h *Handle) usable() error {
	switch {
	case h.closed:
		return errClosed
	case h.key.gone != h.gone:
		return device.ErrGone
	}
	return nil
}

// SetFeature implements device.Report.
func (h *Handle) SetFeature(p []byte) error {
	if size := 1 + h.key.reportSize; len(p) != size || p[0] != 0 {
		return fmt.Errorf("a feature report is %d bytes, the first of them 0", size)
	}
	h.key.mu.Lock()
	defer h.key.mu.Unlock()
	if err := h.usable(); err != nil {
		return err
	}
	if !h.key.kind.takeReport(p[1:]) {
		return device.ErrGone
	}
	return nil
}

// GetFeature implements device.Report.
func (h *Handle) GetFeature(p []byte) error {
	if size := 1 + h.key.reportSize; len(p) != size {
		return fmt.Errorf("a feature report is %d bytes, there is room for %d", size, len(p))
	}
	h.key.mu.Lock()
	defer h.key.mu.Unlock()
	if err := h.usable(); err != nil {
		return err
	}
	p[0] = 0
	h.key.kind.giveReport(p[1:])
	return nil
}

// ReadInput implements device.Report.
func (h *Handle) ReadInput(p []byte, timeout time.Duration) (int, error) {
	return h.readInput(context.Background(), p, timeout)
}

// readInput is ReadInput that ctx can end.
func (h *Handle) readInput(ctx context.Context, p []byte, timeout time.Duration) (int, error) {
	if len(p) < reportSize {
		return 0, fmt.Errorf("a keyboard report is %d bytes, there is room for %d", reportSize, len(p))
	}
	end := time.Now().Add(timeout)
	for {
		n, due, err := h.dequeue(p)
		if n > 0 || err != nil {
			return n, err
		}
		left := time.Until(end)
		if left <= 0 {
			return 0, nil
		}
		if !due.IsZero() {
			left = min(left, time.Until(due))
		}
		t := time.NewTimer(left)
		select {
		case <-t.C:
		case <-h.wake:
		case <-h.gone:
		case <-ctx.Done():
			err = ctx.Err()
		}
		t.Stop()
		if err != nil {
			return 0, err
		}
	}
}

// dequeue takes the next report if it has arrived; otherwise due is when it will, zero if there is none.
func (h *Handle) dequeue(p []byte) (n int, due time.Time, err error) {
	h.key.mu.Lock()
	defer h.key.mu.Unlock()
	if err := h.usable(); err != nil {
		return 0, due, err
	}
	if len(h.queue) == 0 {
		return 0, due, nil
	}
	first := h.queue[0]
	if time.Now().Before(first.at) {
		return 0, first.at, nil
	}
	h.queue = h.queue[1:]
	return copy(p, first.report[:]), due, nil
}

// enqueue makes strokes arrive, with key.mu held.
func (h *Handle) enqueue(strokes []stroke) {
	if now := time.Now(); h.typed.Before(now) {
		h.typed = now
	}
	gap := h.key.strokeGap()
	for _, s := range strokes {
		if len(h.queue)+2 > queueSize {
			break
		}
		if !h.key.instant {
			h.typed = h.typed.Add(s.pause)
		}
		for _, r := range s.reports() {
			h.typed = h.typed.Add(gap)
			h.queue = append(h.queue, input{r, h.typed})
		}
	}
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Close implements device.Report. It returns when the keyboard has been given back.
func (h *Handle) Close() error {
	k := h.key
	k.mu.Lock()
	if h.closed || k.gone != h.gone {
		h.closed = true
		k.mu.Unlock()
		return nil
	}
	h.closed = true
	k.mu.Unlock()

	_ = pause(context.Background(), h.gone, k.timing.Close) // pulled meanwhile: nothing to give back

	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gone == h.gone {
		k.holder, k.taken = nil, false
		h.queue = nil
	}
	return nil
}
