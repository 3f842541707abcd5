package syncer_test

import (
	"testing"

	syncer "tokendesk/sync"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault/secret"
)

func TestExplainMiss(t *testing.T) {
	seed := secret.New([]byte("12345678901234567890"))
	code := func(n uint64) string { return hotpscan.Code(seed, 6, n) }
	for _, c := range []struct {
		name  string
		codes []string
		want  syncer.Miss
	}{
		{"same code twice", []string{code(150), code(150)}, syncer.MissSame},
		{"reversed", []string{code(151), code(150)}, syncer.MissReversed},
		{"used", []string{code(98), code(99)}, syncer.MissUsed},
		{"half used", []string{code(99), code(100)}, syncer.MissUsed},
		{"gap", []string{code(150), code(153)}, syncer.MissNothing},
		{"beyond the window", []string{code(5000), code(5001)}, syncer.MissNothing},
		{"too short", []string{code(150), code(151)[1:]}, syncer.MissNotCodes},
		{"letters", []string{"12345x", code(151)}, syncer.MissNotCodes},
		{"none", nil, syncer.MissNotCodes},
	} {
		if _, found := hotpscan.Search(seed, 6, 100, 1000, c.codes); found {
			t.Fatalf("%s: found, so there is nothing to explain", c.name)
		}
		if got := syncer.ExplainMiss(seed, 6, 100, 1000, c.codes); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
