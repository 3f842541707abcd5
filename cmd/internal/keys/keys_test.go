package keys_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"tokendesk/cmd/internal/keys"
	"tokendesk/device"
	"tokendesk/device/emulator"
	"tokendesk/vault/secret"
)

const (
	anna device.ID = "yk-10000001"
	bert device.ID = "yk-10000002"
)

func TestEventsComeInOrder(t *testing.T) {
	b := newBench(t)
	first, second := newKey(10000001, false), newKey(10000002, true)
	b.serve(first, second)
	early := b.events()
	added := b.arrives(early, anna)
	if k := added.Key; k.Serial != 10000001 || k.Firmware != firmware || k.Bus != "emulator" || k.Info.Port != "emu1" ||
		!k.Info.Emulated || k.Problem != "" || k.New || configured(k) != [2]bool{} {
		t.Errorf("%+v", k)
	}
	late := b.events()
	if k := b.next(late, keys.Present, anna).Key; !reflect.DeepEqual(k, added.Key) {
		t.Errorf("present as %+v", k)
	}
	second.Insert()
	for _, heard := range []<-chan keys.Event{early, late} {
		b.next(heard, keys.Added, bert)
	}
	if err := b.program(t.Context(), bert); err != nil {
		t.Fatal(err)
	}
	if list := b.List(); len(list) != 2 || list[0].ID != anna || list[1].ID != bert || configured(list[1]) != [2]bool{false, true} {
		t.Errorf("after Use: %+v", list)
	}
	first.Remove()
	for _, heard := range []<-chan keys.Event{early, late} {
		if k := b.next(heard, keys.Changed, bert).Key; configured(k) != [2]bool{false, true} {
			t.Errorf("changed to %+v", k)
		}
		b.next(heard, keys.Removed, anna)
	}
	if b.Inserted(anna) || !b.Inserted(bert) {
		t.Errorf("inserted is %+v", b.List())
	}
	first.Insert()
	b.next(early, keys.Added, anna)
	b.next(late, keys.Added, anna)
}

// program writes slot 2 of a key.
func (b *bench) program(ctx context.Context, id device.ID) error {
	return b.Use(ctx, device.SlotToken(id, 2), func(ctx context.Context, slot device.HOTPToken, k keys.Key) error {
		if k.ID != id {
			b.t.Errorf("lent %s instead of %s", k.ID, id)
		}
		return slot.Program(ctx, device.HOTPConfig{Seed: secret.New([]byte("seed")), Digits: 6})
	})
}

func TestTwoKeysWithOneSerialAreBothRefused(t *testing.T) {
	b := newBench(t)
	twin := newKey(10000001, true)
	b.serve(newKey(10000001, false), twin)
	heard := b.events()
	b.arrives(heard, anna)
	twin.Insert()
	names := func(k keys.Key) bool {
		return strings.Contains(k.Problem, "port emu1") && strings.Contains(k.Problem, "port emu2")
	}
	if k := b.next(heard, keys.Added, anna).Key; k.Info.Port != "emu2" || !names(k) {
		t.Errorf("the second one: %+v", k)
	}
	if k := b.next(heard, keys.Changed, anna).Key; k.Info.Port != "emu1" || !names(k) {
		t.Errorf("the first one: %+v", k)
	}
	list := b.List()
	if len(list) != 2 || !names(list[0]) || list[0].Problem != list[1].Problem {
		t.Errorf("%+v", list)
	}
	err := b.program(t.Context(), anna)
	if err == nil || !strings.Contains(err.Error(), "port emu1") || !strings.Contains(err.Error(), "port emu2") {
		t.Errorf("use: %v", err)
	}
	twin.Remove()
	b.next(heard, keys.Removed, anna)
	if k := b.next(heard, keys.Changed, anna).Key; k.Info.Port != "emu1" || k.Problem != "" {
		t.Errorf("the one that is left: %+v", k)
	}
	if err := b.program(t.Context(), anna); err != nil {
		t.Error(err)
	}
}

