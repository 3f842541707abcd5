package smartcard

import (
	"fmt"
	"strings"
	"sync"
)

// Fault is a way to misbehave.
type Fault string

// Faults. Each replaces an earlier one of its kind; n is ignored where not mentioned. They outlive the power, and unless
// said otherwise they last until FaultClear.
//
// A card that is pulled by one answers nothing, loses its power, and calls Options.Pulled, whose part it is to make the reader,
// and the rest of the key, vanish.
const (
	// FaultPullBefore: the card is pulled when the n-th APDU from now arrives (1 is the next one), which is not carried out.
	// One-shot.
	FaultPullBefore Fault = "pull-before"
	// FaultPullAfter: the card is pulled after the n-th APDU from now was carried out, whose answer is lost. One-shot.
	FaultPullAfter Fault = "pull-after"
	// FaultMute: the card answers nothing.
	FaultMute Fault = "mute"
	// FaultStatus: the next APDU is not carried out, but answered with status word n. One-shot.
	FaultStatus Fault = "status"
	// FaultLyingLength: the elements in answers say that they are longer than they are.
	FaultLyingLength Fault = "lying-length"
	// FaultForeignRoot: attestation ends in a root that nobody knows, though it has the name of the one that is known.
	FaultForeignRoot Fault = "foreign-root"
	// FaultClear removes every fault.
	FaultClear Fault = "clear"
)

// Faults are all kinds, FaultClear last.
var Faults = []Fault{FaultPullBefore, FaultPullAfter, FaultMute, FaultStatus, FaultLyingLength, FaultForeignRoot, FaultClear}

// maxFaultAPDU bounds how far ahead a fault can be set.
const maxFaultAPDU = 1_000_000

// faults holds the active ones with their numbers. It has a lock of its own: a card that waits for a touch takes faults.
type faults struct {
	mu sync.Mutex
	n  map[Fault]int
}

func (f *faults) active(k Fault) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.n[k]
	return ok
}

// strikes counts an APDU, and reports whether it is the one that k was set for.
func (f *faults) strikes(k Fault) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, ok := f.n[k]
	if ok && n > 1 {
		f.n[k] = n - 1
		return false
	}
	delete(f.n, k)
	return ok
}

func (f *faults) status() (status, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, ok := f.n[FaultStatus]
	delete(f.n, FaultStatus)
	return status(n), ok
}

// SetFault makes the card misbehave.
func (c *Card) SetFault(kind Fault, n int) error {
	c.faults.mu.Lock()
	defer c.faults.mu.Unlock()
	low, high := 0, 0
	switch kind {
	case FaultPullBefore, FaultPullAfter:
		low, high = 1, maxFaultAPDU
	case FaultStatus:
		low, high = 0x6100, 0x9FFF
	case FaultMute, FaultLyingLength, FaultForeignRoot:
		n = 0
	case FaultClear:
		clear(c.faults.n)
		return nil
	default:
		names := make([]string, len(Faults))
		for i, k := range Faults {
			names[i] = string(k)
		}
		return fmt.Errorf("there is no fault %.40q; the faults are %s", string(kind), strings.Join(names, ", "))
	}
	if n < low || n > high {
		return fmt.Errorf("fault %s takes a number from %d to %d, not %d", kind, low, high, n)
	}
	c.faults.n[kind] = n
	return nil
}

// Faults names the active faults, with their numbers.
func (c *Card) Faults() []string {
	c.faults.mu.Lock()
	defer c.faults.mu.Unlock()
	var names []string
	for _, k := range Faults {
		n, ok := c.faults.n[k]
		switch {
		case !ok:
		case n == 0:
			names = append(names, string(k))
		default:
			names = append(names, fmt.Sprintf("%s=%d", k, n))
		}
	}
	return names
}

// lie makes the first element of an answer longer than it is.
func lie(data []byte) {
	at := 1
	if len(data) > 2 && data[0]&0x1F == 0x1F {
		at = 2
	}
	if at >= len(data) {
		return
	}
	switch data[at] {
	case 0x81, 0x82:
		if at+1 < len(data) {
			data[at+1] |= 0xF0
		}
	default:
		data[at] |= 0x7F
	}
}
