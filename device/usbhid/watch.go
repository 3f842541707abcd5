package usbhid

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/karalabe/hid"

	"tokendesk/device"
	"tokendesk/udev"
)

const (
	lookPeriod  = 250 * time.Millisecond // where the kernel cannot be listened to
	doubtPeriod = 2 * time.Second        // how long a device in doubt is waited for,
	busyPeriod  = 10 * time.Second       // and how long while udev is busy, perhaps with other devices
	doubtMin    = 25 * time.Millisecond  // between looks at it, which become rarer
)

// watch is one Watch. What has happened is not taken from the events but from sysfs, at every event: so
// nothing depends on their number and order, and lost ones do no harm.
type watch struct {
	bus     *bus
	monitor *udev.Monitor  // nil if it has to poll
	known   map[string]key // by path: what fn has been told of
	doubts  map[string]doubt
}

// doubt is about a device node that sysfs shows but that may not be ready, or be going.
type doubt struct {
	since   time.Time
	removed bool // the kernel has said so, although the folder is still there
}

func (b *bus) watch(ctx context.Context, fn func(device.Event)) error {
	if !hid.Supported() {
		return errors.New("cannot see USB devices: this tokendeskd was built without cgo; build it with CGO_ENABLED=1")
	}
	monitor, err := b.listen() // before the first look, so that nothing is missed in between
	b.setPolling(err)
	if err == nil {
		defer monitor.Close()
	}
	w := &watch{bus: b, monitor: monitor, known: map[string]key{}, doubts: map[string]doubt{}}
	return w.run(ctx, fn)
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
		events, err := w.wait(ctx, again)
		if err != nil {
			return err
		}
		w.heed(events, time.Now())
	}
}

// wait returns when it is time to look again: after events that matter, or after a while if that is not 0.
func (w *watch) wait(ctx context.Context, after time.Duration) ([]udev.Event, error) {
	if w.monitor == nil {
		after = max(lookPeriod, after)
	}
	short := ctx
	if after > 0 {
		var cancel context.CancelFunc
		short, cancel = context.WithTimeout(ctx, after)
		defer cancel()
	}
	for w.monitor != nil && short.Err() == nil {
		events, err := w.monitor.Wait(short)
		events = slices.DeleteFunc(events, func(e udev.Event) bool { return !matters(e) })
		switch {
		case len(events) > 0:
			return events, nil
		case short.Err() != nil:
		case errors.Is(err, udev.ErrLost):
			return nil, nil
		case err != nil: // the socket is of no use any more
			w.bus.setPolling(err)
			w.monitor = nil
			return nil, nil
		}
	}
	<-short.Done()
	return nil, ctx.Err()
}

// matters tells events after which something may be different. Interfaces are bound and unbound whenever a
// key is opened and closed; they are added and removed when a device is authorised or set up anew.
func matters(e udev.Event) bool {
	return e.DevType == "usb_device" || e.DevType == "usb_interface" && (e.Action == "add" || e.Action == "remove")
}

// heed notes what the events say beyond that something has changed.
func (w *watch) heed(events []udev.Event, now time.Time) {
	for _, e := range events {
		switch {
		case e.DevType != "usb_device":
		case e.Action == "remove":
			w.doubts[e.Node] = doubt{since: now, removed: true}
		case e.Action == "add" && w.doubts[e.Node].removed:
			delete(w.doubts, e.Node)
		}
	}
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
		if pause := w.pause(k, now); pause == 0 {
			present[k.info.Path] = k
		} else if again == 0 || pause < again {
			again = pause
		}
	}
	maps.DeleteFunc(w.doubts, func(node string, _ doubt) bool { return !listed[node] })
	return w.difference(present), again, nil
}

// pause is how long to wait until a key is looked at again, or 0 if it is there without doubt. In the end it is
// taken as it is.
func (w *watch) pause(k key, now time.Time) time.Duration {
	d, doubted := w.doubts[k.node]
	if !d.removed && (w.known[k.info.Path] == k || !k.unfinished && w.bus.tree.settled(k)) {
		delete(w.doubts, k.node)
		return 0
	}
	if !doubted {
		d.since = now
		w.doubts[k.node] = d
	}
	age, limit := now.Sub(d.since), doubtPeriod
	if w.bus.tree.waiting() {
		limit = busyPeriod
	}
	if age >= limit {
		delete(w.doubts, k.node)
		return 0
	}
	return min(max(age/2, doubtMin), limit-age)
}

// difference makes known what is present, and tells what has changed. A key that is new may be one that a
// killed program has left behind.
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
			_, _ = w.bus.giveBack(k) // if that fails, Open and Examine say why
			changes = append(changes, device.Event{Info: k.info})
		}
	}
	return changes
}
