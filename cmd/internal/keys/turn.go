package keys

import (
	"context"
	"time"
)

// How long a card waits before it is opened to find out whose it is.
const (
	// cardGrace is for the other face of its key to be seen: that is to be identified first, because a YubiKey's OTP
	// application does not answer for about 3 s after its card was used.
	cardGrace = 250 * time.Millisecond
	// cardComes is how long after a key was plugged in its card may be seen.
	cardComes = 3 * time.Second
)

// turn waits until nobody uses another face of the physical key that p is, or may be, a face of, and keeps others from that
// until over is called.
func (r *Registry) turn(ctx context.Context, p *port) (over func(), err error) {
	free := func() bool {
		for q := range r.busy {
			if mayBeOne(p, q) {
				return false
			}
		}
		return true
	}
	if err := r.until(ctx, func() bool {
		if !free() {
			return false
		}
		r.busy[p] = true
		return true
	}); err != nil {
		return nil, err
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.busy, p)
		r.wake()
	}, nil
}

// until waits until ok, which is asked again at each change, or ctx ends.
func (r *Registry) until(ctx context.Context, ok func() bool) error {
	for {
		r.mu.Lock()
		enough, changed := ok(), r.changed
		r.mu.Unlock()
		if enough {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// settled waits until every OTP application is identified that may be on one key with a card, also one that is not seen yet.
// It gives up after a while.
func (r *Registry) settled(ctx context.Context, card *port) error {
	enough, cancel := context.WithDeadline(ctx, card.plugged.Add(newPatience))
	defer cancel()
	here := time.AfterFunc(time.Until(card.plugged.Add(cardGrace)), func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.wake()
	})
	defer here.Stop()
	_ = r.until(enough, func() bool {
		if q := r.other(card); q != nil && q.announced {
			return true
		}
		for _, q := range r.ports {
			if !q.announced && mayBeOne(card, q) {
				return false
			}
		}
		return time.Since(card.plugged) >= cardGrace
	})
	return ctx.Err()
}
