package devicetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"tokendesk/device"
	"tokendesk/sync/hotpscan"
)

// tap is on the line to a device, and does something at one of the calls.
type tap struct {
	calls int
	at    int    // at which call; 0: at none
	do    func() // what
	after bool   // what was asked is carried out before, but its answer is lost
}

func (t *tap) call(send func() error) error {
	t.calls++
	if t.calls != t.at {
		return send()
	}
	if !t.after {
		t.do()
		return send()
	}
	if err := send(); err != nil {
		return err
	}
	t.do()
	return fmt.Errorf("the answer is lost: %w", device.ErrGone)
}

type tappedReport struct {
	device.Report
	*tap
}

func (r *tappedReport) SetFeature(p []byte) error {
	return r.call(func() error { return r.Report.SetFeature(p) })
}

func (r *tappedReport) GetFeature(p []byte) error {
	return r.call(func() error { return r.Report.GetFeature(p) })
}

func (r *tappedReport) ReadInput(p []byte, timeout time.Duration) (n int, err error) {
	err = r.call(func() (err error) { n, err = r.Report.ReadInput(p, timeout); return err })
	return n, err
}

type tappedCard struct {
	device.Card
	*tap
}

func (c *tappedCard) Transmit(apdu []byte) (data []byte, status uint16, err error) {
	err = c.call(func() (err error) { data, status, err = c.Card.Transmit(apdu); return err })
	if err != nil {
		return nil, 0, err
	}
	return data, status, nil
}

// interrupt does an operation again and again, each time with the device pulled at another of its calls. operate has to prepare
// everything but the session, which is opened under the tap, and returns how the operation ended; check looks what is left.
func (b *tokenBench) interrupt(prepare func(), operate func(t device.HOTPToken) error, check func(err error, at string)) {
	b.Helper()
	run := func(t *tap) error {
		b.tap = t
		defer func() { b.tap = nil }()
		s, close, err := b.tryOpen()
		if err != nil {
			return err
		}
		defer close()
		token, err := s.Token(b.Context(), b.ID)
		if err != nil {
			return err
		}
		if err := token.Unlock(b.Context(), b.Password); err != nil {
			return err
		}
		return operate(token)
	}
	prepare()
	whole := &tap{}
	if err := run(whole); err != nil {
		b.Fatal(err)
	}
	b.Logf("%d calls", whole.calls)
	for _, at := range b.sample(2 * whole.calls) {
		prepare()
		pulled := false
		t := &tap{at: at/2 + 1, after: at%2 == 1, do: func() { pulled = true; b.remove() }}
		err := run(t)
		what := fmt.Sprintf("pulled at call %d of %d, its answer lost: %v", t.at, whole.calls, t.after)
		if pulled {
			b.insert()
		}
		if err != nil && (!pulled || !errors.Is(err, device.ErrGone)) {
			b.Fatalf("%s: %v", what, err)
		}
		check(err, what)
		if b.Failed() {
			b.Fatal(what)
		}
	}
}

// sample is all numbers below n, or as many of them as the rig has time for.
func (b *tokenBench) sample(n int) []int {
	all := rand.Perm(n)
	if b.Samples > 0 && n > b.Samples {
		all = all[:b.Samples]
	}
	return all
}

// What a token can hold.
const (
	nothing = "nothing"
	theOld  = "the old seed"
	theNew  = "the new seed"
)

