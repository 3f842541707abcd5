package syncer_test

import (
	"context"
	"math"
	"sync"
	"testing"
	"time"

	syncer "tokendesk/sync"
	"tokendesk/vault"
)

// clock is one that a test sets.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Now().Round(0)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func TestPausesStayWithinTheirBounds(t *testing.T) {
	for _, b := range []syncer.Backoff{
		{Min: time.Second, Max: 5 * time.Minute}, {Min: time.Minute, Max: time.Minute}, {Min: 1, Max: math.MaxInt64},
		{Min: math.MaxInt64/2 + 1, Max: math.MaxInt64}, {Min: 3 * time.Second, Max: 7 * time.Second},
	} {
		for attempts := range 70 {
			least, most := time.Duration(math.MaxInt64), time.Duration(0)
			for range 500 {
				p := b.Pause(attempts)
				least, most = min(least, p), max(most, p)
			}
			if most > b.Max || least < b.Min/2 {
				t.Fatalf("%+v: pauses from %d to %d after %d attempts", b, least, most, attempts)
			}
		}
	}
	b := syncer.Backoff{Min: time.Second, Max: 5 * time.Minute}
	for attempts, longest := range []time.Duration{1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
		longest *= time.Second
		least, most := time.Hour, time.Duration(0)
		for range 2000 {
			p := b.Pause(attempts)
			if p < longest/2 || p > longest {
				t.Fatalf("a pause of %s after %d attempts, want %s at most and half of it at least", p, attempts, longest)
			}
			least, most = min(least, p), max(most, p)
		}
		if least > longest*6/10 || most < longest*9/10 {
			t.Errorf("after %d attempts all pauses are between %s and %s: desks would come together", attempts, least, most)
		}
	}
}

// Wherever the clock is set to, nothing waits longer than the longest pause.
func TestClockIsSet(t *testing.T) {
	b := syncer.Backoff{Min: time.Hour, Max: 2 * time.Hour}
	for name, c := range map[string]struct {
		set   time.Duration
		tried bool
	}{
		"left alone":        {0, false},
		"forward":           {3 * time.Hour, true},
		"back by a year":    {-365 * 24 * time.Hour, true},
		"back by 3 hours":   {-3 * time.Hour, true},
		"back by 5 minutes": {-5 * time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t, b)
			clock, fails := newClock(), true
			f.through(&poison{f.c, func(vault.Change) error {
				if fails {
					return errBusy
				}
				return nil
			}}, b)
			f.o.SetClock(clock.now)
			f.enroll(tokenA, 1, 0)
			f.enqueue(vault.Put, tokenA, "", 1, 0)
			due, err := f.o.Pass(t.Context())
			if err != nil || due.Before(clock.now().Add(30*time.Minute)) {
				t.Fatalf("%v, %v", due, err)
			}
			clock.move(c.set)
			fails = false
			due, err = f.o.Pass(t.Context())
			if err != nil || due.Sub(clock.now()) > b.Max {
				t.Errorf("due in %s, %v", due.Sub(clock.now()), err)
			}
			if tried := len(f.left()) == 0; tried != c.tried {
				t.Errorf("tried: %v", tried)
			}
		})
	}
}

func TestSleepIsBounded(t *testing.T) {
	f := open(t, quick)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := f.o.Sleep(ctx, time.Now().Add(1000*time.Hour)); err != nil {
		t.Errorf("it slept on: %v", err)
	}
	if err := f.o.Sleep(ctx, time.Now().Add(-1000*time.Hour)); err != nil {
		t.Errorf("it slept on: %v", err)
	}
}

func TestProgress(t *testing.T) {
	f := open(t, quick)
	s := f.step()
	progress := func() syncer.Progress {
		t.Helper()
		p, err := f.o.Progress()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	f.stock(6, 0)
	if err := f.o.Park(officer, 6, "later"); err != nil {
		t.Fatal(err)
	}
	if p := progress(); p != (syncer.Progress{Left: 5}) {
		t.Errorf("before: %+v", p)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.o.Run(ctx) }()
	for range 3 {
		s.next(t)
	}
	s.await(t) // the fourth is under way, and what was delivered before is recorded meanwhile
	if err := f.wait(3); err != nil {
		t.Fatal(err)
	}
	p := progress()
	if p.Done != 3 || p.Left != 2 || p.PerSecond <= 0 || !p.Until.After(time.Now()) {
		t.Errorf("in the middle: %+v", p)
	}
	s.answer <- nil
	s.next(t)
	if err := f.wait(5); err != nil {
		t.Fatal(err)
	}
	stop()
	<-ended
	if p := progress(); p != (syncer.Progress{Done: 5}) {
		t.Errorf("at the end: %+v", p)
	}

	f.through(f.c, quick) // as after a restart
	if p := progress(); p != (syncer.Progress{}) {
		t.Errorf("after a restart: %+v", p)
	}
	f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.enqueue(vault.Advance, tokenA, "", 1, 4)
	f.deliver()
	if p := progress(); p.Done != 2 || p.Left != 0 {
		t.Errorf("two more: %+v", p)
	}
	f.enqueue(vault.Advance, tokenA, "", 1, 5)
	f.deliver()
	if p := progress(); p.Done != 1 {
		t.Errorf("the next one counts anew: %+v", p)
	}
}
