package keys

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tokendesk/device"
	"tokendesk/device/otpslot"
)

// afterwards bounds the look at a key after it was worked with.
const afterwards = 2 * time.Second

// port is a face of a physical key and the goroutine that owns it.
type port struct {
	registry *Registry
	opener   opener
	pulled   func()
	done     <-chan struct{}
	requests chan request
	plugged  time.Time

	key       Key  // guarded by the registry; what never changes of it is not
	announced bool // guarded by the registry
}

// request is somebody's wish to work with one face.
type request struct {
	ctx    context.Context
	otp    func(ctx context.Context, s *otpslot.Session, k Key) error
	piv    func(ctx context.Context, p device.PIV, k Key) error
	result chan error
}

// opener opens one kind of face. What it learns of the key, its problem included, it writes into that.
type opener interface {
	// look finds out whose it is, in turn with other faces.
	look(ctx context.Context, p *port, key *Key) error
	// lend opens it for a request, whose turn it is.
	lend(ctx context.Context, p *port, key *Key, req request) error
}

// own identifies the key and then serves requests until it is pulled. A key that could not be used is
// looked at again, so that its problem is not shown for longer than it lasts.
func (p *port) own(ctx context.Context) {
	key := p.key
	if key.Info.Problem != "" { // there is nothing to open
		key.Problem, key.Cure = where(key)+": "+key.Info.Problem, key.Info.Cure
		p.registry.update(p, key)
		return
	}
	retry := keyRetryMin
	for look := time.After(0); ; {
		answer, final := func() {}, false
		select {
		case <-ctx.Done():
			return
		case req := <-p.requests:
			err := p.serve(ctx, &key, req)
			answer = func() { req.result <- err }
		case <-look:
			final = hopeless(p.opener.look(ctx, p, &key))
		}
		look = nil
		if key.ID == "" || key.Problem != "" {
			if !final {
				look = time.After(retry)
			}
			retry = min(2*retry, keyRetryMax)
		} else {
			retry = keyRetryMin
		}
		if key.ID == "" && key.Problem == "" && time.Since(p.plugged) > newPatience { // the bus shows it and cannot open it
			key.Problem, key.Cure = where(key)+": it cannot be opened", "pull it and insert it again"
		}
		if ctx.Err() == nil && (key.ID != "" || key.Problem != "") {
			p.registry.update(p, key)
		}
		answer() // by now everybody sees what the work has changed
	}
}

func (p *port) serve(ctx context.Context, key *Key, req request) error {
	both, cancel := context.WithCancelCause(req.ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })()
	over, err := p.registry.turn(both, p)
	if err != nil {
		if errors.Is(context.Cause(both), device.ErrGone) {
			return fmt.Errorf("%s: %w", key.ID, device.ErrGone)
		}
		return inUse(key.ID, both)
	}
	defer over()
	err = p.opener.lend(both, p, key, req)
	if err != nil && errors.Is(context.Cause(both), device.ErrGone) && !errors.Is(err, device.ErrGone) {
		err = fmt.Errorf("%s: %w", key.ID, device.ErrGone)
	}
	return err
}

// otp opens OTP applications.
type otp struct {
	registry *Registry
	bus      device.Bus
}

func (o otp) look(ctx context.Context, p *port, key *Key) error {
	over, err := p.registry.turn(ctx, p)
	if err != nil {
		return err
	}
	defer over()
	return o.open(ctx, p, key, func(context.Context, *otpslot.Session) error { return nil })
}

func (o otp) lend(ctx context.Context, p *port, key *Key, req request) error {
	return o.open(ctx, p, key, func(ctx context.Context, s *otpslot.Session) error {
		return req.otp(ctx, s, p.registry.lent(p, *key))
	})
}

// open opens the key, makes sure who it is, lets fn work, and looks at the slots afterwards.
func (o otp) open(ctx context.Context, p *port, key *Key, fn func(context.Context, *otpslot.Session) error) error {
	report, err := o.bus.Open(ctx, key.Info.Path)
	if err != nil {
		note(ctx, key, err)
		return err
	}
	defer func() {
		if err := report.Close(); err != nil && !errors.Is(err, device.ErrGone) {
			p.registry.log.Warn("cannot give the keyboard back", "key", key.ID, "error", err)
		}
	}()
	s := otpslot.New(report)
	if err := identify(ctx, s, key); err != nil {
		note(ctx, key, err)
		return err
	}
	key.Problem, key.Cure = "", ""
	defer func() { // whatever fn has done: its work may have outlived its request
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
		defer cancel()
		if err := identify(after, s, key); err != nil {
			note(context.WithoutCancel(after), key, err) // here a timeout is the key's
		}
	}()
	return fn(ctx, s)
}

// note remembers why the key could not be used, if that is about the key and not about who wanted it.
func note(ctx context.Context, key *Key, err error) {
	if errors.Is(err, device.ErrGone) || ctx.Err() != nil {
		return
	}
	key.Problem, key.Cure = device.Cure(err)
	key.Problem = where(*key) + ": " + key.Problem
}

func identify(ctx context.Context, s *otpslot.Session, key *Key) error {
	status, err := s.Status(ctx)
	if err != nil {
		return err
	}
	serial, err := s.Serial(ctx)
	if err != nil {
		return err
	}
	id := device.YubiKeyID(serial)
	if key.ID != "" && key.ID != id {
		return &device.CureError{
			Err:  fmt.Errorf("the key on this port was %s and now says it is %s", key.ID, id),
			Cure: "pull it and insert it again",
		}
	}
	key.ID, key.Serial, key.Firmware = id, serial, status.Firmware
	key.Configured = [2]bool{status.Configured(1), status.Configured(2)}
	return nil
}
