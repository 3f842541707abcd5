package main

import (
	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
)

// numbers is the constants of one kernel, each repeated as often as its instructions want.
type numbers struct {
	name   string
	repeat int
	places map[uint32]int
	all    []uint32
}

func newNumbers(name string, repeat int) *numbers {
	return &numbers{name: name, repeat: repeat, places: map[uint32]int{}}
}

// at is where a number is.
func (t *numbers) at(n uint32) operand.Mem {
	place, ok := t.places[n]
	if !ok {
		place = len(t.all)
		t.places[n] = place
		for range t.repeat {
			t.all = append(t.all, n)
		}
	}
	return operand.NewDataAddr(operand.Symbol{Name: t.name, Static: true}, 4*place)
}

// define puts the table into the file.
func (t *numbers) define(c *build.Context) {
	c.StaticGlobal(t.name)
	c.DataAttributes(attr.RODATA | attr.NOPTR)
	for i, n := range t.all {
		c.AddDatum(4*i, operand.U32(n))
	}
}
