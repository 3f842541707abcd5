package usbhid

import (
	"errors"
	"testing"
	"time"
	"unsafe"
)

// kernel counts what a bus asks of it, and does it.
func kernel(f *files, b *bus, path string) (asked *int) {
	asked = new(int)
	b.connect = func(string) error { *asked++; f.bind(path, "usbhid"); return nil }
	return asked
}

func TestAbandonedKeysAreGivenBack(t *testing.T) {
	f := newFiles(t)
	b := newBus(f.tree)
	k := f.plugKey("1-1")
	asked := kernel(f, b, "1-1:1.0")
	f.bind("1-1:1.0", "")
	if given, err := b.giveBack(k); !given || err != nil || *asked != 1 || f.driver(k) != "usbhid" {
		t.Fatalf("%v, %v, asked %d times", given, err, *asked)
	}
	if given, err := b.giveBack(k); given || err != nil || *asked != 1 {
		t.Errorf("a key that has its driver: %v, %v, asked %d times", given, err, *asked)
	}
}

func TestNothingIsTakenFromAnybody(t *testing.T) {
	for name, change := range map[string]func(f *files, b *bus, k key){
		"it has its driver":          func(f *files, b *bus, k key) { f.bind("1-1:1.0", "usbhid") },
		"a program has it":           func(f *files, b *bus, k key) { f.bind("1-1:1.0", claimed) },
		"this process has it":        func(f *files, b *bus, k key) { b.hold(k) },
		"it was pulled":              func(f *files, b *bus, k key) { f.unplug("1-1") },
		"it was pulled, and is back": func(f *files, b *bus, k key) { f.unplug("1-1"); f.plugKey("1-1"); f.bind("1-1:1.0", "") },
		"a program claims it within the pause": func(f *files, b *bus, k key) {
			time.AfterFunc(handover/5, func() { f.bind("1-1:1.0", claimed) })
		},
		"this process opens it within the pause": func(f *files, b *bus, k key) {
			time.AfterFunc(handover/5, func() { b.hold(k) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFiles(t)
			b := newBus(f.tree)
			k := f.plugKey("1-1")
			f.bind("1-1:1.0", "")
			asked := kernel(f, b, "1-1:1.0")
			change(f, b, k)
			if given, err := b.giveBack(k); given || err != nil || *asked != 0 {
				t.Errorf("%v, %v, asked %d times", given, err, *asked)
			}
		})
	}
	f := newFiles(t)
	f.plug("1-1", "1050", "0402") // there is no keyboard to give back
	b := newBus(f.tree)
	asked := kernel(f, b, "1-1:1.0")
	k, _ := f.find("1-1")
	if given, err := b.giveBack(k); given || err != nil || *asked != 0 {
		t.Errorf("%v, %v, asked %d times", given, err, *asked)
	}
}

func TestGivingBackFails(t *testing.T) {
	f := newFiles(t)
	b := newBus(f.tree)
	k := f.plugKey("1-1")
	f.bind("1-1:1.0", "")
	refusal := errors.New("refused")
	b.connect = func(string) error { return refusal }
	_, err := b.giveBack(k)
	expectCure(t, err, refusal, "driver has lost the key", "pull it")
	b.connect = func(string) error { return nil } // the kernel has none
	_, err = b.giveBack(k)
	expectCure(t, err, nil, "no keyboard driver", "modprobe usbhid")
	b.connect = func(string) error { f.bind("1-1:1.0", claimed); return refusal } // somebody was faster
	if _, err := b.giveBack(k); err != nil {
		t.Error(err)
	}
	f.bind("1-1:1.0", "")
	b.connect = func(string) error { f.unplug("1-1"); return refusal }
	if given, err := b.giveBack(k); given || err != nil {
		t.Errorf("pulled: %v, %v", given, err)
	}
}

// A watch gives back what it finds abandoned, before it tells of it.
func TestWatchGivesBack(t *testing.T) {
	f := newFiles(t)
	f.plugKey("1-1")
	f.bind("1-1:1.0", "")
	w := newWatch(f)
	asked := kernel(f, w.bus, "1-1:1.0")
	f.expect(w, time.Now(), "+1-1:1.0")
	f.bind("1-1:1.0", "")
	f.expect(w, time.Now(), "") // nothing new: perhaps somebody is about to open it
	if *asked != 1 {
		t.Errorf("asked %d times", *asked)
	}
}

// The numbers of linux/usbdevice_fs.h on 64 bits, as strace shows them.
func TestRequests(t *testing.T) {
	if usbdevfsIoctl != 0xc0105512 || usbdevfsConnect != 0x5517 || unsafe.Sizeof(usbdevfsCommand{}) != 16 {
		t.Errorf("%#x, %#x", usbdevfsIoctl, usbdevfsConnect)
	}
	f := newFiles(t)
	k := f.plugKey("1-1")
	if err := connect(f.nodePath(k)); err == nil {
		t.Error("a plain file has a driver")
	}
	if err := connect(f.dev + "/none"); err == nil {
		t.Error("nothing has a driver")
	}
}

func TestHoldIsExclusive(t *testing.T) {
	f := newFiles(t)
	b := newBus(f.tree)
	one, two := f.plugKey("1-1"), f.plugKey("1-2")
	if !b.hold(one) || b.hold(one) || !b.hold(two) || !b.holds(one) {
		t.Error("holding is not exclusive")
	}
	b.release(one)
	if b.holds(one) || !b.holds(two) || !b.hold(one) {
		t.Error("releasing is not of one key")
	}
}
