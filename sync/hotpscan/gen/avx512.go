package main

import (
	"slices"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// avx512 has 16 lanes and 32 registers: the last 16 words of a message stay in them. It needs AVX512F, and VBMI2 for VPSHLDVD.
type avx512 struct {
	*build.Context
	numbers *numbers
	state   fields
	rows    map[int]int // of the words that are stored
}

func newAVX512(c *build.Context) *avx512 {
	return &avx512{Context: c, numbers: newNumbers("numbers512", 1), rows: map[int]int{}}
}

func (m *avx512) lanes() int { return 16 }

func (m *avx512) begin(s fields) { m.state = s }

func (m *avx512) combine(row, field operand.Mem) reg.VecVirtual {
	x := m.ZMM()
	m.VMOVDQU32(row, x)
	m.VPXORD_BCST(field, x, x)
	return x
}

func (m *avx512) step(row, fields operand.Mem, length int) {
	for i := 0; i < length; i += m.lanes() {
		x := m.ZMM()
		m.VMOVDQU32(row.Offset(4*i), x)
		m.VPXORD(fields.Offset(4*i), x, x)
		m.VMOVDQU32(x, fields.Offset(4*i))
	}
}

func (m *avx512) add(y operand.Op, x reg.VecVirtual) { m.VPADDD(y, x, x) }

func (m *avx512) addNumber(n uint32, x reg.VecVirtual) { m.VPADDD_BCST(m.numbers.at(n), x, x) }

func (m *avx512) addField(field operand.Mem, x reg.VecVirtual) { m.VPADDD_BCST(field, x, x) }

func (m *avx512) broadcast(field operand.Mem) reg.VecVirtual {
	x := m.ZMM()
	m.VPBROADCASTD(field, x)
	return x
}

func (m *avx512) rotate(n int, x reg.VecVirtual) reg.VecVirtual {
	r := m.ZMM()
	m.VPROLD(operand.U8(n), x, r)
	return r
}

// Truth tables of VPTERNLOGD.
const (
	chooseTable   = 0xca
	parityTable   = 0x96
	majorityTable = 0xe8
)

func (m *avx512) mix(stage int, b, c, d reg.VecVirtual) (f, rotated reg.VecVirtual) {
	rotated = m.rotate(30, b)
	table := [4]operand.U8{chooseTable, parityTable, majorityTable, parityTable}[stage]
	m.VPTERNLOGD(table, d, c, b)
	return b, rotated
}

func (m *avx512) keep(_ int, x reg.VecVirtual) operand.Op { return x }

func (m *avx512) store(t int, x reg.VecVirtual) operand.Op {
	row, ok := m.rows[t]
	if !ok {
		row = len(m.rows)
		m.rows[t] = row
	}
	place := m.state.at("words", 2*row, 0)
	m.VMOVDQU32(x, place)
	return place
}

func (m *avx512) expand(words []operand.Op, spent operand.Op, number uint32, rotate int) reg.VecVirtual {
	// Words in memory come first: only an instruction's first operand can be there, and they need no copy.
	words = append(slices.DeleteFunc(slices.Clone(words), operand.IsRegister), slices.DeleteFunc(slices.Clone(words), operand.IsMem)...)
	x, ok := spent.(reg.VecVirtual)
	if !ok {
		x = m.ZMM()
		m.VMOVDQU32(words[0], x)
		words = words[1:]
	}
	for ; len(words) >= 2; words = words[2:] {
		m.VPTERNLOGD(operand.U8(parityTable), words[0], words[1], x)
	}
	switch {
	case len(words) == 1 && number != 0:
		m.VPTERNLOGD_BCST(operand.U8(parityTable), m.numbers.at(number), words[0], x)
	case len(words) == 1:
		m.VPXORD(words[0], x, x)
	case number != 0:
		m.VPXORD_BCST(m.numbers.at(number), x, x)
	}
	m.VPROLD(operand.U8(rotate), x, x)
	return x
}

// truncate chooses between words by two bits of the offset, 4 and 8: the first four bytes at an offset are in the word
// there and the one after it, from which VPSHLDVD takes them.
func (m *avx512) truncate(h [5]reg.VecVirtual) reg.VecVirtual {
	by4, by8 := m.K(), m.K()
	bit := m.ZMM()
	m.VPBROADCASTD(m.numbers.at(4), bit)
	m.VPTESTMD(bit, h[4], by4)
	m.VPADDD(bit, bit, bit)
	m.VPTESTMD(bit, h[4], by8)
	choose := func(h []reg.VecVirtual) reg.VecVirtual {
		x, y := m.ZMM(), m.ZMM()
		m.VPBLENDMD(h[1], h[0], by4, x)
		m.VPBLENDMD(h[3], h[2], by4, y)
		m.VPBLENDMD(y, x, by8, x)
		return x
	}
	first, second := choose(h[:4]), choose(h[1:])
	shift := m.ZMM()
	m.VPSLLD(operand.U8(3), h[4], shift) // VPSHLDVD takes it modulo 32
	m.VPSHLDVD(shift, second, first)
	m.VPANDD_BCST(m.numbers.at(0x7fffffff), first, first)
	return first
}

func (m *avx512) hits(x reg.VecVirtual) reg.GPVirtual {
	m.VPADDD_BCST(m.state.at("add"), x, x)
	m.VPMULLD_BCST(m.state.at("inverse"), x, x)
	m.VPRORVD(m.broadcast(m.state.at("digits")), x, x)
	k, hits := m.K(), m.GP32()
	const lessOrEqual = 2
	m.VPCMPUD(operand.U8(lessOrEqual), m.broadcast(m.state.at("limit")), x, k)
	m.KMOVW(k, hits)
	return hits
}

func (m *avx512) erase() {
	m.VZEROALL() // the lower 16 registers, whole
	zero := m.GP32()
	m.XORL(zero, zero)
	for _, z := range []reg.Register{
		reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23, reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
	} {
		m.VPBROADCASTD(zero, z)
	}
}
