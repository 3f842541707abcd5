package syncer_test

import (
	"strings"
	"testing"
	"time"

	syncer "tokendesk/sync"
	"tokendesk/sync/hotpscan"
)

// Somebody stands there with a token in hand: what the silent do not tell is done without.
func TestBeginHasLittlePatience(t *testing.T) {
	s := openPair(t)
	seed := s.issue(tokenA, "alice")
	s.wantLoginAt(1, "alice", seed, 3, true)
	t.Cleanup(syncer.HurryBegin(500 * time.Millisecond))
	for i, want := range []struct{ counter uint64 }{{4}, {0}} {
		paused := s.pair.Providers[1-i]
		if err := paused.Pause(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { paused.Resume() })
		began := time.Now()
		a, err := s.o.Begin(t.Context(), officer, tokenA)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("with %d silent providers it took %v", i+1, took)
		}
		if noted := strings.Contains(a.Note, "only the vault's was used: no answer within 500ms"); noted != (i == 1) {
			t.Errorf("with %d silent providers the note is %q", i+1, a.Note)
		}
		_, err = a.Test(hotpscan.Code(seed, 6, 3)) // used already, as only provider 1 knows
		if accepted := err == nil; accepted != (want.counter == 0) {
			t.Errorf("with %d silent providers, a used code: %v", i+1, err)
		}
	}
}
