package secret

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// region is memory of its own for secrets. A region is never unmapped: whoever still reads bytes that were lent finds
// zeroes, or at worst another secret, but no hole. One that rests has neither pages nor locks.
type region struct {
	mem    []byte
	locked bool
	mapped bool // false if the kernel gave no pages, and mem is ordinary Go memory
}

// newRegion takes size bytes, a multiple of the page size, from the kernel. Whatever goes wrong, there is a region.
func newRegion(size int) (*region, error) {
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return &region{mem: make([]byte, size)}, fmt.Errorf("cannot map memory: %w", err)
	}
	r := &region{mem: mem, mapped: true}
	if err := unix.Madvise(mem, unix.MADV_DONTDUMP); err != nil {
		return r, fmt.Errorf("cannot keep memory out of core dumps: %w", err)
	}
	if err := unix.Madvise(mem, unix.MADV_WIPEONFORK); err != nil {
		return r, fmt.Errorf("cannot keep memory from forked processes: %w", err)
	}
	return r, nil
}

// lock keeps the region out of swap, if the limit allows it.
func (r *region) lock() error {
	if !r.mapped {
		return nil // newRegion told
	}
	if err := unix.Mlock(r.mem); err != nil {
		return fmt.Errorf("cannot lock memory: %w", err)
	}
	r.locked = true
	return nil
}

// rest gives the pages of an erased region back. Errors have no consequence: nothing is in it.
func (r *region) rest() {
	if r.locked {
		_ = unix.Munlock(r.mem)
		r.locked = false
	}
	if r.mapped {
		_ = unix.Madvise(r.mem, unix.MADV_DONTNEED)
	}
}

// zeroes is for move. Go's race detector does not watch such memory, and all that is ever written there are zeroes.
var zeroes, _ = newRegion(2 * maxSlot) // whatever goes wrong, there is a region

// move is copy, and leaves nothing in registers: whatever interrupts the program next would save them on some
// stack. Copying as many zeroes uses the same ones.
func move(dst, src []byte) int {
	n := copy(dst, src)
	copy(zeroes.mem[:maxSlot], zeroes.mem[maxSlot:][:min(n, maxSlot)])
	return n
}