func TestPulledKeyEndsItsUse(t *testing.T) {
	b := newBench(t)
	key := newKey(10000001, false)
	b.serve(key)
	heard := b.events()
	b.arrives(heard, anna)
	err := b.Use(t.Context(), device.SlotToken(anna, 2), func(ctx context.Context, _ device.HOTPToken, _ keys.Key) error {
		key.Remove()
		await(t, ctx.Done())
		return ctx.Err()
	})
	if !errors.Is(err, device.ErrGone) {
		t.Errorf("%v", err)
	}
	b.next(heard, keys.Removed, anna)
	err = b.program(t.Context(), anna)
	var absent *keys.AbsentError
	if !errors.As(err, &absent) || absent.ID != anna || !errors.Is(err, device.ErrGone) {
		t.Errorf("when it is out: %v", err)
	}
	key.Insert()
	b.next(heard, keys.Added, anna)
	if err := b.program(t.Context(), anna); err != nil {
		t.Error(err)
	}
}

func TestUseIsExclusiveAndOrderly(t *testing.T) {
	b := newBench(t)
	b.serve(newKey(10000001, false))
	heard := b.events()
	b.arrives(heard, anna)
	inside, leave, done := make(chan bool, 1), make(chan bool), make(chan error, 1)
	go func() {
		done <- b.Use(context.Background(), device.SlotToken(anna, 2), func(context.Context, device.HOTPToken, keys.Key) error {
			inside <- true
			<-leave
			return nil
		})
	}()
	await(t, inside)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := b.program(ctx, anna); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("the second: %v", err)
	}
	close(leave)
	if err := await(t, done); err != nil {
		t.Error(err)
	}
	mine := errors.New("mine")
	err := b.Use(t.Context(), device.SlotToken(anna, 2), func(context.Context, device.HOTPToken, keys.Key) error { return mine })
	if !errors.Is(err, mine) {
		t.Errorf("%v", err)
	}
}

// What a caller has no patience for is no problem of the key.
func TestImpatienceIsNotTheKeysProblem(t *testing.T) {
	b := newBench(t)
	key := newKey(10000001, false)
	b.serve(key)
	heard := b.events()
	b.arrives(heard, anna)
	if err := key.SetFault(emulator.FaultSlowOpen, 600_000); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := b.program(ctx, anna); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if list := b.List(); len(list) != 1 || list[0].Problem != "" {
		t.Errorf("%+v", list)
	}
	key.Remove()
	b.next(heard, keys.Removed, anna) // and nothing before it
}

func TestKeyThatIsHeldElsewhereRecovers(t *testing.T) {
	b := newBench(t)
	key := newKey(10000001, true)
	b.serve(key)
	heard := b.events()
	hold := func() {
		t.Helper()
		if err := key.SetFault(emulator.FaultExclusiveOpen, 0); err != nil {
			t.Fatal(err)
		}
	}
	release := func() {
		t.Helper()
		if err := key.SetFault(emulator.FaultClear, 0); err != nil {
			t.Fatal(err)
		}
		if k := b.next(heard, keys.Changed, anna).Key; k.Problem != "" {
			t.Errorf("still %q", k.Problem)
		}
	}
	hold()
	key.Insert()
	e := b.arrives(heard, "")
	if !strings.Contains(e.Key.Problem, "port emu1") || !strings.Contains(e.Key.Problem, "held by another program") {
		t.Errorf("%q", e.Key.Problem)
	}
	err := b.program(t.Context(), anna)
	if absent := (*keys.AbsentError)(nil); !errors.As(err, &absent) || !strings.Contains(err.Error(), e.Key.Problem) {
		t.Errorf("use names no cause: %v", err)
	}
	release()

	hold() // after it was identified
	if err := b.program(t.Context(), anna); !errors.Is(err, device.ErrBusy) {
		t.Errorf("%v", err)
	}
	if k := b.next(heard, keys.Changed, anna).Key; !strings.Contains(k.Problem, "held by another program") {
		t.Errorf("%+v", k)
	}
	release()
}

// hopeless is a bus whose devices have no OTP application.
type hopeless struct{ device.Bus }

func (h hopeless) Watch(ctx context.Context, fn func(device.Event)) error {
	return h.Bus.Watch(ctx, func(e device.Event) {
		e.Info.Problem, e.Info.Cure = "it has no OTP application", "use another"
		fn(e)
	})
}

func (h hopeless) Open(context.Context, string) (device.Report, error) {
	panic("a device that cannot be opened was opened")
}

