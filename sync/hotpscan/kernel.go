package hotpscan

import (
	"crypto/sha1"
	"fmt"
	"math/bits"
	"sync/atomic"
)

// kernel searches consecutive counters for the first code only.
type kernel struct {
	name   string
	lanes  int
	tables *tables
	// search starts at the counter in s, a multiple of the lanes, goes on for so many blocks of lanes, and stops after the
	// first one with hits. Bit i of hits is lane i. The low half of the counter must not pass 2^32.
	search func(s *state, t *tables, blocks int) (block int, hits uint32)
}

// state is what a kernel works on, and the only memory that it writes. The generator takes the fields' places from here.
type state struct {
	// Vectors come first, so that none lies across a cache line's end.
	words    [80][8]uint32 // where a kernel keeps the outer hash's message, as it has too few registers
	expanded [64]uint32    // words 16 to 79 of the schedule of the first lane's counter

	inner, outer [5]uint32 // HMAC-SHA-1's midstates: the padded keys' blocks are hashed
	innerBegun   [5]uint32 // see begun, after two rounds; its first word lacks the low half of the counter
	outerBegun   [5]uint32 // see begun, after one round; its first word lacks the first word of the inner hash
	low          uint32    // half of the first lane's counter

	// With these a value is compared without a division: it is the code modulo 10^digits if and only if
	// (value + add) · inverse, rotated right by digits, is at most limit (Hacker's Delight, section 10-17).
	add     uint32 // 10^digits - code
	inverse uint32 // of 5^digits, modulo 2^32
	limit   uint32 // (2^32-1) / 10^digits
	digits  uint32

	// For the midstates.
	block                        [sha1.BlockSize]byte
	innerExported, outerExported [exportedSize]byte // the midstates as the standard library marshals them
	sum                          [sha1.Size]byte
}

// exportedSize is that of a marshalled SHA-1: a mark, the state, a block that is not full, the length.
const exportedSize = 4 + sha1.Size + sha1.BlockSize + 8

// tables is what a kernel knows about the schedule of counters, which is linear.
type tables struct {
	lanes [65][16]uint32 // lane by lane, its number, and words 16 to 79 of what that does
	steps [32][64]uint32 // by the lowest 1 of a block's first counter, what changed since the block before
}

func newTables(lanes int) *tables {
	t := &tables{}
	for lane := range uint32(16) {
		t.lanes[0][lane] = lane
		for i, w := range expand(0, lane, 0, 0) {
			t.lanes[1+i][lane] = w
		}
	}
	for bit := range t.steps {
		changed := uint32(1)<<(bit+1) - uint32(lanes) // all bits up to this one, but for the lanes'
		t.steps[bit] = expand(0, changed, 0, 0)
	}
	return t
}

// expand is words 16 to 79 of a schedule (FIPS 180-4 section 6.1.2 step 1). All others of the first 16 words are 0.
func expand(w0, w1, w2, w15 uint32) [64]uint32 {
	w := [80]uint32{w0, w1, w2, 15: w15}
	for i := 16; i < len(w); i++ {
		w[i] = bits.RotateLeft32(w[i-3]^w[i-8]^w[i-14]^w[i-16], 1)
	}
	return [64]uint32(w[16:])
}

// round is one of the first 20 rounds (FIPS 180-4 section 6.1.2 step 3).
func round(h [5]uint32, word uint32) [5]uint32 {
	choose := h[1]&h[2] ^ ^h[1]&h[3]
	return [5]uint32{bits.RotateLeft32(h[0], 5) + choose + h[4] + 0x5a827999 + word, h[0], bits.RotateLeft32(h[1], 30), h[2], h[3]}
}

// begin sets the first counter.
func (s *state) begin(counter uint64) {
	high := uint32(counter >> 32)
	s.low = uint32(counter)
	s.expanded = expand(high, s.low, 1<<31, (64+8)*8)
	s.innerBegun = begun(round(round(s.inner, high), 0), 1<<31)
	s.outerBegun = begun(round(s.outer, 0), 0)
}

// begun is what is known of a hash when a round is done but for its first word: this as far as it is known, what the next
// round adds to that word rotated by 5, which becomes the first one then, and the three behind them then.
func begun(h [5]uint32, word uint32) [5]uint32 {
	next := round([5]uint32{0, h[1], h[2], h[3], h[4]}, word)
	return [5]uint32{h[0], next[0], next[2], next[3], next[4]}
}

// lookFor sets the code.
func (s *state) lookFor(code uint32, digits int) {
	five := power(5, digits)
	s.inverse = five // right in the lowest 3 bits, and each step doubles that
	for range 4 {
		s.inverse *= 2 - five*s.inverse
	}
	s.add, s.limit, s.digits = power(10, digits)-code, (1<<32-1)/power(10, digits), uint32(digits)
}

// scan is Each with a kernel.
func (s *Scanner) scan(seed []byte, from, n uint64, found func(uint64) bool) {
	s.setSeed(seed)
	lanes := uint64(s.kernel.lanes)
	for n > 0 {
		// The kernel cannot be interrupted, not even for a garbage collection: this many take it a few milliseconds.
		run := min(n, 1<<16, 1<<32-from&(1<<32-1))
		first := from &^ (lanes - 1)
		s.state.begin(first)
		block, hits := s.kernel.search(s.state, s.kernel.tables, int((from+run-1-first)/lanes)+1)
		at := first + uint64(block)*lanes
		for ; hits != 0; hits &= hits - 1 {
			n := at + uint64(bits.TrailingZeros32(hits))
			if n-from >= run { // before the first one, or behind the last one
				continue
			}
			if s.matches(n) && !found(n) {
				return
			}
		}
		done := min(run, at+lanes-from)
		from, n = from+done, n-done
	}
}

// chosen is the kernel that NewScanner uses, nil for the base.
var chosen atomic.Pointer[kernel]

func init() {
	if len(kernels) > 0 {
		chosen.Store(&kernels[0])
	}
}

const baseName = "base"

// Kernel is what NewScanner uses for SHA-1: "avx512", "avx2" or "base". For other hashes it uses the base.
func Kernel() string {
	if k := chosen.Load(); k != nil {
		return k.name
	}
	return baseName
}

// Force has NewScanner use another kernel until restore is called. It is for tests and benchmarks. It fails if this
// processor cannot run it.
func Force(kernel string) (restore func(), err error) {
	before := chosen.Load()
	restore = func() { chosen.Store(before) }
	if kernel == baseName {
		chosen.Store(nil)
		return restore, nil
	}
	for i := range kernels {
		if kernels[i].name == kernel {
			chosen.Store(&kernels[i])
			return restore, nil
		}
	}
	return nil, fmt.Errorf("this processor has no kernel %q", kernel)
}
