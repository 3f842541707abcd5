package nitrokeypro

import (
	"fmt"
	"strings"
)

// Fault is a way to misbehave.
type Fault string

// Faults. Each replaces an earlier one of its kind; n is ignored where not mentioned. They outlive the power, and unless said
// otherwise they last until FaultClear.
const (
	// FaultPullBefore: the token loses its power when the n-th command from now arrives (1 is the next one), which is not
	// carried out. One-shot.
	FaultPullBefore Fault = "pull-before"
	// FaultPullAfter: it loses its power after the n-th command from now was carried out, whose answer is lost. One-shot.
	FaultPullAfter Fault = "pull-after"
	// FaultTornWrite: it loses its power when the counter of the next slot is written, and the seed is still the one before.
	// One-shot.
	FaultTornWrite Fault = "torn-write"
	// FaultBadCRC: the next n answers that are read have a damaged checksum; 0: all.
	FaultBadCRC Fault = "bad-crc"
	// FaultStuckBusy: it never finishes, and takes no command.
	FaultStuckBusy Fault = "stuck-busy"
	// FaultDrop: the n-th command from now is lost without a word. One-shot.
	FaultDrop Fault = "drop"
	// FaultStatus: the next command is not carried out, but answered with status n. One-shot.
	FaultStatus Fault = "status"
	// FaultClear removes every fault.
	FaultClear Fault = "clear"
)

// Faults are all kinds, FaultClear last.
var Faults = []Fault{
	FaultPullBefore, FaultPullAfter, FaultTornWrite, FaultBadCRC, FaultStuckBusy, FaultDrop, FaultStatus, FaultClear,
}

const maxFault = 1_000_000

// faults holds the active ones with their numbers.
type faults map[Fault]int

func (f faults) active(k Fault) bool { _, ok := f[k]; return ok }

// strikes counts down, and reports whether this is the time that k was set for.
func (f faults) strikes(k Fault) bool {
	n, ok := f[k]
	if ok && n > 1 {
		f[k] = n - 1
		return false
	}
	delete(f, k)
	return ok
}

// use reports whether k strikes, which it does n times, or always with n of 0.
func (f faults) use(k Fault) bool {
	n, ok := f[k]
	switch {
	case n == 1:
		delete(f, k)
	case n > 1:
		f[k] = n - 1
	}
	return ok
}

func (f faults) status() (int, bool) {
	n, ok := f[FaultStatus]
	delete(f, FaultStatus)
	return n, ok
}

// SetFault makes the token misbehave.
func (t *Token) SetFault(kind Fault, n int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	low, high := 0, 0
	switch kind {
	case FaultPullBefore, FaultPullAfter, FaultDrop:
		low, high = 1, maxFault
	case FaultBadCRC:
		high = maxFault
	case FaultStatus:
		low, high = 1, 255
	case FaultTornWrite, FaultStuckBusy:
		n = 0
	case FaultClear:
		clear(t.faults)
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
	t.faults[kind] = n
	return nil
}

// Faults names the active faults, with their numbers.
func (t *Token) Faults() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var names []string
	for _, k := range Faults {
		n, ok := t.faults[k]
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
