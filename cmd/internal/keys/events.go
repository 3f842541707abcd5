package keys

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"tokendesk/device"
)

// backlog is how many events a watcher may lag behind.
const backlog = 64

// EventKind tells events apart.
type EventKind string

// Kinds of events.
const (
	Present EventKind = "present" // was there when the watch began
	Added   EventKind = "added"
	Changed EventKind = "changed"
	Removed EventKind = "removed"
)

// Event is one change among the inserted keys.
type Event struct {
	Kind EventKind
	Time time.Time
	Key  Key
}

// told is what watchers were told of one key.
type told struct {
	faces [2]*port // the one by which it is known, and the other one, if there is one
	key   Key
}

// publish tells watchers what has become of all keys since a port has changed, of its own key first, and wakes who waits
// for a change.
func (r *Registry) publish(first *port) {
	var now []told
	for _, p := range r.principals() {
		if p.announced {
			now = append(now, told{[2]*port{p, r.other(p)}, r.view(p)})
		}
	}
	slices.SortStableFunc(now, func(a, b told) int { return strings.Compare(a.key.order(first, a.faces), b.key.order(first, b.faces)) })
	before := make([]*told, len(now))
	left := r.told
	for face := range 2 {
		for i, n := range now {
			at := slices.IndexFunc(left, func(t told) bool {
				return before[i] == nil && n.faces[face] != nil && slices.Contains(t.faces[:], n.faces[face])
			})
			if at >= 0 {
				before[i] = &told{left[at].faces, left[at].key}
				left = slices.Delete(slices.Clone(left), at, at+1)
			}
		}
	}
	for _, t := range left {
		r.send(Event{Kind: Removed, Time: time.Now(), Key: t.key})
	}
	for i, n := range now {
		switch {
		case before[i] == nil:
			r.send(Event{Kind: Added, Time: time.Now(), Key: n.key})
		case !before[i].key.same(n.key):
			r.send(Event{Kind: Changed, Time: time.Now(), Key: n.key})
		}
	}
	r.told = now
	r.wake()
}

// order puts the key of the port that has changed before all others.
func (k Key) order(first *port, faces [2]*port) string {
	if slices.Contains(faces[:], first) {
		return ""
	}
	return string(k.ID) + " " + k.Info.Path
}

// wake wakes who waits for a change.
func (r *Registry) wake() {
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *Registry) send(e Event) {
	for w := range r.watchers {
		select {
		case w <- e:
		default: // too slow: end its watch rather than the desk's work
			delete(r.watchers, w)
			close(w)
		}
	}
}

// List returns all keys, in the order of their names.
func (r *Registry) List() []Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.list()
}

// Inserted tells whether a device is inserted and identified.
func (r *Registry) Inserted(id device.ID) bool {
	return slices.ContainsFunc(r.List(), func(k Key) bool { return k.ID == id })
}

// Watch calls fn for every key present and then for each change, until ctx ends.
func (r *Registry) Watch(ctx context.Context, fn func(Event) error) error {
	events := make(chan Event, backlog)
	r.mu.Lock()
	present := r.list()
	r.watchers[events] = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.watchers, events)
		r.mu.Unlock()
	}()
	for _, k := range present {
		if k.New {
			continue // its addition is still to come
		}
		if err := fn(Event{Kind: Present, Time: time.Now(), Key: k}); err != nil {
			return err
		}
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, open := <-events:
			if !open {
				return ErrBehind
			}
			if err := fn(e); err != nil {
				return err
			}
		}
	}
}

// ErrBehind ends a watch whose fn takes longer than events need to come.
var ErrBehind = errors.New("this watch fell too far behind: start it again")
