// Package keys knows which keys are inserted and lends them out.
//
// One goroutine owns one face of a physical key: its HID interface, named by its bus and port, or its smart card, named by
// its reader. It opens that to identify the key and when somebody wants to work with it, and closes it at once afterwards, so
// that the key types normally, and serves other programs, at all other times. Faces are joined into one key by their USB port
// where both tell it, and else by their serial numbers; what is, or may be, one key is never used by two faces at a time
// (turn.go). A bus that is lost is watched again, and why it shows nothing is always known.
package keys

import (
	"context"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"tokendesk/device"
)

const (
	busRetryMin = 250 * time.Millisecond
	busRetryMax = 5 * time.Second
	busSettled  = 250 * time.Millisecond // a watch that has lasted so long works, also when nothing is inserted
	keyRetryMin = 100 * time.Millisecond // between looks at a key that could not be used, doubled up to
	keyRetryMax = 2 * time.Second
	newPatience = 5 * time.Second // a key needs at most 3.5 s to be identified (package otpslot)
)

// Key is an inserted key.
type Key struct {
	ID       device.ID // empty until identified
	Serial   device.Serial
	Firmware device.Version
	Holds    []device.Holding // what it holds, as far as the face that was opened last has told
	Bus      string
	Info     device.Info
	Card     CardFace
	Problem  string // why it cannot be used; of a key that is seen as a card only, why the card cannot
	Cure     string // what to do about that, if it is known
	New      bool   // not identified yet
}

// CardFace is the smart card of a key.
type CardFace struct {
	Bus, Reader string // empty: none is seen
	Emulated    bool
	PIV         bool // it has the PIV application, as far as is known: one of a YubiKey that was not opened yet is taken to have it
	// Problem says why it cannot be used, and Cure what to do about that, if it is known.
	Problem, Cure string
}

// HID tells whether the key's HID interface is seen, or would be if it had no problem; otherwise only its card is.
func (k Key) HID() bool { return k.Card.Bus == "" || k.Bus != k.Card.Bus }

// same tells whether two keys do not differ in anything.
func (k Key) same(other Key) bool {
	if !slices.Equal(k.Holds, other.Holds) {
		return false
	}
	k.Holds, other.Holds = nil, nil
	return reflect.DeepEqual(k, other)
}

// Trouble is the problem and its cure in one clause; empty if the key can be used.
func (k Key) Trouble() string {
	if k.Cure == "" {
		return k.Problem
	}
	return k.Problem + ": " + k.Cure
}

// Registry is all the inserted keys of some buses.
type Registry struct {
	buses []device.Bus
	cards Cards
	log   *slog.Logger

	mu       sync.Mutex
	ports    map[string]*port // by bus name and path
	problems map[string]string
	watchers map[chan Event]bool
	told     []told         // in the order of principals
	busy     map[*port]bool // faces that are in use
	changed  chan struct{}  // closed, and replaced, whenever a port has changed
}

// New returns a registry of the keys on buses. Run makes it work.
func New(log *slog.Logger, buses ...device.Bus) *Registry {
	r := &Registry{
		buses: buses, log: log, ports: map[string]*port{}, problems: map[string]string{}, watchers: map[chan Event]bool{},
		changed: make(chan struct{}), busy: map[*port]bool{},
	}
	for _, b := range buses {
		r.problems[b.Name()] = ""
	}
	return r
}

// Run watches the buses until ctx ends and every goroutine has stopped.
func (r *Registry) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, bus := range r.buses {
		all.Go(func() { r.watchBus(ctx, hidBus{bus}) })
	}
	if r.cards.Bus != nil {
		all.Go(func() { r.watchBus(ctx, cardBus{r.cards}) })
	}
	all.Wait()
}

// bus is where faces of keys come and go.
type bus interface {
	Name() string
	// watch calls added for every face that is there and that comes, and removed, with its path, for each that goes.
	watch(ctx context.Context, added func(Key, opener), removed func(path string)) error
}

// hidBus is a bus of HID interfaces.
type hidBus struct{ device.Bus }

func (b hidBus) watch(ctx context.Context, added func(Key, opener), removed func(path string)) error {
	return b.Watch(ctx, func(e device.Event) {
		if e.Removed {
			removed(e.Info.Path)
		} else {
			added(Key{Bus: b.Name(), Info: e.Info}, reports{b.Bus})
		}
	})
}

func (r *Registry) watchBus(ctx context.Context, bus bus) {
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
func (r *Registry) watchOnce(ctx context.Context, owners *sync.WaitGroup, bus bus) error {
	ctx, lose := context.WithCancelCause(ctx)
	defer r.removeAll(bus.Name())
	defer lose(device.ErrGone)
	defer time.AfterFunc(busSettled, func() { r.setWorking(ctx, bus) }).Stop()
	return bus.watch(ctx, func(k Key, o opener) {
		r.setWorking(ctx, bus)
		r.add(ctx, owners, k, o)
	}, func(path string) {
		r.setWorking(ctx, bus)
		r.remove(portKey(bus.Name(), path))
	})
}

// setProblem records why a bus shows nothing, and tells whether it worked before.
func (r *Registry) setProblem(bus bus, problem string) (worked bool) {
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
func (r *Registry) setWorking(ctx context.Context, bus bus) {
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

func portKey(bus, path string) string { return bus + " " + path }

func (r *Registry) add(ctx context.Context, owners *sync.WaitGroup, k Key, o opener) {
	ctx, end := context.WithCancelCause(ctx)
	p := &port{registry: r, opener: o, pulled: func() { end(device.ErrGone) }, done: ctx.Done(), requests: make(chan request), plugged: time.Now(), key: k}
	r.mu.Lock()
	r.drop(p.name()) // nothing may be left behind if a bus forgets to say that a key was pulled
	r.ports[p.name()] = p
	r.mu.Unlock()
	owners.Go(func() { p.own(ctx) })
}

func (r *Registry) remove(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(name)
}

func (r *Registry) removeAll(bus string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.ports {
		if strings.HasPrefix(name, bus+" ") {
			r.drop(name)
		}
	}
}

func (r *Registry) drop(name string) {
	if p, ok := r.ports[name]; ok {
		delete(r.ports, name)
		p.pulled()
		r.publish(p)
	}
}

// update records what the owner of a port has learnt, and tells watchers if it is news.
func (r *Registry) update(p *port, key Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ports[p.name()] != p || p.announced && p.key.same(key) {
		return // pulled in the meantime, or no news
	}
	p.key, p.announced = key, true
	r.publish(p)
}
