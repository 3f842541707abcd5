package keys

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tokendesk/device"
	"tokendesk/device/otpslot"
)

// AbsentError says that a device is not inserted.
type AbsentError struct {
	ID       device.ID
	Card     bool     // its smart card is here, and nothing but that
	Problems []string // of buses and keys that might hide it, with their cures
}

func (e *AbsentError) Error() string {
	if e.Card {
		return fmt.Sprintf("of %s nothing but its smart card is seen: its OTP application may be switched off (ykman config usb --enable OTP); tokendesk doctor says more", e.ID)
	}
	text := fmt.Sprintf("%s is not inserted: insert it and repeat", e.ID)
	if len(e.Problems) > 0 {
		text += " (" + strings.Join(e.Problems, "; ") + ")"
	}
	return text
}

// Unwrap lets an absent device count as an unplugged one.
func (e *AbsentError) Unwrap() error { return device.ErrGone }

// Use lends the key named id to fn, exclusively. The session ends when the key is pulled or ctx ends.
// A key that was just plugged in is waited for.
func (r *Registry) Use(ctx context.Context, id device.ID, fn func(ctx context.Context, s *otpslot.Session, k Key) error) error {
	p, err := r.seek(ctx, func() (*port, time.Time, error) { return r.findOTP(id) })
	if err != nil {
		return err
	}
	return r.ask(id, p, request{ctx: ctx, otp: fn, result: make(chan error, 1)})
}

// ask has the owner of a port serve a request.
func (r *Registry) ask(id device.ID, p *port, req request) error {
	select {
	case p.requests <- req:
		return <-req.result
	case <-p.done:
		return fmt.Errorf("%s: %w", id, device.ErrGone)
	case <-req.ctx.Done():
		return inUse(id, req.ctx)
	}
}

func inUse(id device.ID, ctx context.Context) error {
	return fmt.Errorf("%s is in use by other work of the desk: %w", id, ctx.Err())
}

// seek asks find, and again at each change until the moment that find tells.
func (r *Registry) seek(ctx context.Context, find func() (*port, time.Time, error)) (found *port, err error) {
	var last time.Time
	began := time.Now()
	for {
		r.mu.Lock()
		p, until, err := find()
		changed := r.changed
		r.mu.Unlock()
		if limit := began.Add(newPatience); until.After(limit) {
			until = limit
		}
		if err == nil || !until.After(time.Now()) {
			return p, err
		}
		last = until
		enough := time.NewTimer(time.Until(last))
		select {
		case <-changed:
		case <-enough.C:
		case <-ctx.Done():
			err = ctx.Err()
		}
		enough.Stop()
		if ctx.Err() != nil {
			return nil, err
		}
	}
}

// findOTP returns the OTP application of the key named id, or until when it may yet be known.
func (r *Registry) findOTP(id device.ID) (*port, time.Time, error) {
	p, until, err := r.findKey(id)
	if err == nil && p.isCard() {
		return nil, p.plugged.Add(cardComes), &AbsentError{ID: id, Card: true}
	}
	return p, until, err
}

// findKey returns the port by which the key named id is known, or until when it may yet be known.
func (r *Registry) findKey(id device.ID) (found *port, until time.Time, err error) {
	absent := &AbsentError{ID: id}
	for _, p := range r.principals() {
		switch k := r.whole(p); {
		case k.ID == id && found != nil:
			return nil, time.Time{}, &TwinsError{twins(id, r.whole(found), k) + ": pull one of them"}
		case k.ID == id:
			found = p
		case k.ID == "" && k.Problem != "":
			absent.Problems = append(absent.Problems, k.Trouble())
		}
	}
	if found != nil {
		return found, time.Time{}, nil
	}
	for _, p := range r.ports {
		if !p.announced {
			until = time.Now().Add(newPatience)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.problems)) {
		if problem := r.problems[name]; problem != "" {
			absent.Problems = append(absent.Problems, problem)
		}
	}
	return nil, until, absent
}
