package main

import (
	"slices"
	"testing"
)

// TestBoard looks at a TPM past the desk: a vault has two counters there, and they can be taken out.
func TestBoard(t *testing.T) {
	t.Parallel()
	s, err := newStage(t.Context(), options{bin: bin}, Scenario{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	s.KillDaemon()
	b := board{s.TPM}
	if found, err := b.counters(); err != nil || !slices.Equal(found, []uint32{firstIndex, firstIndex + 1}) {
		t.Errorf("the counters of a vault are %x, %v", found, err)
	}
	if err := b.forgive(); err != nil {
		t.Error(err)
	}
	if err := b.clear(); err != nil {
		t.Error(err)
	}
	if found, err := b.counters(); err != nil || len(found) > 0 {
		t.Errorf("left are %x, %v", found, err)
	}
}

func FuzzParseHandles(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 0, 0, 0, 1, 0x01, 0x80, 0, 0})
	f.Add([]byte{0, 0, 0, 0, 1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		found, err := parseHandles(b)
		if err != nil && len(found) > 0 || len(found) > len(b)/4 {
			t.Errorf("%x: %x, %v", b, found, err)
		}
		for _, h := range found {
			if h < firstIndex || h > lastIndex {
				t.Errorf("%#x is none of the owner's", h)
			}
		}
	})
}
