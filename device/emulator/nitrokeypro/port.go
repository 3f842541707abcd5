package nitrokeypro

import (
	"fmt"
	"sync/atomic"
	"time"

	"tokendesk/device"
)

// Open returns a token in this process as an opened interface. It is gone for good when the token loses its power.
func (t *Token) Open() device.Report {
	t.mu.Lock()
	defer t.mu.Unlock()
	return &port{token: t, powered: t.powered}
}

type port struct {
	token   *Token
	powered int // what the token's count was
	closed  atomic.Bool
}

var _ device.Report = (*port)(nil)

func (p *port) SetFeature(b []byte) error {
	if err := p.check(b); err != nil {
		return err
	}
	if !p.token.SetFeature(b[1:]) {
		return device.ErrGone
	}
	return nil
}

func (p *port) GetFeature(b []byte) error {
	if err := p.check(b); err != nil {
		return err
	}
	b[0] = 0
	if !p.token.GetFeature(b[1:]) {
		return device.ErrGone
	}
	return nil
}

// ReadInput implements device.Report: the token types nothing by itself.
func (p *port) ReadInput(_ []byte, timeout time.Duration) (int, error) {
	if p.gone() {
		return 0, device.ErrGone
	}
	time.Sleep(timeout)
	return 0, nil
}

func (p *port) Close() error {
	p.closed.Store(true)
	return nil
}

func (p *port) check(b []byte) error {
	if p.gone() {
		return device.ErrGone
	}
	if len(b) != device.NitrokeyReportSize {
		return fmt.Errorf("a feature report has %d bytes, not %d", device.NitrokeyReportSize, len(b))
	}
	return nil
}

// gone also tells of a token that has got power again since.
func (p *port) gone() bool {
	p.token.mu.Lock()
	defer p.token.mu.Unlock()
	return p.closed.Load() || p.token.off || p.token.powered != p.powered
}
