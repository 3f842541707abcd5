package keys_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"tokendesk/cmd/internal/keys"
	"tokendesk/device/emulator"
)

// BenchmarkIdentify prints how long it takes from the insertion of a key, which answers as slowly as a real one, until the
// desk knows which it is. Rule D1 wants 300 ms.
func BenchmarkIdentify(b *testing.B) {
	desk := newBench(b)
	key := emulator.New(emulator.Options{Serial: 10000001, Firmware: firmware, Absent: true})
	desk.serve(key)
	heard := desk.events()
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		key.Insert()
		desk.arrives(heard, anna)
		took = append(took, time.Since(began))
		key.Remove()
		desk.next(heard, keys.Removed, anna)
	}
	slices.Sort(took)
	fmt.Printf("figure key_identified_ms %.0f\n", took[len(took)/2].Seconds()*1000)
}
