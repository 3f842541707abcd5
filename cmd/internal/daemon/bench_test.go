package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tokendesk/cmd/internal/world"
)

// idleTime is how long an idle daemon is watched.
const idleTime = 5 * time.Second

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
	pid := w.DaemonPID()
	before := switches(b, pid)
	<-time.After(idleTime) // what is measured is that nothing happens
	wakeups := float64(switches(b, pid)-before) / idleTime.Seconds()
	fmt.Printf("figure daemon_ready_ms %.0f\n", ready[len(ready)/2].Seconds()*1000)
	fmt.Printf("figure daemon_resident_mib %.1f\n", float64(number(b, fmt.Sprintf("/proc/%d/status", pid), "VmRSS:"))/1024)
	fmt.Printf("figure daemon_idle_wakeups_per_s %.1f\n", wakeups)
}

// switches counts how often the threads of a process have been scheduled.
func switches(b *testing.B, pid int) (n int) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) == 0 {
		b.Fatalf("process %d has no threads: %v", pid, err)
	}
	for _, task := range tasks {
		n += number(b, task, "voluntary_ctxt_switches:") + number(b, task, "nonvoluntary_ctxt_switches:")
	}
	return n
}

func number(b *testing.B, file, name string) int {
	text, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, name); found {
			n, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatalf("%s has no %s", file, name)
	return 0
}
