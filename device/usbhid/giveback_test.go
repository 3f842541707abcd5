package usbhid

import (
	"context"
	"errors"
	"testing"
	"time"
	"unsafe"
)

// kernel counts what a bus asks of it, and does it.
func kernel(f *files, b *bus, path string) (asked *int) {
	asked = new(int)
	b.connect = func(string, int) error { *asked++; f.bind(path, "usbhid"); return nil }
	return asked
}

// run looks every leftPeriod/leftLooks as Watch does, and says how often the kernel was asked.
func (f *files) run(w *watch, now *time.Time, d time.Duration, asked *int) int {
	f.Helper()
	before := *asked
	for end := now.Add(d); now.Before(end); *now = now.Add(leftPeriod / leftLooks) {
		if _, _, err := w.look(*now); err != nil {
			f.Fatal(err)
		}
		w.returns.Wait()
	}
	return *asked - before
}

func TestKeysLeftBehindAreGivenBack(t *testing.T) {
	f, now := newFiles(t), time.Now()
	w := newWatch(f)
	k := f.plugKey("1-1")
	asked := kernel(f, w.bus, "1-1:1.0")
	f.bind("1-1:1.0", "")
	if again := f.expect(w, now, "+1-1:1.0"); again == 0 || again > leftPeriod/2 { // it is told at once
		t.Errorf("it will look again after %v", again)
	}
	if n := f.run(w, &now, leftPeriod, asked); n != 0 {
		t.Errorf("after less than %v the kernel was asked %d times", leftPeriod, n)
	}
	if n := f.run(w, &now, leftPeriod, asked); n != 1 || f.driver(k) != "usbhid" {
		t.Errorf("asked %d times, driver %q", n, f.driver(k))
	}
	if again := f.expect(w, now, ""); again != 0 || len(w.left) != 0 {
		t.Errorf("it will look again after %v for %v", again, w.left)
	}
	f.bind("1-1:1.0", "") // while it is known
	f.run(w, &now, 2*leftPeriod, asked)
	if *asked != 2 || f.driver(k) != "usbhid" {
		t.Errorf("asked %d times, driver %q", *asked, f.driver(k))
	}
	f.bind("1-1:1.0", "")
	f.expect(w, now, "")
	f.unplug("1-1")
	if f.expect(w, now, "-1-1:1.0"); len(w.left) != 0 {
		t.Errorf("it waits for %v", w.left)
	}
}

// What is of no use is done more and more rarely.
func TestGivingBackIsTriedAgain(t *testing.T) {
	f, now := newFiles(t), time.Now()
	w := newWatch(f)
	f.plugKey("1-1")
	f.bind("1-1:1.0", "")
	asked := 0
	w.bus.connect = func(string, int) error { asked++; return errors.New("refused") }
	if n := f.run(w, &now, 40*time.Second, &asked); n != 5 { // after 1, 3, 7, 15 and 31 s
		t.Errorf("asked %d times", n)
	}
	if n := f.run(w, &now, 10*leftPeriodMax, &asked); n != 10 {
		t.Errorf("then %d times", n)
	}
}

