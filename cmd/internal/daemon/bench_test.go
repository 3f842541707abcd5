package daemon_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"tokendesk/cmd/internal/world"
)

// idleTime is how long an idle daemon is watched.
const idleTime = 5 * time.Second

// afterStart is how long a daemon is given to finish what follows its start.
const afterStart = 4 * time.Second

// BenchmarkDaemon prints figures of the daemon as it ships, on a software TPM and without anything to do: time from
// its start to its first answer, resident memory, and how often it wakes up.
func BenchmarkDaemon(b *testing.B) {
	dir := b.TempDir()
	if err := world.Build(dir, false); err != nil {
		b.Fatal(err)
	}
	w, err := world.Start(world.Options{Bin: dir, Keys: []string{keyOf(40000001)}})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := w.Stop(); err != nil {
			b.Error(err)
		}
	}()
	var ready []time.Duration
	for b.Loop() {
		if err := w.StopDaemon(); err != nil {
			b.Fatal(err)
		}
		begin := time.Now()
		if err := w.StartDaemon(); err != nil {
			b.Fatal(err)
		}
		ready = append(ready, time.Since(begin))
	}
	if err := w.AwaitKeys(b.Context(), 40000001); err != nil {
		b.Fatal(err)
	}
	slices.Sort(ready)
	<-time.After(afterStart)
	before, err := w.Wakeups()
	if err != nil {
		b.Fatal(err)
	}
	<-time.After(idleTime) // what is measured is that nothing happens
	after, err := w.Wakeups()
	if err != nil {
		b.Fatal(err)
	}
	resident, err := w.ResidentMiB()
	if err != nil {
		b.Fatal(err)
	}
	fmt.Printf("figure daemon_ready_ms %.0f\n", ready[len(ready)/2].Seconds()*1000)
	fmt.Printf("figure daemon_resident_mib %.1f\n", resident)
	fmt.Printf("figure daemon_idle_wakeups_per_s %.1f\n", float64(after-before)/idleTime.Seconds())
}
