package vault_test

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tokendesk/vault"
)

// BenchmarkEachSeed reads all seeds of a large vault, and does nothing with them.
func BenchmarkEachSeed(b *testing.B) {
	v, _ := grow(b, filepath.Join(b.TempDir(), "vault"), *someTokens)
	defer v.Close()
	var took, busy []time.Duration
	for b.Loop() {
		for range rounds {
			var n atomic.Int64
			runtime.GC()
			start, spent := time.Now(), processorTime(b)
			err := v.EachSeed(context.Background(), runtime.GOMAXPROCS(0), func(int, vault.SeedEntry) error { n.Add(1); return nil })
			took, busy = append(took, time.Since(start)), append(busy, processorTime(b)-spent)
			if err != nil || int(n.Load()) != *someTokens {
				b.Fatal(n.Load(), err)
			}
		}
	}
	fmt.Printf("figure vault_each_seed_100k_ms %.0f\n", median(took).Seconds()*1000)
	fmt.Printf("figure vault_each_seed_100k_processor_ms %.0f\n", median(busy).Seconds()*1000)
}

// processorTime is what this process has used of all processors: on a machine with other work it says more than the clock.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
