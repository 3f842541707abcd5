package main

import (
	"errors"
	"fmt"
	"testing"

	"tokendesk/cmd/internal/crash/tracer"
)

// BenchmarkEnroll prints what one enroll of the daemon as it ships writes, without and with the central service: commits
// of the vault, syncs, writes to the TPM's memory. It is the least, given what a crash may cost:
//
//   - Seed and access code are sealed before the key is programmed, or a crash leaves a key with a seed that nobody has. An
//     effect follows, so the TPM's counter does before that, or an older file loses the seed unnoticed.
//   - That the key has confirmed the write is committed before it types its first code. This one could be spared, and
//     resolve programme the key once more; but then it could not tell a key that it programmed from one that it did not, and
//     would have to overwrite what it cannot prove to be its own. It costs no write to the TPM: nothing follows from it.
//   - Verification and assignment, their acts in the audit trail, and the changes for the central service are one
//     commit, and a counter: from here on the token counts as handed out.
//   - With the central service, the two changes leave the outbox once they are confirmed: together, or if that takes longer
//     than 50 ms, each for itself. Neither is followed by a write to the TPM: an older file delivers them again, which does no
//     harm.
//
// A commit is two syncs, because bbolt makes pages safe before it points to them.
func BenchmarkEnroll(b *testing.B) {
	for _, central := range []bool{false, true} {
		name := "enroll"
		if central {
			name = "enroll_central"
		}
		b.Run(name, func(b *testing.B) {
			s, err := newStage(b.Context(), options{bin: bin}, Scenario{Central: central})
			if err != nil {
				b.Fatal(err)
			}
			defer func() {
				if err := s.close(); err != nil {
					b.Error(err)
				}
			}()
			var counts map[string]int
			for b.Loop() {
				calls, err := s.recordEnroll(b)
				if err != nil {
					b.Fatal(err)
				}
				if counts == nil { // later ones have the file grow now and then, and sync that
					counts = costs(calls)
				}
			}
			for _, of := range []string{"fsyncs", "commits", "nv_writes"} {
				fmt.Printf("figure %s_%s %d\n", name, of, counts[of])
			}
		})
	}
}

// recordEnroll enrolls a fresh key, and waits for the central service.
func (s *stage) recordEnroll(t testing.TB) ([]tracer.Call, error) {
	if err := freshKey(t.Context(), s); err != nil {
		return nil, err
	}
	if err := s.tracer.Arm(tracer.Plan{Kinds: s.kinds()}); err != nil {
		return nil, err
	}
	err := s.enroll(t.Context(), false)
	if err == nil && s.Slapd != nil { // without, it waits in the outbox
		err = s.drained(t.Context())
	}
	r, disarmErr := s.tracer.Disarm()
	if err == nil && s.Slapd != nil { // the directory takes one token per user
		err = s.order(t.Context(), "unassign", "")
	}
	return r.Calls, errors.Join(err, disarmErr)
}

// pageSize is that of the vault. bbolt's first two pages tell by turns which tree is the one that was committed.
const pageSize = 4096

func costs(calls []tracer.Call) map[string]int {
	n := map[string]int{}
	for _, c := range calls {
		switch {
		case c.Name == "fsync", c.Name == "fdatasync":
			n["fsyncs"]++
		case c.Kind == kindIncrement:
			n["nv_writes"]++
		case c.Kind == "vault" && c.Name == "pwrite64" && c.Offset < 2*pageSize:
			n["commits"]++
		}
	}
	return n
}

func TestEnrollCosts(t *testing.T) {
	t.Parallel()
	for central, pushed := range map[bool]int{false: 0, true: 2} {
		s, err := newStage(t.Context(), options{bin: bin}, Scenario{Central: central})
		if err != nil {
			t.Fatal(err)
		}
		calls, err := s.recordEnroll(t)
		got := costs(calls)
		least := min(pushed, 1) // what was pushed is recorded together, or each for itself
		if commits := got["commits"]; err != nil || commits < 3+least || commits > 3+pushed || got["fsyncs"] != 2*commits || got["nv_writes"] != 2 {
			t.Errorf("with central service %v, an enroll costs %v (%v), not 3 to %d commits of 2 syncs, and 2 writes to the TPM", central, got, err, 3+pushed)
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}
}
