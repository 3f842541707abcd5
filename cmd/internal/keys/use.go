package keys

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tokendesk/device"
)

// AbsentError says that a device is not inserted.
type AbsentError struct {
	ID       device.ID
	Card     bool     // its smart card is here, and nothing but that
	Problems []string // of buses and keys that might hide it, with their cures
}

func (e *AbsentError) Error() string {
	if e.Card {
		return fmt.Sprintf("of %s nothing but its smart card is seen, and that is not reached through it; tokendesk doctor says more", e.ID)
	}
	text := fmt.Sprintf("%s is not inserted: insert it and repeat", e.ID)
	if len(e.Problems) > 0 {
		text += " (" + strings.Join(e.Problems, "; ") + ")"
	}
	return text
}

// Unwrap lets an absent device count as an unplugged one.
func (e *AbsentError) Unwrap() error { return device.ErrGone }

// Use lends a token to fn, exclusively, through the best face of its device that is seen. It ends when that is pulled or ctx ends.
// A key that was just plugged in is waited for.
func (r *Registry) Use(ctx context.Context, id device.TokenID, fn func(ctx context.Context, t device.HOTPToken, k Key) error) error {
	return r.UseTapped(ctx, id, Tap{}, fn)
}

// UseTapped is Use with a tap between the driver and the device.
func (r *Registry) UseTapped(ctx context.Context, id device.TokenID, tap Tap, fn func(ctx context.Context, t device.HOTPToken, k Key) error) error {
	p, err := r.seek(ctx, func() (*port, time.Time, error) { return r.findToken(id) })
	if err != nil {
		return err
	}
	return r.ask(id.Device(), p, request{ctx: ctx, tap: tap, result: make(chan error, 1), session: func(ctx context.Context, s device.Session, k Key) error {
		t, err := s.Token(ctx, id)
		if err != nil {
			return err
		}
		return fn(ctx, t, k)
	}})
}

// UseLister lends what tells which credentials a device holds.
func (r *Registry) UseLister(ctx context.Context, id device.ID, fn func(ctx context.Context, l device.Lister, k Key) error) error {
	p, err := r.seek(ctx, func() (*port, time.Time, error) { return r.findCard(id) })
	if err != nil {
		return err
	}
	return r.ask(id, p, request{ctx: ctx, result: make(chan error, 1), session: func(ctx context.Context, s device.Session, k Key) error {
		l, ok := s.(device.Lister)
		if !ok {
			return fmt.Errorf("%s holds no credentials: %w", id, device.ErrNoApplication)
		}
		return fn(ctx, l, k)
	}})
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

// findToken returns the face of a device through which a token is reached, or until when it may yet be seen.
func (r *Registry) findToken(id device.TokenID) (*port, time.Time, error) {
	row, _ := device.ApplicationOf(id)
	if !slices.Contains(row.Faces, device.Reports) {
		return r.findCard(id.Device())
	}
	p, until, err := r.findKey(id.Device())
	if err != nil {
		return nil, until, err
	}
	if !p.isCard() {
		return cmp.Or(r.instead(p, row), p), until, nil
	}
	until = p.plugged.Add(cardComes) // the other face may still be coming
	if slices.Contains(row.Faces, device.Cards) && !until.After(time.Now()) {
		return p, time.Time{}, nil
	}
	return nil, until, &AbsentError{ID: id.Device(), Card: true}
}

// instead is the card of a key whose HID interface cannot be opened, for a token that is reached through either.
func (r *Registry) instead(p *port, row device.Application) *port {
	card := r.other(p)
	if card == nil || !card.announced || card.key.Problem != "" || p.key.Info.Problem == "" || !slices.Contains(row.Faces, device.Cards) {
		return nil
	}
	return card
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
