// Package keys knows which keys are inserted and lends them out.
//
// One goroutine owns one physical key, named by its bus and port. It opens the key to identify it and
// when somebody wants to work with it, and closes it at once afterwards, so that the key types normally
// at all other times. A bus that is lost is watched again, and why it shows nothing is always known.
package keys

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"tokendesk/device"
	"tokendesk/device/otpslot"
)

const (
	busRetryMin = 250 * time.Millisecond
	busRetryMax = 5 * time.Second
	busSettled  = 250 * time.Millisecond // a watch that has lasted so long works, also when nothing is inserted
	keyRetryMin = 100 * time.Millisecond // between looks at a key that could not be used, doubled up to
	keyRetryMax = 2 * time.Second
	newPatience = 5 * time.Second // a key needs at most 3.5 s to be identified (package otpslot)
	backlog     = 64              // events that a watcher may lag behind
)

// Key is an inserted key.
type Key struct {
	ID         device.ID // empty until identified
	Serial     device.Serial
	Firmware   device.Version
	Configured [2]bool // slots 1 and 2
	Bus        string
	Info       device.Info
	Problem    string // why it cannot be used
	Cure       string // what to do about that, if it is known
	New        bool   // not identified yet
}

// Trouble is the problem and its cure in one clause; empty if the key can be used.
func (k Key) Trouble() string {
	if k.Cure == "" {
		return k.Problem
	}
	return k.Problem + ": " + k.Cure
}

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

// Registry is all the inserted keys of some buses.
type Registry struct {
	buses []device.Bus
	log   *slog.Logger

	mu       sync.Mutex
	ports    map[string]*port // by bus name and path
	problems map[string]string
	watchers map[chan Event]bool
}

// New returns a registry of the keys on buses. Run makes it work.
func New(log *slog.Logger, buses ...device.Bus) *Registry {
	r := &Registry{buses: buses, log: log, ports: map[string]*port{}, problems: map[string]string{}, watchers: map[chan Event]bool{}}
	for _, b := range buses {
		r.problems[b.Name()] = ""
	}
	return r
}

// Run watches the buses until ctx ends and every goroutine has stopped.
func (r *Registry) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, bus := range r.buses {
		all.Go(func() { r.watchBus(ctx, bus) })
	}
	all.Wait()
}

func (r *Registry) watchBus(ctx context.Context, bus device.Bus) {
	var owners sync.WaitGroup
	defer owners.Wait()
	for retry := busRetryMin; ; retry = min(2*retry, busRetryMax) {
		err := r.watchOnce(ctx, &owners, bus)
		if ctx.Err() != nil {
			return
		}
		if worked := r.setProblem(bus, err.Error()); worked {
			retry = busRetryMin
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retry):
		}
	}
}

// watchOnce watches a bus until it is lost; then all of its keys are gone.
func (r *Registry) watchOnce(ctx context.Context, owners *sync.WaitGroup, bus device.Bus) error {
	ctx, lose := context.WithCancelCause(ctx)
	defer r.removeAll(bus)
	defer lose(device.ErrGone)
	defer time.AfterFunc(busSettled, func() { r.setWorking(ctx, bus) }).Stop()
	return bus.Watch(ctx, func(e device.Event) {
		r.setWorking(ctx, bus)
		if e.Removed {
			r.remove(bus, e.Info)
		} else {
			r.add(ctx, owners, bus, e.Info)
		}
	})
}

// setProblem records why a bus shows nothing, and tells whether it worked before.
func (r *Registry) setProblem(bus device.Bus, problem string) (worked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.problems[bus.Name()]
	r.problems[bus.Name()] = problem
	if problem != before {
		r.log.Warn("bus lost", "bus", bus.Name(), "problem", problem)
	}
	return before == ""
}

// setWorking records that a bus works, unless the watch with ctx is over.
func (r *Registry) setWorking(ctx context.Context, bus device.Bus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() == nil && r.problems[bus.Name()] != "" {
		r.problems[bus.Name()] = ""
		r.log.Info("bus is back", "bus", bus.Name())
	}
}

// BusProblems says of every bus why it shows nothing; the text is empty where it works.
func (r *Registry) BusProblems() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.problems)
}

func portKey(bus device.Bus, info device.Info) string { return bus.Name() + " " + info.Path }

func (r *Registry) add(ctx context.Context, owners *sync.WaitGroup, bus device.Bus, info device.Info) {
	ctx, end := context.WithCancelCause(ctx)
	p := &port{registry: r, bus: bus, pulled: func() { end(device.ErrGone) }, done: ctx.Done(), requests: make(chan request), identified: make(chan struct{}), key: Key{Bus: bus.Name(), Info: info}}
	r.mu.Lock()
	r.drop(portKey(bus, info)) // nothing may be left behind if a bus forgets to say that a key was pulled
	r.ports[portKey(bus, info)] = p
	r.mu.Unlock()
	owners.Go(func() { p.own(ctx) })
}

func (r *Registry) remove(bus device.Bus, info device.Info) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(portKey(bus, info))
}

