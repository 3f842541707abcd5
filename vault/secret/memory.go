package secret

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Stats is where the secrets of this process are.
type Stats struct {
	LockedBytes   int // pages that are kept out of swap
	UnlockedBytes int // pages that are not
	Live          int // secrets that were neither wiped nor given back after the garbage collector found them
	// Problem is nil if all secrets since the start of the program were in locked memory. Otherwise it says how many
	// bytes were not at worst, why, and what to do.
	Problem error
}

// Memory tells where the secrets of this process are.
func Memory() Stats {
	store.mu.Lock()
	s := Stats{LockedBytes: store.locked, UnlockedBytes: store.unlocked, Live: store.live}
	peak, failure := store.peak, store.failure
	store.mu.Unlock()
	if failure != nil {
		s.Problem = fmt.Errorf("up to %d KiB of secrets were in memory that is not fully protected (%w): raise LimitMEMLOCK= in the service, or ulimit -l%s, and restart", peak>>10, failure, limit())
	}
	return s
}

// limit is what this process may lock.
func limit() string {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l); err != nil || l.Cur == unix.RLIM_INFINITY {
		return ""
	}
	return fmt.Sprintf(" (now %d KiB)", l.Cur>>10)
}
