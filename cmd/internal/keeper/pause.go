package keeper

import (
	"sync"
	"time"
)

const (
	retryMin = time.Second
	retryMax = time.Minute
)

// pause grows with every failure, from a second to a minute.
type pause struct {
	mu    sync.Mutex
	until time.Time
	last  time.Duration
}

func (p *pause) fail(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = min(max(2*p.last, retryMin), retryMax)
	p.until = now.Add(p.last)
}

func (p *pause) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until, p.last = time.Time{}, 0
}

// over is when the pause ends; zero if there is none.
func (p *pause) over() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.until
}
