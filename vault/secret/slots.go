package secret

import (
	"math/bits"
	"os"
	"sync"
	"time"
)

// Slots have 64 to 4096 bytes, in powers of two, and are cut from chunks. 8 MiB, systemd's LimitMEMLOCK= and
// Debian's ulimit -l, are 131,072 slots for seeds and keys. Longer secrets have a region to themselves.
const (
	chunkSize = 64 << 10
	minSlot   = 64
	maxSlot   = 4096
)

const classes = 7 // minSlot<<6 is maxSlot

// grace is for how long a Secret that nobody wiped stays after the garbage collector found it unreachable. It cannot
// see the slices that Reveal lent, and an erased key that somebody still encrypts with would be a disaster.
var grace = 10 * time.Second

// place is where the bytes of one secret are. There is one for each slot, whether it is taken or not.
type place struct {
	chunk *chunk
	slot  int
}

func (p *place) mem() []byte { return p.chunk.mem[p.slot*p.chunk.size:][:p.chunk.size] }

// chunk is a region that is cut into slots of one size.
type chunk struct {
	*region
	slots *slots // nil if the chunk is one long secret's
	size  int
	free  []*place // a ring, so that the slot that was given back last is used again last
	head  int
	n     int // how many are free
	index int // in slots.room
}

func (c *chunk) empty() bool { return c.n == len(c.free) }

// slots are the chunks with slots of one size.
type slots struct {
	room  [2][]*chunk // those with a free slot: the locked ones, and the others
	empty int         // how many of them have nothing in them
}

func (s *slots) list(c *chunk) *[]*chunk {
	if c.locked {
		return &s.room[0]
	}
	return &s.room[1]
}

func (s *slots) add(c *chunk) {
	l := s.list(c)
	c.index = len(*l)
	*l = append(*l, c)
}

func (s *slots) remove(c *chunk) {
	l := s.list(c)
	last := len(*l) - 1
	(*l)[c.index] = (*l)[last]
	(*l)[c.index].index = c.index
	(*l)[last] = nil
	*l = (*l)[:last]
}

// pick returns a chunk with a free slot, or nil.
func (s *slots) pick() *chunk {
	for _, l := range s.room {
		if len(l) > 0 {
			return l[len(l)-1]
		}
	}
	return nil
}

// allocator hands out places.
type allocator struct {
	mu       sync.Mutex
	sizes    [classes]slots
	resting  map[int][]*region // by size
	locked   int               // bytes
	unlocked int               // bytes
	peak     int               // of unlocked
	live     int               // secrets
	failure  error             // the first one
	limbo    []abandoned
}

type abandoned struct {
	*place
	at time.Time
}

var store = allocator{resting: map[int][]*region{}}

// take returns a place for n bytes, n > 0, that is all zeroes.
func (a *allocator) take(n int) *place {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.live++
	if n > maxSlot {
		page := os.Getpagesize()
		// Powers of two, so that regions are used again.
		size := 1 << bits.Len(uint(max(n, page)-1))
		r := a.region(size)
		return &place{chunk: &chunk{region: r, size: size}}
	}
	k := bits.Len(uint(n-1) / minSlot)
	s := &a.sizes[k]
	c := s.pick()
	if c == nil {
		c = a.grow(s, minSlot<<k)
	}
	if c.empty() {
		s.empty--
	}
	p := c.free[c.head]
	c.head = (c.head + 1) & (len(c.free) - 1) // lengths are powers of two
	c.n--
	if c.n == 0 {
		s.remove(c)
	}
	return p
}

func (a *allocator) grow(s *slots, size int) *chunk {
	c := &chunk{region: a.region(chunkSize), slots: s, size: size, free: make([]*place, chunkSize/size), n: chunkSize / size}
	for i, places := 0, make([]place, c.n); i < c.n; i++ {
		places[i] = place{c, i}
		c.free[i] = &places[i]
	}
	s.add(c)
	s.empty++
	return c
}

// region returns one of size bytes that is all zeroes, locked if that can be.
func (a *allocator) region(size int) *region {
	var r *region
	if l := a.resting[size]; len(l) > 0 {
		r = l[0]
		a.resting[size] = l[1:]
	} else {
		var err error
		r, err = newRegion(size)
		a.note(err)
	}
	a.note(r.lock())
	if r.locked {
		a.locked += size
	} else {
		a.unlocked += size
		a.peak = max(a.peak, a.unlocked)
	}
	return r
}

func (a *allocator) note(err error) {
	if a.failure == nil {
		a.failure = err
	}
}

func (a *allocator) rest(r *region) {
	if r.locked {
		a.locked -= len(r.mem)
	} else {
		a.unlocked -= len(r.mem)
	}
	if r.rest(); r.mapped {
		a.resting[len(r.mem)] = append(a.resting[len(r.mem)], r)
	}
}

// put gives back a place that was erased.
func (a *allocator) put(p *place) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.live--
	c := p.chunk
	s := c.slots
	if s == nil {
		a.rest(c.region)
		return
	}
	if c.n == 0 {
		s.add(c)
	}
	c.free[(c.head+c.n)&(len(c.free)-1)] = p
	c.n++
	if !c.empty() {
		return
	}
	if s.empty == 0 { // one empty chunk stays, so that not every secret costs system calls
		s.empty++
		return
	}
	s.remove(c)
	a.rest(c.region)
}

// abandon is the cleanup of a Secret that nobody wiped.
func abandon(p *place) {
	a := &store
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.limbo) == 0 {
		time.AfterFunc(grace, a.sweep)
	}
	a.limbo = append(a.limbo, abandoned{p, time.Now()})
}

// sweep gives back what was abandoned long enough ago.
func (a *allocator) sweep() {
	a.mu.Lock()
	var due []abandoned
	for i, p := range a.limbo {
		if wait := grace - time.Since(p.at); wait > 0 {
			time.AfterFunc(wait, a.sweep)
			break
		}
		due = a.limbo[:i+1]
	}
	a.limbo = append([]abandoned(nil), a.limbo[len(due):]...)
	a.mu.Unlock()
	for _, p := range due {
		clear(p.mem())
		a.put(p.place)
	}
}