func (r *Registry) removeAll(bus device.Bus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.ports {
		if strings.HasPrefix(name, bus.Name()+" ") {
			r.drop(name)
		}
	}
}

func (r *Registry) drop(name string) {
	if p, ok := r.ports[name]; ok {
		delete(r.ports, name)
		p.pulled()
		if p.announced {
			r.send(Event{Kind: Removed, Time: time.Now(), Key: p.key})
			r.tellTwins(p)
		}
	}
}

// update records what the owner of a port has learnt, and tells watchers if it is news.
func (r *Registry) update(p *port, key Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ports[portKey(p.bus, key.Info)] != p {
		return // pulled in the meantime
	}
	kind := Changed
	if !p.announced {
		kind = Added
		close(p.identified)
	} else if p.key == key {
		return
	}
	found := p.key.ID != key.ID
	p.key, p.announced = key, true
	r.send(Event{Kind: kind, Time: time.Now(), Key: r.view(p)})
	if found {
		r.tellTwins(p)
	}
}

// tellTwins says of other keys with the name of p that they have become unusable, or usable again.
func (r *Registry) tellTwins(p *port) {
	for _, other := range r.ports {
		if other != p && other.announced && p.key.ID != "" && other.key.ID == p.key.ID {
			r.send(Event{Kind: Changed, Time: time.Now(), Key: r.view(other)})
		}
	}
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

func (r *Registry) list() []Key {
	var list []Key
	for _, p := range r.ports {
		list = append(list, r.view(p))
	}
	slices.SortFunc(list, func(a, b Key) int {
		return strings.Compare(string(a.ID)+" "+a.Info.Path, string(b.ID)+" "+b.Info.Path)
	})
	return list
}

// view is what p shows, with what follows from the other ports.
func (r *Registry) view(p *port) Key {
	key := p.key
	key.New = !p.announced
	for _, other := range r.ports {
		if other != p && key.ID != "" && other.key.ID == key.ID {
			key.Problem, key.Cure = twins(key.ID, key, other.key), "pull one of them"
		}
	}
	return key
}

// TwinsError says that two inserted keys claim one serial number.
type TwinsError struct{ words string }

func (e *TwinsError) Error() string { return e.words }

func twins(id device.ID, a, b Key) string {
	if b.Bus+" "+b.Info.Port < a.Bus+" "+a.Info.Port {
		a, b = b, a
	}
	return fmt.Sprintf("two inserted keys say they are %s (%s port %s and %s port %s)", id, a.Bus, a.Info.Port, b.Bus, b.Info.Port)
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

// AbsentError says that a device is not inserted.
type AbsentError struct {
	ID       device.ID
	Problems []string // of buses and keys that might hide it, with their cures
}

func (e *AbsentError) Error() string {
	text := fmt.Sprintf("%s is not inserted: insert it and repeat", e.ID)
	if len(e.Problems) > 0 {
		text += " (" + strings.Join(e.Problems, "; ") + ")"
	}
	return text
}

// Unwrap lets an absent device count as an unplugged one.
func (e *AbsentError) Unwrap() error { return device.ErrGone }

// Use lends the key named id to fn, exclusively. The session ends when the key is pulled or ctx ends.
// A key that was just plugged in is waited for.
func (r *Registry) Use(ctx context.Context, id device.ID, fn func(ctx context.Context, s *otpslot.Session, k Key) error) error {
	p, err := r.await(ctx, id)
	if err != nil {
		return err
	}
	req := request{ctx: ctx, fn: fn, result: make(chan error, 1)}
	select {
	case p.requests <- req:
		return <-req.result
	case <-p.done:
		return fmt.Errorf("%s: %w", id, device.ErrGone)
	case <-ctx.Done():
		return fmt.Errorf("%s is in use by other work of the desk: %w", id, ctx.Err())
	}
}

// await finds a key, and if it cannot, waits until every key that is being identified has a name or a problem.
func (r *Registry) await(ctx context.Context, id device.ID) (*port, error) {
	enough := time.NewTimer(newPatience)
	defer enough.Stop()
	for {
		p, unknown, err := r.find(id)
		if absent := (*AbsentError)(nil); unknown == nil || !errors.As(err, &absent) {
			return p, err
		}
		select {
		case <-unknown.identified:
		case <-unknown.done:
		case <-enough.C:
			return nil, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// find returns the key named id, or else one that is still being identified, if there is one.
func (r *Registry) find(id device.ID) (found, unknown *port, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	absent := &AbsentError{ID: id}
	for _, p := range r.ports {
		switch {
		case p.key.ID == id && found != nil:
			return nil, nil, &TwinsError{twins(id, found.key, p.key) + ": pull one of them"}
		case p.key.ID == id:
			found = p
		case p.key.ID == "" && p.key.Problem != "":
			absent.Problems = append(absent.Problems, p.key.Trouble())
		case !p.announced:
			unknown = p
		}
	}
	if found != nil {
		return found, nil, nil
	}
	for _, bus := range r.buses {
		if problem := r.problems[bus.Name()]; problem != "" {
			absent.Problems = append(absent.Problems, problem)
		}
	}
	return nil, unknown, absent
}
