package usbhid

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/karalabe/hid"

	"tokendesk/device"
	"tokendesk/udev"
)

const (
	lookPeriod   = 250 * time.Millisecond // where the kernel cannot be listened to
	listenPeriod = 30 * time.Second       // between attempts to do that
	doubtPeriod  = 2 * time.Second        // how long a device in doubt is waited for,
	busyPeriod   = 10 * time.Second       // and how long while udev is busy, perhaps with other devices
	doubtMin     = 25 * time.Millisecond  // between looks at it, which become rarer
)

// watch is one Watch. What has happened is not taken from the events but from sysfs, at every event: so
// nothing depends on their number and order, and lost ones do no harm.
type watch struct {
	bus      *bus
	monitor  *udev.Monitor        // nil if it has to poll
	relisten time.Time            // then
	known    map[string]key       // by path: what fn has been told of
	doubts   map[string]time.Time // by node: since when sysfs shows it although it may not be ready
	left     map[string]*left     // by node
	returns  sync.WaitGroup       // keys that are being given back
}

func (b *bus) watch(ctx context.Context, fn func(device.Event)) error {
	if !hid.Supported() {
		return errors.New("cannot see USB devices: this tokendeskd was built without cgo; build it with CGO_ENABLED=1")
	}
	w := b.newWatch()
	defer w.returns.Wait()
	w.listen(time.Now()) // before the first look, so that nothing is missed in between
	defer func() {
		if w.monitor != nil {
			w.monitor.Close()
		}
	}()
	return w.run(ctx, fn)
}

func (b *bus) newWatch() *watch {
	return &watch{bus: b, known: map[string]key{}, doubts: map[string]time.Time{}, left: map[string]*left{}}
}

// listen begins to listen to the kernel; where that cannot be, the watch polls until it is time to try again.
func (w *watch) listen(now time.Time) {
	if w.monitor != nil || now.Before(w.relisten) {
		return
	}
	monitor, err := w.bus.listen()
	w.bus.setPolling(err)
	w.relisten = now.Add(listenPeriod)
	if err == nil {
		w.monitor = monitor
	}
}

func (w *watch) run(ctx context.Context, fn func(device.Event)) error {
	for {
		changes, again, err := w.look(time.Now())
		if err != nil {
			return err
		}
		for _, e := range changes {
			fn(e)
		}
		if err := w.wait(ctx, again); err != nil {
			return err
		}
		w.listen(time.Now())
	}
}

// wait returns when it is time to look again: after events that matter, or after a while if that is not 0.
func (w *watch) wait(ctx context.Context, after time.Duration) error {
	if w.monitor == nil {
		after = lookPeriod
	}
	short := ctx
	if after > 0 {
		var cancel context.CancelFunc
		short, cancel = context.WithTimeout(ctx, after)
		defer cancel()
	}
	for w.monitor != nil && short.Err() == nil {
		events, err := w.monitor.Wait(short)
		switch {
		case slices.ContainsFunc(events, w.matters) || errors.Is(err, udev.ErrLost):
			return nil
		case err != nil && short.Err() == nil:
			return err
		}
	}
	<-short.Done()
	return ctx.Err()
}

// matters tells events after which something may be different. Interfaces are added and removed when a device
// is authorised or set up anew; a keyboard is unbound when a program takes it, and when it lets go of it.
func (w *watch) matters(e udev.Event) bool {
	switch {
	case e.DevType == "usb_device":
		return true
	case e.DevType == "usb_interface" && e.Action == "unbind":
		_, known := w.known[filepath.Base(e.Path)]
		return known
	}
	return e.DevType == "usb_interface" && (e.Action == "add" || e.Action == "remove")
}

// look compares what is plugged in with what is known. If again is not 0, something is in doubt, and it is to
// be called again after that time.
func (w *watch) look(now time.Time) (changes []device.Event, again time.Duration, err error) {
	keys, err := w.bus.tree.keys()
	if err != nil {
		return nil, 0, err
	}
	present := map[string]key{}
	listed := map[string]bool{}
	for _, k := range keys {
		listed[k.node] = true
		pause := w.pause(k, now)
		if pause == 0 {
			present[k.info.Path] = k
			pause = w.mend(k, now)
		}
		if pause != 0 && (again == 0 || pause < again) {
			again = pause
		}
	}
	maps.DeleteFunc(w.doubts, func(node string, _ time.Time) bool { return !listed[node] })
	maps.DeleteFunc(w.left, func(node string, _ *left) bool { return !listed[node] })
	return w.difference(present), again, nil
}

// pause is how long to wait until a key is looked at again, or 0 if it is there without doubt. In the end it is
// taken as it is.
func (w *watch) pause(k key, now time.Time) time.Duration {
	since, doubted := w.doubts[k.node]
	if w.known[k.info.Path] == k || !k.unfinished && w.bus.tree.settled(k) {
		delete(w.doubts, k.node)
		return 0
	}
	if !doubted {
		since = now
		w.doubts[k.node] = now
	}
	age, limit := now.Sub(since), doubtPeriod
	if w.bus.tree.waiting() {
		limit = busyPeriod
	}
	if age >= limit {
		delete(w.doubts, k.node)
		return 0
	}
	return min(max(age/2, doubtMin), limit-age)
}

// mend has a key given back that was left without driver, by a goroutine that ends with the watch. It returns
// when to look at the key again, or 0.
func (w *watch) mend(k key, now time.Time) time.Duration {
	if !w.bus.abandoned(k) {
		delete(w.left, k.node)
		return 0
	}
	l := w.left[k.node]
	if l == nil {
		l = &left{}
		w.left[k.node] = l
	}
	due, again := l.due(now, w.bus.opened(k))
	if due {
		w.returns.Go(func() { w.bus.giveBack(k) })
	}
	return again
}

// difference makes known what is present, and tells what has changed.
func (w *watch) difference(present map[string]key) []device.Event {
	var changes []device.Event
	for _, path := range slices.Sorted(maps.Keys(w.known)) {
		if k := w.known[path]; present[path] != k {
			delete(w.known, path)
			changes = append(changes, device.Event{Info: k.info, Removed: true})
		}
	}
	for _, path := range slices.Sorted(maps.Keys(present)) {
		if k := present[path]; w.known[path] != k {
			w.known[path] = k
			changes = append(changes, device.Event{Info: k.info})
		}
	}
	return changes
}
