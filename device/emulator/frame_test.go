package emulator

import (
	"slices"
	"testing"
)

func TestFrameMachine(t *testing.T) {
	h := open(t, newKey(t, Options{}))
	for _, reset := range []byte{resetYkpers, resetYubikit} {
		// In the middle of a frame: the rest of it is no frame any more.
		h.reports(golden[:5]...)
		h.set([]byte{7: reset})
		h.reports(golden[5:]...)
		if h.sequence() != 0 {
			t.Fatal("a frame survived a reset")
		}
		// In the middle of a response.
		h.reports("0000000000000080", "00106b5b00000089")
		if r := h.ready(); r[7] != flagResponsePending {
			t.Fatalf("no response: %x", r)
		}
		h.set([]byte{7: reset})
		if r := h.get(); r[7] != 0 {
			t.Fatalf("a response survived a reset: %x", r)
		}
	}
	// A new first chunk clears what an abandoned frame left.
	h.reports("ffffffffffffff80", "ffffffffffffff81", "ffffffffffffff88")
	h.reports(golden...)
	if h.sequence() != 1 {
		t.Fatal("an abandoned frame spoiled the next")
	}
	// A damaged frame is ignored.
	h.reports(append(slices.Clone(golden[:7]), "0003955700000089")...)
	if c := chunksOf(cmdConfig1, hotpConfig().payload()); h.set(c[9]) != nil || h.sequence() != 1 {
		t.Fatal("a lone last chunk was a frame")
	}
	for _, p := range [][]byte{nil, make([]byte, 8), make([]byte, 10), {1, 0, 0, 0, 0, 0, 0, 0, 0}} {
		if h.r.SetFeature(p) == nil {
			t.Fatalf("report %x was taken", p)
		}
	}
	if h.r.GetFeature(make([]byte, 8)) == nil {
		t.Fatal("8 bytes were enough for a report")
	}
}
