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

// port is a physical key and the goroutine that owns it.
type port struct {
	registry *Registry
	bus      device.Bus
	pulled   func()
	done     <-chan struct{}
	requests chan request

	identified chan struct{} // closed once announced

	key       Key  // guarded by the registry
	announced bool // guarded by the registry
}

type request struct {
	ctx    context.Context
	fn     func(ctx context.Context, s *otpslot.Session, k Key) error
	result chan error
}

// own identifies the key and then serves requests until it is pulled. A key that could not be used is
// looked at again, so that its problem is not shown for longer than it lasts.
func (p *port) own(ctx context.Context) {
	key := p.key
	if key.Info.Problem != "" { // there is nothing to open
		key.Problem, key.Cure = place(&key)+key.Info.Problem, key.Info.Cure
		p.registry.update(p, key)
		return
	}
	plugged := time.Now()
	retry := keyRetryMin
	for look := time.After(0); ; {
		answer := func() {}
		select {
		case <-ctx.Done():
			return
		case req := <-p.requests:
			err := p.serve(ctx, &key, req)
			answer = func() { req.result <- err }
		case <-look:
			// Its error is in key.Problem.
			_ = p.open(ctx, &key, func(context.Context, *otpslot.Session) error { return nil })
		}
		look = nil
		if key.ID == "" || key.Problem != "" {
			look = time.After(retry)
			retry = min(2*retry, keyRetryMax)
		} else {
			retry = keyRetryMin
		}
		if key.ID == "" && key.Problem == "" && time.Since(plugged) > newPatience { // the bus shows it and cannot open it
			key.Problem, key.Cure = place(&key)+"it cannot be opened", "pull it and insert it again"
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
	err := p.open(both, key, func(ctx context.Context, s *otpslot.Session) error {
		return req.fn(ctx, s, *key)
	})
	if err != nil && errors.Is(context.Cause(both), device.ErrGone) && !errors.Is(err, device.ErrGone) {
		err = fmt.Errorf("%s: %w", key.ID, device.ErrGone)
	}
	return err
}

// open opens the key, makes sure who it is, lets fn work, and looks at the slots afterwards.
func (p *port) open(ctx context.Context, key *Key, fn func(context.Context, *otpslot.Session) error) error {
	report, err := p.bus.Open(ctx, key.Info.Path)
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
	key.Problem = place(key) + key.Problem
}

// place begins a sentence about a key that may have no name.
func place(key *Key) string { return fmt.Sprintf("%s port %s: ", key.Bus, key.Info.Port) }

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
