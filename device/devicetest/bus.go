package devicetest

import (
	"context"
	"errors"
	"time"

	"tokendesk/device"
)

func watchTells(b *bench) {
	if b.Bus.Name() == "" {
		b.Error("the bus has no name")
	}
	for range 2 {
		b.pull()
		b.insert()
	}
	select {
	case e := <-b.events:
		b.Fatalf("an event too many: %+v", e)
	default:
	}
}

// A key that comes back before anybody has looked is told of as well: it may be another one.
func quickChange(b *bench) {
	if err := errors.Join(b.Remove(b.Context()), b.Insert(b.Context())); err != nil {
		b.Fatal(err)
	}
	if gone := b.next(b.events, true); gone != b.info {
		b.Fatalf("%+v was removed, not %+v", gone, b.info)
	}
	b.info = b.next(b.events, false)
	b.open()
}

func watchEnds(b *bench) {
	ctx, cancel := context.WithCancel(b.Context())
	start := time.Now()
	if err := b.Bus.Watch(ctx, func(device.Event) { cancel() }); !errors.Is(err, context.Canceled) {
		b.Fatalf("cancelled from within: %v", err)
	}
	ctx, cancel = context.WithTimeout(b.Context(), 50*time.Millisecond)
	defer cancel()
	if err := b.Bus.Watch(ctx, func(device.Event) {}); !errors.Is(err, context.DeadlineExceeded) {
		b.Fatalf("while nothing happens: %v", err)
	}
	if d := time.Since(start); d > patience {
		b.Fatalf("they took %v", d)
	}
}

// A second watcher sees the present key and the same changes, and neither disturbs the other.
func twoWatches(b *bench) {
	second := b.startWatch()
	if seen := b.next(second, false); seen != b.info {
		b.Fatalf("the second watch saw %+v, the first %+v", seen, b.info)
	}
	b.pull()
	b.next(second, true)
	b.insert()
	if seen := b.next(second, false); seen != b.info {
		b.Fatalf("the second watch saw %+v, the first %+v", seen, b.info)
	}
}

func exclusive(b *bench) {
	r := b.open()
	for range 2 {
		if _, err := b.Bus.Open(b.Context(), b.info.Path); !errors.Is(err, device.ErrBusy) {
			b.Fatalf("the second opener: %v", err)
		}
		if err := r.GetFeature(make([]byte, device.ReportSize)); err != nil {
			b.Fatalf("the attempt has harmed the first: %v", err)
		}
	}
}

func reopen(b *bench) {
	for range 3 {
		r := b.open()
		if err := r.GetFeature(make([]byte, device.ReportSize)); err != nil {
			b.Fatal(err)
		}
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func closeTwice(b *bench) {
	r := b.open()
	for range 2 {
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
	p := make([]byte, device.ReportSize)
	if r.SetFeature(reset()) == nil || r.GetFeature(p) == nil {
		b.Error("a closed report still works")
	}
	if _, err := r.ReadInput(p, time.Millisecond); err == nil {
		b.Error("a closed report can still be read")
	}
	// The second Close must not close what was opened in the meantime.
	again := b.open()
	if err := r.Close(); err != nil {
		b.Fatal(err)
	}
	if err := again.GetFeature(p); err != nil {
		b.Fatalf("a late Close has closed another opening: %v", err)
	}
}

func openAbsent(b *bench) {
	if _, err := b.Bus.Open(b.Context(), "no-such-path"); !errors.Is(err, device.ErrGone) {
		b.Errorf("a path that never was: %v", err)
	}
	b.pull()
	if _, err := b.Bus.Open(b.Context(), b.info.Path); !errors.Is(err, device.ErrGone) {
		b.Errorf("a key that was pulled: %v", err)
	}
}

func openCancelled(b *bench) {
	ctx, cancel := context.WithCancel(b.Context())
	cancel()
	if _, err := b.Bus.Open(ctx, b.info.Path); !errors.Is(err, context.Canceled) {
		b.Fatal(err)
	}
	b.open()
}

func reportSizes(b *bench) {
	r := b.open()
	for _, n := range []int{0, 1, 8, 10, 64} {
		if err := r.SetFeature(make([]byte, n)); err == nil {
			b.Errorf("a feature report of %d bytes was sent", n)
		}
		if err := r.GetFeature(make([]byte, n)); err == nil {
			b.Errorf("a feature report was read into %d bytes", n)
		}
	}
	if err := r.SetFeature([]byte{1, 8: 0x8F}); err == nil {
		b.Error("a report number other than 0 was sent")
	}
	for _, n := range []int{0, 7} {
		if _, err := r.ReadInput(make([]byte, n), time.Millisecond); err == nil {
			b.Errorf("a keyboard report was read into %d bytes", n)
		}
	}
	if err := r.GetFeature(make([]byte, device.ReportSize)); err != nil {
		b.Errorf("the report is unusable after that: %v", err)
	}
}

func readTimeout(b *bench) {
	r := b.open()
	p := make([]byte, 8)
	for _, timeout := range []time.Duration{0, time.Microsecond, 30 * time.Millisecond} {
		start := time.Now()
		n, err := r.ReadInput(p, timeout)
		if n != 0 || err != nil {
			b.Fatalf("nothing was typed, but %d bytes came, %v", n, err)
		}
		if d := time.Since(start); d < timeout/2 || d > timeout+5*time.Second {
			b.Errorf("a read of %v took %v", timeout, d)
		}
	}
}

// reset is a feature report that changes nothing.
func reset() []byte { return []byte{8: 0x8F} }
