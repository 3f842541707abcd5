package vault

import (
	"bytes"
	"testing"
)

// What is read as the key of a card's secret is written the same, and belongs to a card.
func FuzzPIVKey(f *testing.F) {
	f.Add(pivKey("yk-1001/piv", 1, PUK))
	f.Add(seedKey("yk-1001/otp2", 1))
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, key []byte) {
		id, generation, kind, err := parsePIVKey(key)
		if err != nil {
			return
		}
		if !id.PIV() || !validGeneration(generation) || !kind.valid() || !bytes.Equal(pivKey(id, generation, kind), key) {
			t.Errorf("%q: %s, %d, %v", key, id, generation, kind)
		}
	})
}
