package keys

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tokendesk/device"
	"tokendesk/device/drivers"
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
	ctx     context.Context
	tap     Tap
	session func(ctx context.Context, s device.Session, k Key) error
	piv     func(ctx context.Context, p device.PIV, k Key) error // instead, of a card
	result  chan error
}

// Tap is put between a session and the device. Nil functions are none.
type Tap struct {
	Report func(device.Report) device.Report
	Card   func(device.Card) device.Card
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

// reports opens HID interfaces.
type reports struct{ bus device.Bus }

func (o reports) look(ctx context.Context, p *port, key *Key) error {
	over, err := p.registry.turn(ctx, p)
	if err != nil {
		return err
	}
	defer over()
	return o.open(ctx, p, key, nil, func(context.Context, device.Session) error { return nil })
}

func (o reports) lend(ctx context.Context, p *port, key *Key, req request) error {
	return o.open(ctx, p, key, req.tap.Report, func(ctx context.Context, s device.Session) error {
		return req.session(ctx, s, p.registry.lent(p, *key))
	})
}

// open opens the key, makes sure who it is, lets fn work, and looks at what it holds afterwards.
func (o reports) open(ctx context.Context, p *port, key *Key, tap func(device.Report) device.Report, fn func(context.Context, device.Session) error) error {
	report, err := o.bus.Open(ctx, key.Info.Path)
	if err != nil {
		note(ctx, key, err)
		return err
	}
	defer func() {
		if err := report.Close(); err != nil && !errors.Is(err, device.ErrGone) {
			p.registry.log.Warn("cannot give the key back", "key", key.ID, "error", err)
		}
	}()
	s := drivers.OverReport(key.Info, report)
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
	if tap != nil {
		return fn(ctx, drivers.OverReport(key.Info, tap(report)))
	}
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

// identify asks a key who it is and what it holds.
func identify(ctx context.Context, s device.Session, key *Key) error {
	id, err := s.Identify(ctx)
	if err == nil {
		err = take(id, key)
	}
	return err
}

// take notes what a key has told of itself. It has to be the one that it was before.
func take(id device.Identity, key *Key) error {
	switch {
	case id.ID == "" && key.ID == "":
		return &device.CureError{Err: errors.New("it does not tell its serial number"), Cure: "make that visible over USB, or use another key"}
	case id.ID != "" && key.ID != "" && key.ID != id.ID && !key.HID():
		return &device.CureError{
			Err:  fmt.Errorf("it is expected to be that of %s, and says it is that of %s", key.ID, id.ID),
			Cure: "pull it and insert it again",
		}
	case id.ID != "" && key.ID != "" && key.ID != id.ID:
		return &device.CureError{
			Err:  fmt.Errorf("the key on this port was %s and now says it is %s", key.ID, id.ID),
			Cure: "pull it and insert it again",
		}
	case id.ID != "":
		key.ID, key.Serial = id.ID, id.Serial
	}
	if id.Firmware != (device.Version{}) {
		key.Firmware = id.Firmware
	}
	key.Holds = id.Holds
	return nil
}
