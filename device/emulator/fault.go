package emulator

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is a way to misbehave.
type Fault string

// Faults. Each replaces an earlier one of its kind; n is ignored where not mentioned. They outlive pulling
// the key, and unless said otherwise they last until FaultClear.
const (
	// FaultUnplugAtChunk: the key vanishes when chunk n (0 to 9) of a frame arrives, or the first later one
	// if the host leaves n out. Frames without payload, such as the serial request, get through except
	// with 0. One-shot.
	FaultUnplugAtChunk Fault = "unplug-at-chunk"
	// FaultUnplugAfterWrite: the next accepted write is applied, then the key vanishes before its status
	// can be read. One-shot.
	FaultUnplugAfterWrite Fault = "unplug-after-write"
	// FaultStuckFlag: the write-pending flag is always set.
	FaultStuckFlag Fault = "stuck-flag"
	// FaultBadCRC: the next n responses have a damaged CRC; 0: all.
	FaultBadCRC Fault = "bad-crc"
	// FaultRejectWrite: the next n writes are silently rejected; 0 means 1. Counts down.
	FaultRejectWrite Fault = "reject-write"
	// FaultLostStatus: writes take, but pgmSeq and the configured bits stay as they were.
	FaultLostStatus Fault = "lost-status"
	// FaultSlowOpen: opening takes n ms longer.
	FaultSlowOpen Fault = "slow-open"
	// FaultExclusiveOpen: opening fails, as if another program held the key.
	FaultExclusiveOpen Fault = "exclusive-open"
	// FaultNoPermission: opening fails for lack of permission.
	FaultNoPermission Fault = "no-permission"
	// FaultSerialHidden: no command tells the serial.
	FaultSerialHidden Fault = "serial-hidden"
	// FaultReclaim: the next n serial requests get no response, as after another interface was used;
	// 0 means 1. Counts down.
	FaultReclaim Fault = "reclaim"
	// FaultClear removes every fault.
	FaultClear Fault = "clear"
)

// Faults are all kinds, FaultClear last.
var Faults = []Fault{
	FaultUnplugAtChunk, FaultUnplugAfterWrite, FaultStuckFlag, FaultBadCRC, FaultRejectWrite, FaultLostStatus, FaultSlowOpen,
	FaultExclusiveOpen, FaultNoPermission, FaultSerialHidden, FaultReclaim, FaultClear,
}

// ofOpening reports whether k strikes when the key is opened.
func (k Fault) ofOpening() bool {
	return k == FaultSlowOpen || k == FaultExclusiveOpen || k == FaultNoPermission
}

func errOpenedByKernel(k Fault) error {
	return fmt.Errorf("fault %s strikes when a key is opened over the bus socket; this one is attached to the kernel, which opens it in its own way", k)
}

const maxSlowOpen = 600_000 // ms

// forever is the count of a fault that does not run out.
const forever = -1

// faults holds the active ones with their counts.
type faults map[Fault]int

func (f faults) active(k Fault) bool { _, ok := f[k]; return ok }

// use reports whether k strikes now, and counts it down.
func (f faults) use(k Fault) bool {
	n, ok := f[k]
	switch {
	case !ok:
		return false
	case n == 1:
		delete(f, k)
	case n > 1:
		f[k] = n - 1
	}
	return true
}

func (f faults) set(k Fault, n int) error {
	if n < 0 {
		return fmt.Errorf("fault %.40q takes no negative number", string(k))
	}
	high := 1_000_000
	switch k {
	case FaultUnplugAtChunk:
		high = chunks - 1
	case FaultSlowOpen:
		high = maxSlowOpen
	case FaultRejectWrite, FaultReclaim:
		n = cmp.Or(n, 1)
	case FaultBadCRC:
		n = cmp.Or(n, forever)
	case FaultUnplugAfterWrite:
		n = 1
	case FaultStuckFlag, FaultLostStatus, FaultExclusiveOpen, FaultNoPermission, FaultSerialHidden:
		n = forever
	case FaultClear:
		clear(f)
		return nil
	default:
		var names []string
		for _, k := range slices.Concat(CardFaults, Faults) {
			names = append(names, string(k))
		}
		return fmt.Errorf("there is no fault %.40q; the faults are %s", string(k), strings.Join(names, ", "))
	}
	if n > high {
		return fmt.Errorf("fault %s takes a number from 0 to %d, not %d", k, high, n)
	}
	f[k] = n
	return nil
}

// list names the active faults, with their counts.
func (f faults) list() []string {
	names := make([]string, 0, len(f))
	for _, k := range Faults {
		n, ok := f[k]
		switch {
		case !ok:
		case n == forever || k == FaultUnplugAfterWrite:
			names = append(names, string(k))
		default:
			names = append(names, fmt.Sprintf("%s=%d", k, n))
		}
	}
	return names
}