// holds finds out which of two seeds is in the token, both with a counter that is one of the next ones.
func (b *tokenBench) holds(before, after device.HOTPConfig, window uint64) (what string) {
	b.Helper()
	b.use(func(t device.HOTPToken) {
		state, err := t.Describe(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if !state.Configured {
			what = nothing
			return
		}
		code, err := b.code(t)
		if err != nil {
			b.Fatal(err)
		}
		for n := range window {
			switch code {
			case hotpscan.Code(before.Seed, before.Digits, before.StartCounter+n):
				what = theOld
			case hotpscan.Code(after.Seed, after.Digits, after.StartCounter+n):
				what = theNew
			}
		}
		if what == "" {
			b.Fatalf("it says %q, which is a code of neither seed", code)
		}
	})
	return what
}

// left checks what an interrupted operation has left, and that it can be done again.
func (b *tokenBench) left(err error, got, done string, before, after device.HOTPConfig) {
	b.Helper()
	switch {
	case err == nil && got != done:
		b.Errorf("it has ended well, and left %s", got)
	case got == done || got == theOld:
	case got != nothing || b.credential == "": // of a credential, the old one is deleted before the new one is put in
		b.Errorf("it has left %s", got)
	}
	b.use(func(t device.HOTPToken) {
		b.program(t, after)
		b.expect(t, after, after.StartCounter, 1, "done again")
	})
}

// A write that was cut off has changed everything or nothing, and is done again in the same way.
func pulledProgramming(b *tokenBench) {
	before, after := b.config(seedOne), b.config(seedTwo)
	prepare := func() { b.use(func(t device.HOTPToken) { b.program(t, before) }) }
	b.interrupt(prepare, func(t device.HOTPToken) error { return t.Program(b.Context(), after) }, func(err error, at string) {
		b.left(err, b.holds(before, after, 1), theNew, before, after)
	})
}

func pulledDeleting(b *tokenBench) {
	before, after := b.config(seedOne), b.config(seedTwo)
	prepare := func() { b.use(func(t device.HOTPToken) { b.program(t, before) }) }
	b.interrupt(prepare, func(t device.HOTPToken) error { return t.Delete(b.Context(), b.current()) }, func(err error, at string) {
		switch got := b.holds(before, after, 1); {
		case got == theNew || err == nil && got != nothing:
			b.Errorf("%v has left %s", err, got)
		case got == theOld:
			b.use(func(t device.HOTPToken) {
				if err := t.Delete(b.Context(), b.current()); err != nil {
					b.Fatal(err)
				}
			})
		}
		b.use(func(t device.HOTPToken) { b.expectConfigured(t, false) })
	})
}

// Asking changes nothing, but that a code that was asked for may be used up.
func pulledAsking(b *tokenBench) {
	c := b.config(seedOne)
	counter, calculated := uint64(0), false
	b.use(func(t device.HOTPToken) {
		b.program(t, c)
		calculated = t.Emission() == device.Calculated
	})
	ask := func(t device.HOTPToken) error {
		state, err := t.Describe(b.Context())
		if err == nil && !state.Configured {
			b.Error("it is not configured")
		}
		if err != nil || !calculated { // otherwise it waits for a touch, or has no codes here
			return err
		}
		code, err := t.Code(b.Context())
		if err == nil {
			b.expectIs(code, c, counter)
			counter++
		}
		return err
	}
	b.interrupt(func() {}, ask, func(err error, at string) {
		b.use(func(t device.HOTPToken) {
			code, cerr := b.code(t)
			if cerr != nil {
				b.Fatal(cerr)
			}
			if err != nil && calculated && code == hotpscan.Code(c.Seed, c.Digits, counter+1) {
				counter++ // its answer was lost
			}
			b.expectIs(code, c, counter)
			counter++
		})
	})
}

func (b *tokenBench) expectIs(code string, c device.HOTPConfig, counter uint64) {
	b.Helper()
	if want := hotpscan.Code(c.Seed, c.Digits, counter); code != want {
		b.Fatalf("code %d is %q, not %q", counter, code, want)
	}
}

// Nothing is done, and no code used up, in a context that has ended.
func endedContext(b *tokenBench) {
	c := b.config(seedOne)
	b.use(func(t device.HOTPToken) { b.program(t, c) })
	ended, cancel := context.WithCancel(b.Context())
	cancel()
	t, close := b.opened(b.ID)
	for what, call := range map[string]func() error{
		"Describe": func() error { _, err := t.Describe(ended); return err },
		"Program":  func() error { return t.Program(ended, b.config(seedTwo)) },
		"Delete":   func() error { return t.Delete(ended, b.current()) },
		"Code": func() error {
			_, err := t.Code(ended)
			if t.Emission() == device.Elsewhere && err != nil {
				return ended.Err() // it has none in any context
			}
			return err
		},
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			b.Errorf("%s: %v", what, err)
		}
	}
	close()
	b.use(func(t device.HOTPToken) { b.expect(t, c, 0, 1, "after calls in an ended context") })
}

// A write that is given up ends like one that was cut off.
func givenUpProgramming(b *tokenBench) {
	before, after := b.config(seedOne), b.config(seedTwo)
	giveUp := func(at int) (calls int, err error) {
		b.use(func(t device.HOTPToken) { b.program(t, before) })
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		line := &tap{do: cancel}
		b.tap = line
		t, close := b.opened(b.ID)
		b.tap = nil
		defer close()
		line.calls, line.at = 0, at
		err = t.Program(ctx, after)
		return line.calls, err
	}
	calls, err := giveUp(0)
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range b.sample(calls) {
		_, err := giveUp(n + 1)
		if err != nil && !errors.Is(err, context.Canceled) {
			b.Fatalf("given up at call %d of %d: %v", n+1, calls, err)
		}
		b.left(err, b.holds(before, after, 1), theNew, before, after)
	}
}
