package main

import (
	"fmt"
	"math/bits"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/gotypes"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// fields is one of hotpscan's structs.
type fields struct{ gotypes.Component }

// at is the address of a field, or of what is in it at some index.
func (s fields) at(field string, index ...int) operand.Mem {
	c := s.Field(field)
	for _, i := range index {
		c = c.Index(i)
	}
	number, err := c.Resolve()
	if err != nil {
		panic(fmt.Sprintf("hotpscan's field %s: %v", field, err))
	}
	return number.Addr
}

// five is a field of five words.
func (s fields) five(field string) (words [5]operand.Mem) {
	for i := range words {
		words[i] = s.at(field, i)
	}
	return words
}

// search is a whole kernel. It has no stack frame, and leaves nothing of the seed in vector registers.
func search(c *build.Context, name string, m interface {
	machine
	begin(state fields)
}) {
	c.Implement(name)
	c.Attributes(attr.NOSPLIT)
	s, t := fields{c.Dereference(c.Param("s"))}, fields{c.Dereference(c.Param("t"))}
	blocks := c.Load(c.Param("blocks"), c.GP64())
	block := c.GP64()
	c.XORQ(block, block)
	counter := c.GP64()
	c.MOVL(s.at("low"), counter.As32())
	m.begin(s)

	c.Label("loop")
	hits := m.hits(m.truncate(mac(m, s, t)))
	c.TESTL(hits, hits)
	c.JNZ(operand.LabelRef("done"))
	c.INCQ(block)
	c.CMPQ(block, blocks)
	c.JGE(operand.LabelRef("done"))
	c.ADDL(operand.U8(m.lanes()), counter.As32())
	c.MOVL(counter.As32(), s.at("low"))
	step(c, m, counter, s, t)
	c.JMP(operand.LabelRef("loop"))

	c.Label("done")
	c.Store(block, c.Return("block"))
	c.Store(hits, c.Return("hits"))
	m.erase()
	c.RET()
}

// step goes on to the next block's counter: all bits up to its lowest 1 have changed, and what that does to the schedule is
// a row of table steps.
func step(c *build.Context, m machine, counter reg.GPVirtual, s, t fields) {
	row := c.GP64()
	c.BSFQ(counter, row)
	c.SHLQ(operand.U8(8), row) // a row has 64 words
	at := t.at("steps", 0, 0)
	at.Index, at.Scale = row, 1
	m.step(at, s.at("expanded", 0), 64)
}

// mac is HMAC-SHA-1 of a block's counters. What comes before the first word with the lanes' own counters, or with their own
// hash, is in the state.
func mac(m machine, s, t fields) [5]reg.VecVirtual {
	counter := m.broadcast(s.at("low"))
	m.add(t.at("lanes", 0, 0), counter)
	digest := compress(m, begin(m, counter, s.five("innerBegun")), 3, counters{s, t}, s.five("inner"))

	var first [16]word
	for i, h := range digest {
		first[i].kept = h
	}
	first[5].number = 1 << 31 // the padding, behind the padded key and 20 bytes
	first[15].number = (64 + 20) * 8
	words := newSchedule(first)
	for i, h := range digest {
		words.set(m, i, h)
	}
	h := begin(m, digest[0], s.five("outerBegun"))
	m.add(words.words[1].kept, h[0])
	return compress(m, h, 2, words, s.five("outer"))
}

// begin makes the first two words that differ from lane to lane: the hash's first word is the state's and x, after the next
// round it is the state's second word and that, rotated.
func begin(m machine, x reg.VecVirtual, begun [5]operand.Mem) (h [5]reg.VecVirtual) {
	for i, field := range begun {
		h[i] = m.broadcast(field)
	}
	m.add(x, h[0])
	m.add(m.rotate(5, h[0]), h[1])
	h[0], h[1] = h[1], h[0]
	return h
}

// counters is the message that is a counter. Its schedule is linear: that of the first lane's counter, exclusive or what the
// few bits do in which the lanes differ, which is the same in all blocks.
type counters struct{ state, tables fields }

func (w counters) add(m machine, t int, x reg.VecVirtual) {
	switch {
	case t == 15: // the padding
		m.addNumber(constants[0]+(64+8)*8, x)
	case t < 16:
		m.addNumber(constants[0], x)
	default:
		m.addNumber(constants[t/20], x)
		first := w.state.at("expanded", t-16)
		if sameInAllLanes(t) {
			m.addField(first, x)
			return
		}
		m.add(m.combine(w.tables.at("lanes", t-15, 0), first), x)
	}
}

// sameInAllLanes tells whether word t of a counter's schedule does not depend on the low half.
func sameInAllLanes(t int) bool {
	var w [80]uint32
	for w[1] = 1; w[1] < 16; w[1] <<= 1 {
		for i := 16; i <= t; i++ {
			w[i] = bits.RotateLeft32(w[i-3]^w[i-8]^w[i-14]^w[i-16], 1)
		}
		if w[t] != 0 {
			return false
		}
	}
	return true
}
