package hotpscan

import (
	"crypto/sha1"
	"encoding"
	"encoding/binary"
	"hash"
	"math"
	"unsafe"

	"tokendesk/vault/secret"
)

// Scanner looks for one sequence in the codes of many seeds. It is for one goroutine. Whoever has one wipes it.
type Scanner struct {
	q Sequence
	a Algorithm

	// What follows is for a kernel, and nil for the base. The state is in locked memory.
	kernel *kernel
	memory secret.Secret
	state  *state
	sha1   hash.Hash
	export encoding.BinaryAppender // is sha1
}

// NewScanner looks for q, with the best kernel of this processor.
func NewScanner(q Sequence, a Algorithm) *Scanner {
	s := &Scanner{q: q, a: a}
	if k := chosen.Load(); k != nil && a == SHA1 && q.Len() > 0 {
		s.kernel, s.sha1 = k, sha1.New()
		s.export = s.sha1.(encoding.BinaryAppender)
		// Secrets of this size begin at multiples of 64 bytes.
		s.memory, _ = secret.Make(int(unsafe.Sizeof(state{})), func(b []byte) error {
			s.state = (*state)(unsafe.Pointer(unsafe.SliceData(b)))
			return nil
		})
		s.state.lookFor(q.values[0], q.digits)
	}
	return s
}

// Each calls found for every counter n, from ≤ n < from+window and in this order, from which on the seed gives the whole
// sequence. It ends early when found returns false. No sequence runs past the last counter, 2^64-1. An empty seed gives no
// codes. Call it in secret.Do, which erases what the standard library computes from the seed; one Do may be around many.
func (s *Scanner) Each(seed []byte, from, window uint64, found func(counter uint64) bool) {
	n := starts(from, window, s.q.Len())
	if n == 0 || len(seed) == 0 {
		return
	}
	if s.kernel != nil {
		s.scan(seed, from, n, found)
		return
	}
	g := newGenerator(s.a, seed, s.q.digits)
	for i := range n {
		if g.matches(from+i, s.q.values) && !found(from+i) {
			return
		}
	}
}

// Wipe erases what the scanner computed from the last seed. It must not be used afterwards.
func (s *Scanner) Wipe() {
	s.memory.Wipe()
	s.state = nil
}

// setSeed computes the midstates. Longer keys than a block are hashed first (RFC 2104 section 2).
func (s *Scanner) setSeed(seed []byte) {
	block := &s.state.block
	clear(block[:])
	if len(seed) > len(block) {
		hashed := sha1.Sum(seed)
		copy(block[:], hashed[:])
		clear(hashed[:])
	} else {
		copy(block[:], seed)
	}
	const inner, outer = 0x3636363636363636, 0x5c5c5c5c5c5c5c5c
	s.midstate(&s.state.inner, &s.state.innerExported, inner)
	s.midstate(&s.state.outer, &s.state.outerExported, inner^outer) // the inner padding is still on it
}

// midstate hashes a block, the key with a padding. Only the standard library's hash has the processor's instructions for
// that, and gives its state away when it is marshalled: a mark of 4 bytes, the state, and what is none of it.
func (s *Scanner) midstate(to *[5]uint32, exported *[exportedSize]byte, padding uint64) {
	block := s.state.block[:]
	for i := 0; i < len(block); i += 8 {
		binary.NativeEndian.PutUint64(block[i:], binary.NativeEndian.Uint64(block[i:])^padding)
	}
	s.sha1.Write(block)
	if out, err := s.export.AppendBinary(exported[:0]); err != nil || len(out) != exportedSize {
		panic("hotpscan: SHA-1 is not marshalled as it was") // the tests would fail
	}
	s.sha1.Reset()
	for i := range to {
		to[i] = binary.BigEndian.Uint32(exported[4+4*i:])
	}
}

// matches tells whether the sequence is that from counter n on. It is the standard library that decides about what a kernel has
// found. hmac.New would do the same, and allocate, which takes longer within secret.Do than all the rest.
func (s *Scanner) matches(n uint64) bool {
	defer s.sha1.Reset()
	sum := s.state.sum[:]
	for i, v := range s.q.values {
		binary.BigEndian.PutUint64(sum, n+uint64(i))
		s.hashOn(&s.state.innerExported, sum[:8])
		s.hashOn(&s.state.outerExported, sum)
		if truncate(sum)%power(10, s.q.digits) != v {
			return false
		}
	}
	return true
}

// hashOn hashes what follows a padded key, into the state's sum.
func (s *Scanner) hashOn(exported *[exportedSize]byte, rest []byte) {
	if err := s.sha1.(encoding.BinaryUnmarshaler).UnmarshalBinary(exported[:]); err != nil {
		panic(err) // it was marshalled here
	}
	s.sha1.Write(rest)
	s.sha1.Sum(s.state.sum[:0])
}

// starts is how many counters from the first one of a window on a sequence of so many codes may start at.
func starts(from, window uint64, codes int) uint64 {
	if codes == 0 {
		return 0
	}
	last := uint64(math.MaxUint64) - uint64(codes-1)
	switch {
	case from > last:
		return 0
	case last-from < window:
		return last - from + 1
	}
	return window
}
