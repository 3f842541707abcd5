package usbhid

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/udev"
)

const patience = 10 * time.Second

// newWatch is a watch whose time and events a test makes up.
func newWatch(f *files) *watch {
	b := newBus(f.tree)
	b.connect = func(string, int) error { return errors.New("no kernel is there") }
	return b.newWatch()
}

// expect looks, and compares what has changed: "+1-1:1.0 -3-2".
func (f *files) expect(w *watch, now time.Time, want string) (again time.Duration) {
	f.Helper()
	changes, again, err := w.look(now)
	if err != nil {
		f.Fatal(err)
	}
	var got []string
	for _, e := range changes {
		got = append(got, map[bool]string{false: "+", true: "-"}[e.Removed]+e.Info.Path)
	}
	if text := strings.Join(got, " "); text != want {
		f.Fatalf("%q has changed, not %q", text, want)
	}
	return again
}

func TestWatchComparesWhatIsThere(t *testing.T) {
	f, now := newFiles(t), time.Now()
	w := newWatch(f)
	f.plugKey("1-1")
	f.plug("3-1", "1050", "0120")
	f.expect(w, now, "+1-1:1.0 +3-1")
	f.expect(w, now, "")
	f.unplug("1-1")
	f.plugKey("1-2")
	f.expect(w, now, "-1-1:1.0 +1-2:1.0")
	f.unplug("1-2")
	f.plugKey("1-2") // before anybody has looked
	if again := f.expect(w, now, "-1-2:1.0 +1-2:1.0"); again != 0 {
		t.Errorf("it will look again after %v", again)
	}
}

func TestWatchWaitsForUdev(t *testing.T) {
	f, now := newFiles(t), time.Now()
	w := newWatch(f)
	f.runUdev()
	k := f.plugKey("1-1")
	if again := f.expect(w, now, ""); again != doubtMin {
		t.Errorf("it will look again after %v", again)
	}
	f.tell(k)
	if again := f.expect(w, now.Add(doubtMin), "+1-1:1.0"); again != 0 {
		t.Errorf("it will look again after %v", again)
	}
	f.remove(f.udev + "/data") // udev deals with it once more
	if again := f.expect(w, now.Add(2*doubtMin), ""); again != 0 {
		t.Errorf("it will look again after %v", again)
	}
}

// Without udev's word the key is looked for more and more rarely, and taken in the end: later if udev has just
// not come to it.
func TestWatchDoesNotWaitForEver(t *testing.T) {
	for _, patience := range []time.Duration{doubtPeriod, busyPeriod} {
		f, start := newFiles(t), time.Now()
		w := newWatch(f)
		f.runUdev()
		if patience == busyPeriod {
			f.write(f.udev+"/queue", "")
		}
		f.plugKey("1-1")
		now, looks := start, 0
		for {
			changes, again, err := w.look(now)
			if err != nil {
				t.Fatal(err)
			}
			if len(changes) == 1 && again == 0 {
				break
			}
			if looks++; len(changes) > 0 || again == 0 || looks > 20 {
				t.Fatalf("after %d looks and %v: %v, again after %v", looks, now.Sub(start), changes, again)
			}
			now = now.Add(again)
		}
		if took := now.Sub(start); took != patience {
			t.Errorf("it was taken after %v, not %v", took, patience)
		}
		f.write(f.udev+"/queue", "") // what was taken stays, whatever udev has to do now
		f.expect(w, now.Add(time.Millisecond), "")
	}
}

// When a device is announced its interfaces are still to come, and when it is pulled they go first.
func TestWatchOfHalfADevice(t *testing.T) {
	f, now := newFiles(t), time.Now()
	w := newWatch(f)
	f.plug("1-1", "1050", "0407")
	if again := f.expect(w, now, ""); again == 0 {
		t.Error("it will not look again")
	}
	f.plugInterface("1-1:1.0", "03", "01", "usbhid")
	f.expect(w, now, "+1-1:1.0")
	f.remove(filepath.Join(f.sys, f.where("1-1"), "1-1:1.0"))
	f.expect(w, now, "-1-1:1.0")
	f.expect(w, now.Add(doubtPeriod), "+1-1") // so it has a problem
	f.unplug("1-1")
	f.expect(w, now.Add(doubtPeriod), "-1-1")
}

func TestEventsThatMatter(t *testing.T) {
	f := newFiles(t)
	w := newWatch(f)
	f.plugKey("1-1")
	f.expect(w, time.Now(), "+1-1:1.0")
	for event, want := range map[string]bool{
		"add usb_device": true, "remove usb_device": true, "bind usb_device": true, "change usb_device": true,
		"add usb_interface": true, "remove usb_interface": true,
		"bind usb_interface": false, "unbind usb_interface": false, "add ": false,
		"bind usb_interface 1-1:1.0": false, "unbind usb_interface 1-1:1.0": true, "unbind usb_interface 1-1:1.1": false,
	} {
		words := append(strings.Fields(event), "", "")
		if w.matters(udev.Event{Action: words[0], DevType: words[1], Path: "/devices/x/" + words[2], Subsystem: "usb"}) != want {
			t.Errorf("%s matters: %v", event, !want)
		}
	}
}

