package main

import (
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// avx2 has 8 lanes and 16 registers: a message is kept in the kernel's state. It has neither rotations nor broadcasts from
// memory within other instructions.
type avx2 struct {
	*build.Context
	numbers *numbers
	state   fields
}

func newAVX2(c *build.Context) *avx2 {
	return &avx2{Context: c, numbers: newNumbers("numbers2", 8)}
}

func (m *avx2) lanes() int { return 8 }

func (m *avx2) begin(s fields) { m.state = s }

func (m *avx2) combine(row, field operand.Mem) reg.VecVirtual {
	x := m.broadcast(field)
	m.VPXOR(row, x, x)
	return x
}

func (m *avx2) step(row, fields operand.Mem, length int) {
	for i := 0; i < length; i += m.lanes() {
		x := m.YMM()
		m.VMOVDQU(row.Offset(4*i), x)
		m.VPXOR(fields.Offset(4*i), x, x)
		m.VMOVDQU(x, fields.Offset(4*i))
	}
}

func (m *avx2) add(y operand.Op, x reg.VecVirtual) { m.VPADDD(y, x, x) }

func (m *avx2) addNumber(n uint32, x reg.VecVirtual) { m.VPADDD(m.numbers.at(n), x, x) }

func (m *avx2) addField(field operand.Mem, x reg.VecVirtual) { m.VPADDD(m.broadcast(field), x, x) }

func (m *avx2) broadcast(field operand.Mem) reg.VecVirtual {
	x := m.YMM()
	m.VPBROADCASTD(field, x)
	return x
}

func (m *avx2) rotate(n int, x reg.VecVirtual) reg.VecVirtual {
	left, right := m.YMM(), m.YMM()
	m.VPSLLD(operand.U8(n), x, left)
	m.VPSRLD(operand.U8(32-n), x, right)
	m.VPOR(left, right, right)
	return right
}

func (m *avx2) mix(stage int, b, c, d reg.VecVirtual) (f, rotated reg.VecVirtual) {
	f = m.YMM()
	switch stage {
	case 0: // choose
		m.VPXOR(c, d, f)
		m.VPAND(b, f, f)
		m.VPXOR(d, f, f)
	case 2: // majority
		both := m.YMM()
		m.VPAND(b, c, both)
		m.VPOR(b, c, f)
		m.VPAND(d, f, f)
		m.VPOR(both, f, f)
	default: // parity
		m.VPXOR(c, d, f)
		m.VPXOR(b, f, f)
	}
	return f, m.rotate(30, b)
}

func (m *avx2) keep(t int, x reg.VecVirtual) operand.Op { return m.store(t, x) }

func (m *avx2) store(t int, x reg.VecVirtual) operand.Op {
	place := m.state.at("words", t, 0)
	m.VMOVDQU(x, place)
	return place
}

func (m *avx2) expand(words []operand.Op, spent operand.Op, number uint32, rotate int) reg.VecVirtual {
	if spent != nil {
		words = append(words, spent)
	}
	x := m.YMM()
	m.VMOVDQU(words[0], x)
	for _, w := range words[1:] {
		m.VPXOR(w, x, x)
	}
	if number != 0 {
		m.VPXOR(m.numbers.at(number), x, x)
	}
	return m.rotate(rotate, x)
}

// truncate chooses between words by two bits of the offset, 4 and 8, which VBLENDVPS wants as signs: the first four bytes at
// an offset are in the word there and the one after it.
func (m *avx2) truncate(h [5]reg.VecVirtual) reg.VecVirtual {
	by4, by8 := m.YMM(), m.YMM()
	m.VPSLLD(operand.U8(31-2), h[4], by4)
	m.VPSLLD(operand.U8(31-3), h[4], by8)
	choose := func(h []reg.VecVirtual) reg.VecVirtual {
		x, y := m.YMM(), m.YMM()
		m.VBLENDVPS(by4, h[1], h[0], x)
		m.VBLENDVPS(by4, h[3], h[2], y)
		m.VBLENDVPS(by8, y, x, x)
		return x
	}
	first, second := choose(h[:4]), choose(h[1:])
	shift := m.YMM()
	m.VPSLLD(operand.U8(3), h[4], shift)
	m.VPAND(m.numbers.at(24), shift, shift)
	m.VPSLLVD(shift, first, first)
	m.VPSRLVD(m.from32(shift), second, second) // by 32 gives nothing, which is right
	m.VPOR(second, first, first)
	m.VPAND(m.numbers.at(0x7fffffff), first, first)
	return first
}

// from32 is 32 - x.
func (m *avx2) from32(x reg.VecVirtual) reg.VecVirtual {
	y := m.YMM()
	m.VMOVDQU(m.numbers.at(32), y)
	m.VPSUBD(x, y, y)
	return y
}

func (m *avx2) hits(x reg.VecVirtual) reg.GPVirtual {
	m.addField(m.state.at("add"), x)
	m.VPMULLD(m.broadcast(m.state.at("inverse")), x, x)
	by := m.broadcast(m.state.at("digits"))
	right := m.YMM()
	m.VPSRLVD(by, x, right)
	m.VPSLLVD(m.from32(by), x, x)
	m.VPOR(right, x, x)
	smaller := m.YMM() // AVX2 cannot compare without signs: x is it, or the limit
	m.VPMINUD(m.broadcast(m.state.at("limit")), x, smaller)
	m.VPCMPEQD(smaller, x, x)
	hits := m.GP32()
	m.VMOVMSKPS(x, hits)
	return hits
}

func (m *avx2) erase() { m.VZEROALL() }