func TestNothingIsTakenFromAnybody(t *testing.T) {
	for name, change := range map[string]func(f *files, b *bus, k key){
		"it has its driver":          func(f *files, b *bus, k key) { f.bind("1-1:1.0", "usbhid") },
		"a program has claimed it":   func(f *files, b *bus, k key) { f.bind("1-1:1.0", claimed) },
		"a program has it open":      func(f *files, b *bus, k key) { f.process(42, "ykinfo", k.node) },
		"this process has it":        func(f *files, b *bus, k key) { b.take(k, hold{}) },
		"it was pulled":              func(f *files, b *bus, k key) { f.unplug("1-1") },
		"it was pulled, and is back": func(f *files, b *bus, k key) { f.unplug("1-1"); f.plugKey("1-1") },
		"there is no keyboard":       func(f *files, b *bus, k key) { f.unplug("1-1"); f.plug("1-1", "1050", "0402") },
	} {
		t.Run(name, func(t *testing.T) {
			f, now := newFiles(t), time.Now()
			w := newWatch(f)
			k := f.plugKey("1-1")
			f.bind("1-1:1.0", "")
			asked := kernel(f, w.bus, "1-1:1.0")
			f.run(w, &now, leftPeriod, asked)
			change(f, w.bus, k)
			if n := f.run(w, &now, 3*leftPeriod, asked); n != 0 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

// Programs that take the key again and again leave it without driver for a moment each time.
func TestMomentsDoNotAddUp(t *testing.T) {
	f, now := newFiles(t), time.Now()
	w := newWatch(f)
	f.plugKey("1-1")
	asked := kernel(f, w.bus, "1-1:1.0")
	for range 20 {
		f.bind("1-1:1.0", "")
		f.run(w, &now, leftPeriod/2, asked)
		f.bind("1-1:1.0", claimed)
		f.run(w, &now, leftPeriod/4, asked)
	}
	if *asked != 0 {
		t.Errorf("asked %d times", *asked)
	}
}

// Programs that use the smart card of a key have it open all the time.
func TestCardProgramsDoNotKeepIt(t *testing.T) {
	f, now := newFiles(t), time.Now()
	w := newWatch(f)
	k := f.plugKey("1-1")
	f.process(42, "pcscd", k.node)
	f.bind("1-1:1.0", "")
	if n := f.run(w, &now, 2*leftPeriod, kernel(f, w.bus, "1-1:1.0")); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestInterfaceThatIsGivenBack(t *testing.T) {
	f := newFiles(t)
	b := newBus(f.tree)
	f.plug("1-1", "20a0", "4109")
	f.plugInterface("1-1:1.2", "03", "00", "")
	k, _ := f.find("1-1:1.2")
	got := -1
	b.connect = func(_ string, number int) error { got = number; f.bind("1-1:1.2", "usbhid"); return nil }
	if err := b.reconnect(k); err != nil || got != 2 {
		t.Errorf("interface %d, %v", got, err)
	}
}

func TestReconnectingFails(t *testing.T) {
	f := newFiles(t)
	b := newBus(f.tree)
	k := f.plugKey("1-1")
	f.bind("1-1:1.0", "")
	refusal := errors.New("refused")
	b.connect = func(string, int) error { return refusal }
	expectCure(t, b.reconnect(k), refusal, "driver has lost the key", "pull it")
	b.connect = func(string, int) error { return nil } // the kernel has none
	expectCure(t, b.reconnect(k), nil, "no keyboard driver", "modprobe usbhid")
	b.connect = func(string, int) error { f.bind("1-1:1.0", claimed); return refusal } // somebody was faster
	if err := b.reconnect(k); err != nil {
		t.Error(err)
	}
	f.bind("1-1:1.0", "")
	b.connect = func(string, int) error { f.unplug("1-1"); return refusal }
	if err := b.reconnect(k); err != nil {
		t.Errorf("pulled: %v", err)
	}
}

// Whoever opens a key that is just being given back gets it afterwards; nothing else waits for the kernel.
func TestOpeningWaitsForGivingBack(t *testing.T) {
	f := newFiles(t)
	w := newWatch(f)
	k, other := f.plugKey("1-1"), f.plugKey("1-2")
	f.bind("1-1:1.0", "")
	asked, answer := make(chan bool), make(chan bool)
	w.bus.connect = func(string, int) error { asked <- true; <-answer; f.bind("1-1:1.0", "usbhid"); return nil }
	now := time.Now()
	f.expect(w, now, "+1-1:1.0 +1-2:1.0")
	f.expect(w, now.Add(leftPeriod), "")
	<-asked
	f.plugKey("1-3")
	f.expect(w, now.Add(leftPeriod), "+1-3:1.0")
	if taken, err := w.bus.takeToOpen(t.Context(), other); !taken || err != nil {
		t.Errorf("the other key: %v, %v", taken, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if taken, err := w.bus.takeToOpen(ctx, k); taken || !errors.Is(err, context.Canceled) || w.bus.opened(k) {
		t.Errorf("%v, %v", taken, err)
	}
	time.AfterFunc(leavingPause, func() { close(answer) })
	if taken, err := w.bus.takeToOpen(t.Context(), k); !taken || err != nil || f.driver(k) != "usbhid" {
		t.Errorf("%v, %v", taken, err)
	}
	w.returns.Wait()
}

// The numbers of linux/usbdevice_fs.h on 64 bits, as strace shows them.
func TestRequests(t *testing.T) {
	if usbdevfsIoctl != 0xc0105512 || usbdevfsConnect != 0x5517 || unsafe.Sizeof(usbdevfsCommand{}) != 16 {
		t.Errorf("%#x, %#x", usbdevfsIoctl, usbdevfsConnect)
	}
	f := newFiles(t)
	k := f.plugKey("1-1")
	if err := connect(f.nodePath(k), otpNumber); err == nil {
		t.Error("a plain file has a driver")
	}
	if err := connect(f.dev+"/none", otpNumber); err == nil {
		t.Error("nothing has a driver")
	}
}

func TestHoldIsExclusive(t *testing.T) {
	f := newFiles(t)
	b := newBus(f.tree)
	one, two := f.plugKey("1-1"), f.plugKey("1-2")
	take := func(k key) bool { taken, _ := b.take(k, hold{}); return taken }
	if !take(one) || take(one) || !take(two) || !b.opened(one) {
		t.Error("holding is not exclusive")
	}
	b.release(one)
	if b.opened(one) || !b.opened(two) || !take(one) {
		t.Error("releasing is not of one key")
	}
}
