package syncer

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"tokendesk/device"
)

// patience is how many changes may find the service unavailable, one after the other, before it is asked for itself.
const patience = 3

// outage is a time in which the service does not answer.
type outage struct {
	problem string // what it was found out by; empty while the service answers
	again   time.Time
	strikes int // changes that found it unavailable since it last answered
	asked   int // how often it was asked for itself in vain
}

// deliver applies one entry and notes the outcome. It returns an error only if it could not be recorded,
// or if ctx ended, which says nothing about the entry.
func (p *pass) deliver(ctx context.Context, a attempt) error {
	defer a.seed.Wipe()
	p.begin()
	out := outcome{change: a.change, obsolete: a.obsolete}
	if a.obsolete == "" {
		var err error
		out.seen, err = p.c.Apply(ctx, a.order(), a.seed)
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			p.fail(&out, err)
		}
		if err := p.forecast(ctx, a.change.Token, err); err != nil {
			return err
		}
	}
	if a.why != asCutOff {
		p.moved = true
	}
	if a.why != asNext && p.waiting && (!out.failed() || out.closed && a.change.User != "") {
		p.freed = true
	}
	return p.note(out)
}

// fail says when an entry is tried again, if it is.
func (p *pass) fail(out *outcome, err error) {
	out.problem, out.closed = err.Error(), errors.Is(err, ErrRemains)
	if out.refused = errors.Is(err, ErrRefused); !out.refused {
		out.notBefore = p.now().UTC().Add(p.backoff.pause(out.change.Attempts + 1))
		p.pause(out.change, out.notBefore)
		p.apart = p.apart || out.closed
	}
}

// forecast judges from what became of one change whether the service answers at all. Where it does, each change has its own pause;
// where it does not, they are all left as they are, and one at a time finds out whether it is back.
func (p *pass) forecast(ctx context.Context, id device.TokenID, failure error) error {
	now := p.away()
	now.strikes++
	if answered(failure) {
		now = outage{}
	} else if now.strikes >= patience {
		switch _, err := p.c.Observe(ctx, id); {
		case ctx.Err() != nil:
			return ctx.Err()
		case answered(err):
			now = outage{}
		default:
			now.asked++
			now.problem, now.again = failure.Error(), p.now().Add(p.backoff.pause(now.asked))
			p.gone, p.due = true, now.again
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.outage = now
	return nil
}

// answered tells whether the service has said something, if only no.
func answered(err error) bool {
	return err == nil || errors.Is(err, ErrRefused) || errors.Is(err, ErrNotConfirmed)
}

// away tells whether the service is.
func (o *Outbox) away() outage {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.outage
}

// pause doubles with every attempt, and is shortened at random by up to half, so that desks which lost
// the service together do not come back together.
func (b Backoff) pause(attempts int) time.Duration {
	d := b.Min
	for i := 1; i < attempts && d < b.Max; i++ {
		if d > b.Max/2 {
			d = b.Max
			break
		}
		d *= 2
	}
	return d - rand.N(d/2+1)
}
