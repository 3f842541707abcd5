package keys_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"tokendesk/cmd/internal/keys"
	"tokendesk/device"
	"tokendesk/device/bussocket"
	"tokendesk/device/emulator"
)

const patience = 20 * time.Second // bounds waits that a bug would make endless

var firmware = device.Version{Major: 5, Minor: 4, Build: 3}

func newKey(serial device.Serial, absent bool) *emulator.YubiKey {
	return emulator.New(emulator.Options{Serial: serial, Firmware: firmware, Absent: absent, Timing: &emulator.Timing{}})
}

// bench is a registry that watches one emulator.
type bench struct {
	*keys.Registry
	t      testing.TB
	socket string
	stop   func() // ends Run and waits for it
	news   chan string
}

// newBench starts a registry; nobody serves its bus yet.
func newBench(t testing.TB) *bench {
	t.Helper()
	return newBenchOn(t, func(b device.Bus) device.Bus { return b })
}

// newBenchOn starts a registry on what is made of the emulator's bus.
func newBenchOn(t testing.TB, of func(device.Bus) device.Bus) *bench {
	t.Helper()
	return newBenchWith(t, of, keys.Cards{})
}

// newCardBench starts a registry that looks for cards as well.
func newCardBench(t testing.TB, c keys.Cards) *bench {
	t.Helper()
	return newBenchWith(t, func(b device.Bus) device.Bus { return b }, c)
}

func newBenchWith(t testing.TB, of func(device.Bus) device.Bus, c keys.Cards) *bench {
	t.Helper()
	dir, err := os.MkdirTemp("", "td")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &bench{t: t, socket: filepath.Join(dir, "emu.sock"), news: make(chan string, 100)}
	b.Registry = keys.New(slog.New(headlines{b.news}), of(bussocket.New(b.socket)))
	if c.Bus != nil {
		awaitEmpty(t)
		b.WatchCards(c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); b.Run(ctx) }()
	b.stop = func() { cancel(); await(t, done) }
	t.Cleanup(func() {
		b.stop()
		deadline := time.Now().Add(patience)
		for left := goroutines(); left != ""; left = goroutines() { // one that is just returning is no leak
			if !time.Now().Before(deadline) {
				t.Errorf("a goroutine outlives Run:\n%s", left)
				return
			}
			runtime.Gosched()
		}
	})
	return b
}

// goroutines is the stack of one that belongs to a registry, if there is any.
func goroutines() string {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for s := range strings.SplitSeq(string(stacks), "\n\n") {
		if strings.Contains(s, "keys.(*") && !strings.Contains(s, "keys_test.") {
			return s
		}
	}
	return ""
}

// serve serves the bus until the test ends or stop is called.
func (b *bench) serve(ks ...emulator.Token) (stop func()) {
	b.t.Helper()
	server, err := emulator.Listen(b.socket, ks...)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(ctx); err != nil {
			b.t.Error(err)
		}
	}()
	stop = func() { cancel(); await(b.t, done) }
	b.t.Cleanup(stop)
	return stop
}

// headlines is a slog.Handler that passes on messages. The log is where changes of a bus become events.
type headlines struct{ to chan string }

func (h headlines) Enabled(context.Context, slog.Level) bool      { return true }
func (h headlines) Handle(_ context.Context, r slog.Record) error { h.to <- r.Message; return nil }
func (h headlines) WithAttrs([]slog.Attr) slog.Handler            { return h }
func (h headlines) WithGroup(string) slog.Handler                 { return h }

func await[T any](t testing.TB, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("nothing happened")
	}
	return v
}

// events are what a watcher hears.
func (b *bench) events() <-chan keys.Event {
	ctx, cancel := context.WithCancel(context.Background())
	heard := make(chan keys.Event, 1000)
	done := make(chan error, 1)
	go func() { done <- b.Watch(ctx, func(e keys.Event) error { heard <- e; return nil }) }()
	b.t.Cleanup(func() {
		cancel()
		if err := await(b.t, done); !errors.Is(err, context.Canceled) {
			b.t.Errorf("the watch ended with %v", err)
		}
	})
	return heard
}

// next is the next event, which has to be of a kind and about a key.
func (b *bench) next(from <-chan keys.Event, kind keys.EventKind, id device.ID) keys.Event {
	b.t.Helper()
	e := await(b.t, from)
	if e.Kind != kind || e.Key.ID != id {
		b.t.Fatalf("%s of %q with problem %q, want %s of %q", e.Kind, e.Key.ID, e.Key.Problem, kind, id)
	}
	return e
}

// arrives is the first event a watch hears of a key: whether it was there when the watch began is the scheduler's choice.
func (b *bench) arrives(from <-chan keys.Event, id device.ID) keys.Event {
	b.t.Helper()
	e := await(b.t, from)
	if e.Kind != keys.Added && e.Kind != keys.Present || e.Key.ID != id {
		b.t.Fatalf("%s of %q with problem %q, want %s", e.Kind, e.Key.ID, e.Key.Problem, id)
	}
	return e
}

// configured tells which slots of a key hold something.
func configured(k keys.Key) (slots [2]bool) {
	for _, h := range k.Holds {
		for i, name := range []string{"otp1", "otp2"} {
			slots[i] = slots[i] || h.Name == name && h.Configured
		}
	}
	return slots
}
