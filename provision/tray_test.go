package provision_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/bussocket"
	"tokendesk/device/emulator"
	"tokendesk/device/otpslot"
	"tokendesk/provision"
	"tokendesk/vault/secret"
)

// tray is several keys behind one socket, and a Runner that has no vault.
type tray struct {
	*provision.Runner
	t    testing.TB
	keys []*emulator.YubiKey
	bus  *bussocket.Bus
	told chan provision.Progress
	done chan error
}

// newTray has n keys whose both slots hold a seed.
func newTray(t testing.TB, n int) *tray {
	t.Helper()
	dir, err := os.MkdirTemp("", "td")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &tray{t: t, told: make(chan provision.Progress, 1000), done: make(chan error, 1)}
	for i := range n {
		d.keys = append(d.keys, emulator.New(emulator.Options{
			Serial: serial + device.Serial(i), Firmware: device.Version{Major: 5, Minor: 4, Build: 3}, Timing: &emulator.Timing{},
		}))
	}
	socket := filepath.Join(dir, "emu.sock")
	server, err := emulator.Listen(socket, d.keys...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	d.bus = bussocket.New(socket)
	d.Runner = &provision.Runner{Open: d.open, Await: d.await}
	for i := range d.keys {
		for slot := 1; slot <= 2; slot++ {
			d.program(i, slot)
		}
	}
	return d
}

func (d *tray) id(i int) device.ID { return device.YubiKeyID(d.keys[i].Serial()) }

func (d *tray) ids() (all []device.ID) {
	for i := range d.keys {
		all = append(all, d.id(i))
	}
	return all
}

func (d *tray) path(id device.ID) string {
	i := slices.Index(d.ids(), id)
	return fmt.Sprintf("emu%d:1.0", i+1)
}

func (d *tray) open(ctx context.Context, id device.TokenID, fn func(device.HOTPToken, bool) error) error {
	report, err := d.bus.Open(ctx, d.path(id.Device()))
	if err != nil {
		return err
	}
	defer report.Close()
	slot, err := otpslot.New(report).Slot(id.Slot())
	if err != nil {
		return err
	}
	return fn(slot, true)
}

func (d *tray) await(ctx context.Context, id device.ID) error {
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	here := false
	err := d.bus.Watch(ctx, func(e device.Event) {
		if e.Info.Path == d.path(id) && !e.Removed {
			here = true
			enough()
		}
	})
	if here {
		return nil
	}
	return err
}

func (d *tray) program(i, slot int) {
	d.t.Helper()
	err := d.open(d.t.Context(), device.SlotToken(d.id(i), slot), func(t device.HOTPToken, _ bool) error {
		return t.Program(d.t.Context(), device.HOTPConfig{Seed: secret.Random(20), Digits: 6, Enter: true})
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// run runs a tray of all keys and waits until those at hand are ready.
func (d *tray) run(ctx context.Context, each func(provision.Typed) (bool, error)) {
	d.t.Helper()
	go func() { d.done <- d.Tray(ctx, d.ids(), each, func(p provision.Progress) { d.told <- p }) }()
	for range d.keys {
		d.hears(provision.Ready)
	}
}

// hears is the next thing told, which has to be of a kind.
func (d *tray) hears(kind provision.ProgressKind) provision.Progress {
	d.t.Helper()
	p := awaited(d.t, d.told)
	if p.Kind != kind || p.Device == "" {
		d.t.Fatalf("told %+v, want %s of a device", p, kind)
	}
	return p
}

func awaited[T any](t testing.TB, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(patience):
		t.Fatal("nothing happened")
	}
	return v
}

// touch touches a held key; the code goes to whoever holds it.
func (d *tray) touch(i int, long bool) {
	d.t.Helper()
	if _, held, err := d.keys[i].Touch(long); err != nil || !held {
		d.t.Fatalf("touch of %s: held %v, %v", d.id(i), held, err)
	}
}

// ends waits until Tray has returned, and sees that every key was given back and no goroutine is left.
func (d *tray) ends() error {
	d.t.Helper()
	err := awaited(d.t, d.done)
	for i := range d.keys {
		if _, held, touchErr := d.keys[i].Touch(true); touchErr == nil && held {
			d.t.Errorf("%s is still held", d.id(i))
		}
		for slot := 1; slot <= 2; slot++ {
			release, busy := d.Claim(device.SlotToken(d.id(i), slot))
			if busy != nil {
				d.t.Fatal(busy)
			}
			release()
		}
	}
	for deadline := time.Now().Add(patience); ; runtime.Gosched() { // one that is just returning is not left
		left := goroutine()
		if left == "" {
			return err
		}
		if time.Now().After(deadline) {
			d.t.Errorf("a goroutine is left:\n%s", left)
			return err
		}
	}
}

// goroutine is the stack of one that a Runner has started, if there is any.
func goroutine() string {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for s := range strings.SplitSeq(string(stacks), "\n\n") {
		if strings.Contains(s, "provision.(*Runner)") {
			return s
		}
	}
	return ""
}

// take is an each that passes codes on; a key is done after so many.
func take(n int) (each func(provision.Typed) (bool, error), typed chan provision.Typed) {
	typed = make(chan provision.Typed, 1000)
	count := map[device.ID]int{}
	return func(c provision.Typed) (bool, error) {
		typed <- c
		count[c.Device]++
		return count[c.Device] >= n, nil
	}, typed
}

func TestTrayEndsWhenEveryKeyIsDone(t *testing.T) {
	d := newTray(t, 4)
	each, typed := take(2)
	d.run(t.Context(), each)
	// In any order, from both slots, and one key more often than needed.
	for _, i := range []int{2, 0, 2, 2, 1, 0, 3, 1} {
		d.touch(i, i%2 == 0)
		if c := awaited(t, typed); c.Device != d.id(i) || len(c.Code) != 6 {
			t.Fatalf("%s was touched, and %+v is what came", d.id(i), c)
		}
	}
	select {
	case err := <-d.done:
		t.Fatalf("it ended with %v before the last key was done", err)
	default:
	}
	d.touch(3, false)
	if err := d.ends(); err != nil {
		t.Fatal(err)
	}
}

// What was typed by the time the last key is done is not lost, and not typed into another window.
func TestTrayHandsOnWhatWasTypedAlready(t *testing.T) {
	d := newTray(t, 2)
	inside, goOn := make(chan bool), make(chan bool)
	var codes []provision.Typed
	d.run(t.Context(), func(c provision.Typed) (bool, error) {
		if codes = append(codes, c); len(codes) == 2 {
			inside <- true
			<-goOn
		}
		return true, nil
	})
	d.touch(0, true)
	d.touch(1, true)
	awaited(t, inside)
	d.touch(0, true)
	d.touch(1, true)
	goOn <- true
	if err := d.ends(); err != nil {
		t.Fatal(err)
	}
	if len(codes) != 4 {
		t.Errorf("4 touches came as %+v", codes)
	}
}

func TestTrayTakesAPulledKeyAgain(t *testing.T) {
	d := newTray(t, 2)
	each, typed := take(2)
	d.run(t.Context(), each)
	d.touch(0, true)
	awaited(t, typed)
	d.keys[0].Remove()
	if p := d.hears(provision.Away); p.Device != d.id(0) || !strings.Contains(p.Text, "unplugged") {
		t.Errorf("%+v", p)
	}
	d.touch(1, true) // the others go on
	awaited(t, typed)
	d.keys[0].Insert()
	if p := d.hears(provision.Ready); p.Device != d.id(0) {
		t.Errorf("%+v", p)
	}
	d.touch(0, true)
	awaited(t, typed)
	d.touch(1, true)
	if err := d.ends(); err != nil {
		t.Fatal(err)
	}
}

func TestTrayIsEndedByTheOfficer(t *testing.T) {
	for _, c := range []struct{ cause, want error }{{provision.ErrEnough, nil}, {nil, context.Canceled}} {
		d := newTray(t, 3)
		each, typed := take(2)
		ctx, end := context.WithCancelCause(t.Context())
		d.run(ctx, each)
		d.touch(1, true)
		awaited(t, typed)
		end(c.cause)
		if err := d.ends(); !errors.Is(err, c.want) {
			t.Errorf("ended by %v it returns %v", c.cause, err)
		}
	}
}

func TestTrayWithoutATouch(t *testing.T) {
	d := newTray(t, 2)
	d.TouchTimeout = 200 * time.Millisecond
	each, typed := take(1)
	d.run(t.Context(), each)
	d.touch(0, true)
	awaited(t, typed)
	if err := d.ends(); !errors.Is(err, device.ErrNoTouch) {
		t.Errorf("%v", err)
	}
}

func TestTrayEndsWithAnErrorOfEach(t *testing.T) {
	d := newTray(t, 3)
	mine := errors.New("mine")
	calls := 0
	d.run(t.Context(), func(provision.Typed) (bool, error) { calls++; return true, mine })
	d.touch(0, true)
	if err := d.ends(); !errors.Is(err, mine) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

// Other work keeps its key, and the tray goes on without it; nothing else gets at the keys of a tray.
func TestTrayAndOtherWork(t *testing.T) {
	d := newTray(t, 2)
	second := device.SlotToken(d.id(0), 2)
	release, err := d.Claim(second)
	if err != nil {
		t.Fatal(err)
	}
	each, typed := take(1)
	ids := append(d.ids(), d.id(1)) // one twice
	go func() { d.done <- d.Tray(t.Context(), ids, each, func(p provision.Progress) { d.told <- p }) }()
	if p := d.hears(provision.Away); p.Device != d.id(0) || !strings.Contains(p.Text, string(second)) {
		t.Errorf("%+v", p)
	}
	d.hears(provision.Ready)
	for slot := 1; slot <= 2; slot++ {
		_, err := d.Claim(device.SlotToken(d.id(1), slot))
		wantRefused(t, err, string(d.id(1)))
	}
	free, err := d.Claim(device.SlotToken(d.id(0), 1)) // what the tray had of it for a moment is free again
	if err != nil {
		t.Fatal(err)
	}
	free()
	release()
	d.touch(1, true)
	awaited(t, typed)
	if err := d.ends(); err != nil {
		t.Fatal(err)
	}
}

func TestTrayOfNothing(t *testing.T) {
	d := newTray(t, 1)
	err := d.Tray(t.Context(), nil, nil, nil)
	wantRefused(t, err, "no keys", "insert")

	release, err := d.Claim(device.SlotToken(d.id(0), 1))
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	err = d.Tray(t.Context(), d.ids(), nil, func(p provision.Progress) { d.told <- p })
	wantRefused(t, err, "another officer's work", "wait")
	d.hears(provision.Away)
}

// A line that is no code is told, and handed to nobody.
func TestTrayPassesOverWhatIsNoCode(t *testing.T) {
	d := newTray(t, 1)
	err := d.open(t.Context(), device.SlotToken(d.id(0), 1), func(s device.HOTPToken, _ bool) error {
		return s.Program(t.Context(), device.HOTPConfig{Seed: secret.Random(20), Digits: 6})
	})
	if err != nil {
		t.Fatal(err)
	}
	each, typed := take(1)
	d.run(t.Context(), each)
	d.touch(0, false) // without Enter, two touches make one line
	d.touch(0, false)
	d.hears(provision.Note)
	if len(typed) != 0 {
		t.Errorf("%+v is taken for a code", <-typed)
	}
	d.touch(0, true)
	awaited(t, typed)
	if err := d.ends(); err != nil {
		t.Fatal(err)
	}
}

// What is typed after the codes that were accepted is handed on, and does not reach another window.
func TestCaptureHandsOnSurplus(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	touches, n := 0, 0
	var surplus []string
	err := b.Capture(t.Context(), slot2, func(codes []string) (bool, error) { n = len(codes); return n == 2, nil },
		func(code string) { surplus = append(surplus, code) },
		func(p provision.Progress) {
			for p.Kind == provision.Touch && touches < 1+4*p.Codes {
				touches++
				if _, held, err := b.key.Touch(true); err != nil || !held {
					t.Errorf("held %v, %v", held, err)
				}
			}
		})
	if err != nil || n != 2 || len(surplus) != 3 {
		t.Errorf("%d codes and %q after them, %v", n, surplus, err)
	}
}