func TestADeviceThatCannotBeOpenedIsShownWithItsReason(t *testing.T) {
	b := newBenchOn(t, func(bus device.Bus) device.Bus { return hopeless{bus} })
	key := newKey(10000001, false)
	b.serve(key)
	heard := b.events()
	if k := b.arrives(heard, "").Key; k.Trouble() != "emulator port emu1: it has no OTP application: use another" {
		t.Errorf("%+v", k)
	}
	if err := b.program(t.Context(), anna); err == nil || !strings.Contains(err.Error(), "no OTP application: use another") {
		t.Errorf("use names no cause: %v", err)
	}
	key.Remove()
	b.next(heard, keys.Removed, "")
}

func TestAnAbsentBusIsNamedAndComesBack(t *testing.T) {
	b := newBench(t)
	if got := await(t, b.news); got != "bus lost" {
		t.Fatalf("log: %q", got)
	}
	if problem := b.BusProblems()["emulator"]; !strings.Contains(problem, b.socket) || !strings.Contains(problem, "tokenemu serve") {
		t.Errorf("%q", problem)
	}
	if err := b.program(t.Context(), anna); err == nil || !strings.Contains(err.Error(), b.socket) {
		t.Errorf("use names no cause: %v", err)
	}
	key := newKey(10000001, true) // nothing is inserted, so nothing but the bus can be heard of
	stop := b.serve(key)
	if got := await(t, b.news); got != "bus is back" {
		t.Fatalf("log: %q", got)
	}
	if p := b.BusProblems(); len(p) != 1 || p["emulator"] != "" {
		t.Errorf("%v", p)
	}
	heard := b.events()
	key.Insert()
	b.arrives(heard, anna)

	err := b.Use(t.Context(), device.SlotToken(anna, 2), func(ctx context.Context, _ device.HOTPToken, _ keys.Key) error {
		stop()
		await(t, ctx.Done())
		return ctx.Err()
	})
	if !errors.Is(err, device.ErrGone) {
		t.Errorf("use of a lost bus: %v", err)
	}
	b.next(heard, keys.Removed, anna)
	if got := await(t, b.news); got != "bus lost" {
		t.Fatalf("log: %q", got)
	}
	if b.BusProblems()["emulator"] == "" || len(b.List()) != 0 {
		t.Errorf("%v, %+v", b.BusProblems(), b.List())
	}
	b.serve(newKey(10000002, false))
	b.next(heard, keys.Added, bert)
}

func TestASlowWatcherIsCutOff(t *testing.T) {
	b := newBench(t)
	key := newKey(10000001, true)
	b.serve(key)
	heard := b.events()
	stuck, release, done := make(chan bool, 1), make(chan bool), make(chan error, 1)
	n := 0
	go func() {
		done <- b.Watch(context.Background(), func(keys.Event) error {
			if n++; n == 1 {
				stuck <- true
				<-release
			}
			return nil
		})
	}()
	for range 40 {
		key.Insert()
		b.arrives(heard, anna)
		key.Remove()
		b.next(heard, keys.Removed, anna)
	}
	await(t, stuck)
	close(release)
	if err := await(t, done); err == nil || !strings.Contains(err.Error(), "too far behind") {
		t.Errorf("%v", err)
	}
	if n >= 80 {
		t.Errorf("it heard all %d events", n)
	}
}

func TestAWatchEndsWithItsFunction(t *testing.T) {
	b := newBench(t)
	b.serve(newKey(10000001, false))
	b.arrives(b.events(), anna)
	enough := errors.New("enough")
	if err := b.Watch(t.Context(), func(keys.Event) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("%v", err)
	}
}

// What the desk is stopped in was not unplugged.
func TestStoppingEndsAUse(t *testing.T) {
	b := newBench(t)
	b.serve(newKey(10000001, false))
	b.arrives(b.events(), anna)
	inside, done := make(chan bool, 1), make(chan error, 1)
	go func() {
		done <- b.Use(context.Background(), device.SlotToken(anna, 2), func(ctx context.Context, _ device.HOTPToken, _ keys.Key) error {
			inside <- true
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	await(t, inside)
	b.stop()
	if err := await(t, done); !errors.Is(err, context.Canceled) || errors.Is(err, device.ErrGone) {
		t.Errorf("%v", err)
	}
}
