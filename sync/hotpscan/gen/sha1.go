package main

import (
	"math/bits"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// machine is the instructions of a processor: each takes and gives a vector with a number of 32 bits per lane.
type machine interface {
	lanes() int
	// add, addNumber and addField add to x.
	add(y operand.Op, x reg.VecVirtual)
	addNumber(n uint32, x reg.VecVirtual)
	addField(field operand.Mem, x reg.VecVirtual)
	// broadcast is a field of the state in every lane.
	broadcast(field operand.Mem) reg.VecVirtual
	// rotate is x rotated left.
	rotate(n int, x reg.VecVirtual) reg.VecVirtual
	// mix is the round function (FIPS 180-4 section 4.1.1) of a stage, 0 to 3, and b rotated left by 30. It spoils b.
	mix(stage int, b, c, d reg.VecVirtual) (f, rotated reg.VecVirtual)
	// keep puts word t of a message where it stays until word t+16 is there, store in memory, where all stay.
	keep(t int, x reg.VecVirtual) operand.Op
	store(t int, x reg.VecVirtual) operand.Op
	// expand is the exclusive or of words, of one more that is not used again (or nil), and of a number, rotated left.
	expand(words []operand.Op, spent operand.Op, number uint32, rotate int) reg.VecVirtual
	// combine is the exclusive or of a table's row, which has a number for each lane, and a field of the state.
	combine(row, field operand.Mem) reg.VecVirtual
	// step is the exclusive or of a row of a table and the state's fields, as long as the row.
	step(row, fields operand.Mem, length int)
	// truncate is the dynamic truncation of RFC 4226 section 5.3.
	truncate(h [5]reg.VecVirtual) reg.VecVirtual
	// hits compares values with the code, one bit per lane in a 32-bit register.
	hits(values reg.VecVirtual) reg.GPVirtual
	// erase leaves nothing in vector registers.
	erase()
}

// constants are FIPS 180-4 section 4.2.1, by stage of 20 rounds.
var constants = [4]uint32{0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6}

// word is a word of a message: the same number in every lane, or what is kept somewhere.
type word struct {
	kept   operand.Op // nil if it is a number
	number uint32
	stored operand.Op // nil unless it is used after more than 16 words
}

// schedule is a message, as far as it is made (FIPS 180-4 section 6.1.2 step 1).
//
// Word t is w[t-3] ^ w[t-8] ^ w[t-14] ^ w[t-16], rotated by 1. That put into itself is the same with twice the distances and
// twice the rotation, and so on. Further back are more words that are numbers: the recurrence with the least others is taken.
type schedule struct {
	words [80]word
	used  [80]bool // after more than 16 words
}

// newSchedule is a message's first words, some of them numbers.
func newSchedule(first [16]word) *schedule {
	s := &schedule{}
	copy(s.words[:], first[:])
	s.used = s.plan()
	return s
}

// plan goes through the recurrences without making anything.
func (s schedule) plan() (used [80]bool) {
	for t := 16; t < len(s.words); t++ {
		r := s.recur(t)
		for _, from := range r.from {
			used[from] = used[from] || t-from > 16
		}
		if len(r.from) > 0 {
			s.words[t].kept = operand.Imm(0) // anything
		}
	}
	return used
}

// recurrence is how a word is made: of others, and the numbers among these.
type recurrence struct {
	from   []int
	number uint32
	rotate int
}

func (s *schedule) recur(t int) (best recurrence) {
	least := 5
	for twice := 1; 16*twice <= t; twice *= 2 {
		r := recurrence{rotate: twice}
		for _, back := range []int{3, 8, 14, 16} {
			w := s.words[t-back*twice]
			r.number ^= w.number
			if w.kept != nil {
				r.from = append(r.from, t-back*twice)
			}
		}
		n := len(r.from)
		if r.number != 0 {
			n++
		}
		if n < least {
			least, best = n, r
		}
	}
	return best
}

// set makes word t what is in x.
func (s *schedule) set(m machine, t int, x reg.VecVirtual) {
	w := word{kept: m.keep(t, x)}
	switch {
	case operand.IsMem(w.kept):
		w.stored = w.kept
	case s.used[t]:
		w.stored = m.store(t, x)
	}
	s.words[t] = w
}

// add adds word t to x, with the constant of its round.
func (s *schedule) add(m machine, t int, x reg.VecVirtual) {
	if t >= 16 {
		s.next(m, t)
	}
	w := s.words[t]
	m.addNumber(constants[t/20]+w.number, x)
	if w.kept != nil {
		m.add(w.kept, x)
	}
}

// next makes word t from those before it.
func (s *schedule) next(m machine, t int) {
	r := s.recur(t)
	if len(r.from) == 0 {
		s.words[t].number = bits.RotateLeft32(r.number, r.rotate)
		return
	}
	var words []operand.Op
	var spent operand.Op
	for _, from := range r.from {
		w := s.words[from]
		switch {
		case t-from > 16:
			words = append(words, w.stored)
		case t-from == 16:
			spent = w.kept
		default:
			words = append(words, w.kept)
		}
	}
	s.set(m, t, m.expand(words, spent, r.number, r.rotate))
}

// message is what compress hashes.
type message interface {
	add(m machine, t int, x reg.VecVirtual)
}

// compress is the rounds of one block from round first on, where h is, and the sum with the state before the block, which is
// the same in every lane (FIPS 180-4 section 6.1.2).
func compress(m machine, h [5]reg.VecVirtual, first int, words message, before [5]operand.Mem) [5]reg.VecVirtual {
	for t := first; t < 80; t++ {
		a, b, c, d, e := h[0], h[1], h[2], h[3], h[4]
		words.add(m, t, e)
		f, rotated := m.mix(t/20, b, c, d)
		m.add(f, e)
		m.add(m.rotate(5, a), e)
		h = [5]reg.VecVirtual{e, a, rotated, c, d}
	}
	for i, field := range before {
		m.addField(field, h[i])
	}
	return h
}
