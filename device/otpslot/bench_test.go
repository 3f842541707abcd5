package otpslot_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/bussocket"
	"tokendesk/device/emulator"
	"tokendesk/device/otpslot"
)

// serve runs a key with real timing on a bus socket until the end of the benchmark.
func serve(b *testing.B) (*bussocket.Bus, bussocket.Control) {
	b.Helper()
	dir, err := os.MkdirTemp("", "td") // a socket's path has at most 107 bytes
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "bus")
	server, err := emulator.Listen(socket, newKey(fw5))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- server.Serve(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-result; err != nil {
			b.Error(err)
		}
	})
	return bussocket.New(socket), bussocket.Control{Socket: socket}
}

// resets counts the writes after which the key asks for no wait of its own.
type resets struct {
	device.Report
	n int
}

func (r *resets) SetFeature(p []byte) error {
	if p[device.ReportSize-1] == 0x8F {
		r.n++
	}
	return r.Report.SetFeature(p)
}

// BenchmarkProgramSlot compares programming a slot, the serial for its token identifier included, with the
// waiting that the protocol itself requires: what the key makes its host wait, and the 1 ms between a reset
// and the next write. (A wait after a chunk covers that gap.) The ratio is the median over the runs.
func BenchmarkProgramSlot(b *testing.B) {
	bus, control := serve(b)
	r, err := bus.Open(b.Context(), "emu1:1.0")
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	required := func() time.Duration {
		keys, err := control.List(b.Context())
		if err != nil || len(keys) != 1 {
			b.Fatal(keys, err)
		}
		return time.Duration(keys[0].RequiredWaitUS) * time.Microsecond
	}
	config := oldConfig()
	config.CurrentAccessCode = codeA
	var ratios []float64
	for b.Loop() {
		b.StopTimer()
		counted := &resets{Report: r}
		two, err := otpslot.New(counted).Slot(2)
		if err != nil {
			b.Fatal(err)
		}
		before := required()
		b.StartTimer()
		start := time.Now()
		if err := two.Program(b.Context(), config); err != nil {
			b.Fatal(err)
		}
		took := time.Since(start)
		b.StopTimer()
		// The last chunk's own wait is counted, but runs within the wait for the write.
		floor := required() - before - emulator.RealTiming().Chunk + time.Duration(counted.n)*time.Millisecond
		ratios = append(ratios, float64(took)/float64(floor))
		b.StartTimer()
	}
	slices.Sort(ratios)
	median := ratios[len(ratios)/2]
	b.ReportMetric(median, "ratio")
	fmt.Printf("ratio program_slot_vs_bus_floor %.3f\n", median)
}