// started watches until the end of the test.
func started(t *testing.T, b *bus) <-chan device.Event {
	ctx, cancel := context.WithCancel(context.Background())
	events, ended := make(chan device.Event, 100), make(chan error, 1)
	go func() { ended <- b.watch(ctx, func(e device.Event) { events <- e }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the watch ended with %v", err)
		}
	})
	return events
}

func next(t *testing.T, events <-chan device.Event, path string, removed bool) {
	t.Helper()
	select {
	case e := <-events:
		if e.Info.Path != path || e.Removed != removed {
			t.Fatalf("%+v, not %s, removed %v", e, path, removed)
		}
	case <-time.After(patience):
		t.Fatalf("nothing is told of %s", path)
	}
}

func TestWatchPollsWhereItCannotListen(t *testing.T) {
	f := newFiles(t)
	b := newBus(f.tree)
	b.listen = func() (*udev.Monitor, error) { return nil, errors.New("no netlink") }
	f.plugKey("1-1")
	events := started(t, b)
	next(t, events, "1-1:1.0", false)
	if err := b.whyPolling(); err == nil || err.Error() != "no netlink" {
		t.Errorf("it polls because of %v", err)
	}
	f.unplug("1-1")
	next(t, events, "1-1:1.0", true)
}

func TestWatchEnds(t *testing.T) {
	for name, listen := range map[string]func() (*udev.Monitor, error){
		"listening": func() (*udev.Monitor, error) { return udev.Listen("usb") },
		"polling":   func() (*udev.Monitor, error) { return nil, errors.New("no netlink") },
	} {
		f := newFiles(t)
		b := newBus(f.tree)
		b.listen = listen
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := b.watch(ctx, func(device.Event) {}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		f.remove(f.sys)
		if err := b.watch(t.Context(), func(device.Event) {}); err == nil || !strings.Contains(err.Error(), "has no USB") {
			t.Errorf("%s, without USB: %v", name, err)
		}
	}
}

// A watch that cannot listen any more ends, for whoever started it to start it anew.
func TestWatchEndsWithItsMonitor(t *testing.T) {
	f := newFiles(t)
	b := newBus(f.tree)
	var monitor *udev.Monitor
	b.listen = func() (m *udev.Monitor, err error) { monitor, err = udev.Listen("usb"); return monitor, err }
	f.plugKey("1-1")
	err := b.watch(t.Context(), func(device.Event) { monitor.Close() })
	if err == nil || !strings.Contains(err.Error(), "kernel events") {
		t.Error(err)
	}
}

// Where the kernel cannot be listened to, that is tried again after a while.
func TestWatchListensAgain(t *testing.T) {
	f := newFiles(t)
	w := newWatch(f)
	none := errors.New("no netlink")
	w.bus.listen = func() (*udev.Monitor, error) { return nil, none }
	now := time.Now()
	w.listen(now)
	w.bus.listen = func() (*udev.Monitor, error) { return udev.Listen("usb") }
	w.listen(now.Add(listenPeriod - 1))
	if w.monitor != nil || !errors.Is(w.bus.whyPolling(), none) {
		t.Fatal("it tries all the time")
	}
	w.listen(now.Add(listenPeriod))
	if w.monitor == nil || w.bus.whyPolling() != nil {
		t.Fatal("it does not try again")
	}
	monitor := w.monitor
	defer monitor.Close()
	if w.listen(now.Add(2 * listenPeriod)); w.monitor != monitor {
		t.Error("it listens twice")
	}
}

// Two looks never tell the same thing twice, whatever happens in between.
func TestWatchTellsEachChangeOnce(t *testing.T) {
	f, now := newFiles(t), time.Now()
	w := newWatch(f)
	there := map[string]bool{}
	for i := range 200 {
		port := []string{"1-1", "1-2", "3-1"}[i*7%3]
		if _, ok := f.find(port + ":1.0"); ok && i%2 == 0 {
			f.unplug(port)
		} else if !ok {
			f.plugKey(port)
		}
		changes, _, err := w.look(now)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range changes {
			if there[e.Info.Path] != e.Removed {
				t.Fatalf("step %d tells %+v", i, e)
			}
			there[e.Info.Path] = !e.Removed
		}
		keys, _ := f.keys()
		for path, is := range there {
			if is != slices.ContainsFunc(keys, func(k key) bool { return k.info.Path == path }) {
				t.Fatalf("after step %d %s is told to be there: %v", i, path, is)
			}
		}
	}
}
