// Package devicetest is the conformance suite for a YubiKey on a bus: what a device.Bus and the driver for
// OTP slots promise, checked with a real key at the other end.
//
// It runs over whatever a Rig reaches, the emulator's socket as well as USB, and therefore knows nothing of
// either: it asks for a hand that inserts, pulls and touches the key, and for nothing that only a simulated
// key can do. A key that misbehaves is not its subject; that is tested beside the driver. It overwrites both
// slots, so a rig must never hold a key that somebody uses.
package devicetest

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"runtime/pprof"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/otpslot"
)

// Rig is one key that may be erased, alone on its bus, and the hand beside it. The hand's functions return
// once the thing is done; that the bus notices it later is expected.
type Rig struct {
	Bus      device.Bus
	Serial   device.Serial  // at most 8 digits
	Firmware device.Version // 2.2 or newer
	// Touch touches the key, shortly for slot 1 or long for slot 2.
	Touch          func(ctx context.Context, long bool) error
	Insert, Remove func(ctx context.Context) error
}

// patience is how long something that must happen may take on a slow machine.
const patience = 20 * time.Second

// Run runs the suite. Each test calls rig for a key that is plugged in, held by nobody, and has two empty
// slots; rig releases what it has taken through t.Cleanup.
func Run(t *testing.T, rig func(t *testing.T) Rig) {
	for _, test := range []struct {
		name string
		run  func(*bench)
	}{
		{"watch tells what is present and what changes", watchTells},
		{"pulled and inserted at once", quickChange},
		{"watch ends with its context", watchEnds},
		{"two watches", twoWatches},
		{"an opening is exclusive", exclusive},
		{"a closed key can be opened at once", reopen},
		{"close twice", closeTwice},
		{"open what is not there", openAbsent},
		{"open with an ended context", openCancelled},
		{"report sizes", reportSizes},
		{"a read times out", readTimeout},
		{"pulled during a read", pulledDuringRead},
		{"pulled while open", pulledWhileOpen},
		{"pulled between chunks", pulledBetweenChunks},
		{"status and serial", identity},
		{"program and touch", programAndTouch},
		{"what exactly is typed", typedText},
		{"seeds of every length", seedLengths},
		{"an access code protects", accessCode},
		{"delete", deletion},
		{"the sequence", sequenceRules},
		{"codes go on after pulling", codesSurvive},
		{"a touch of the other slot", otherSlot},
		{"no touch", noTouch},
		{"cancelled while waiting for a touch", cancelledTouch},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := &bench{T: t, Rig: rig(t)}
			b.expectNoLeak()
			b.watch()
			test.run(b)
		})
	}
}

// bench is a test with its rig, a watch on the bus, and the key's place on it.
type bench struct {
	*testing.T
	Rig
	events chan device.Event
	info   device.Info // of the key when it was last seen
}

// expectNoLeak checks at the end of the test that as many goroutines are left as there were.
func (b *bench) expectNoLeak() {
	before := runtime.NumGoroutine()
	b.Cleanup(func() {
		if err := await(func() bool { return runtime.NumGoroutine() <= before }); err != nil {
			var stacks bytes.Buffer
			pprof.Lookup("goroutine").WriteTo(&stacks, 1)
			b.Errorf("%d goroutines are left of %d\n%s", runtime.NumGoroutine(), before, &stacks)
		}
	})
}

// await looks until done, or until patience is at its end.
func await(done func() bool) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !done(); <-tick.C {
		if time.Now().After(end) {
			return device.ErrTimeout
		}
	}
	return nil
}

// watch follows the bus until the end of the test and waits until it has seen the key.
func (b *bench) watch() {
	b.Helper()
	b.events = b.startWatch()
	b.info = b.next(b.events, false)
}

func (b *bench) startWatch() chan device.Event {
	ctx, cancel := context.WithCancel(context.Background())
	events, result := make(chan device.Event, 100), make(chan error, 1)
	go func() { result <- b.Bus.Watch(ctx, func(e device.Event) { events <- e }) }()
	b.Cleanup(func() {
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			b.Errorf("the watch ended with %v", err)
		}
	})
	return events
}

// next is the next event, which must be of the key and of that kind.
func (b *bench) next(events <-chan device.Event, removed bool) device.Info {
	b.Helper()
	select {
	case e := <-events:
		model, known := device.FindModel(e.Info.Vendor, e.Info.Product)
		if e.Removed != removed || e.Info.Path == "" || e.Info.Port == "" || !known || !model.Has(device.OTP) {
			b.Fatalf("the event %+v, where removed should be %v", e, removed)
		}
		return e.Info
	case <-time.After(patience):
		b.Fatalf("no event came, where removed should be %v", removed)
		return device.Info{}
	}
}

// pull removes the key and waits until the bus knows.
func (b *bench) pull() {
	b.Helper()
	if err := b.Remove(b.Context()); err != nil {
		b.Fatal(err)
	}
	if gone := b.next(b.events, true); gone != b.info {
		b.Fatalf("%+v was removed, not %+v", gone, b.info)
	}
}

// insert plugs the key in and waits until the bus knows.
func (b *bench) insert() {
	b.Helper()
	if err := b.Insert(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.info = b.next(b.events, false)
}

// open opens the key until the end of the test.
func (b *bench) open() device.Report {
	b.Helper()
	r, err := b.Bus.Open(b.Context(), b.info.Path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { r.Close() })
	return r
}

// session opens the key and starts a session.
func (b *bench) session() (*otpslot.Session, device.Report) {
	b.Helper()
	r := b.open()
	return otpslot.New(r), r
}

func (b *bench) slot(s *otpslot.Session, number int) *otpslot.Slot {
	b.Helper()
	slot, err := s.Slot(number)
	if err != nil {
		b.Fatal(err)
	}
	return slot
}
