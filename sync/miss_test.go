package syncer_test

import (
	"math"
	"strings"
	"testing"

	syncer "tokendesk/sync"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault/secret"
)

func TestExplainMiss(t *testing.T) {
	seed := secret.New([]byte("12345678901234567890"))
	code := func(n uint64) string { return hotpscan.Code(seed, 6, n) }
	codes := func(ns ...uint64) (all []string) {
		for _, n := range ns {
			all = append(all, code(n))
		}
		return all
	}
	const base = 20100
	for _, c := range []struct {
		name  string
		codes []string
		want  syncer.Miss
	}{
		{"same code twice", codes(20150, 20150), syncer.Miss{Kind: syncer.MissRepeated}},
		{"same code first and last", codes(20150, 20151, 20150), syncer.Miss{Kind: syncer.MissRepeated}},
		{"reversed", codes(20151, 20150), syncer.Miss{Kind: syncer.MissReversed, Ahead: 50}},
		{"three reversed", codes(20152, 20151, 20150), syncer.Miss{Kind: syncer.MissReversed, Ahead: 50}},
		{"used", codes(20098, 20099), syncer.Miss{Kind: syncer.MissUsed, Behind: 2}},
		{"half used", codes(20099, 20100), syncer.Miss{Kind: syncer.MissUsed, Behind: 1}},
		{"used long ago", codes(10100, 10101), syncer.Miss{Kind: syncer.MissUsed, Behind: 10000}},
		{"used before that", codes(10099, 10100), syncer.Miss{Kind: syncer.MissNothing}},
		{"used and reversed", codes(20099, 20098), syncer.Miss{Kind: syncer.MissUsed, Behind: 2}},
		{"gap of 1", codes(20150, 20152), syncer.Miss{Kind: syncer.MissGap, Gap: 1, Ahead: 50}},
		{"gap of 20", codes(20100, 20121), syncer.Miss{Kind: syncer.MissGap, Gap: 20}},
		{"gap of 21", codes(20150, 20172), syncer.Miss{Kind: syncer.MissNothing}},
		{"gap at the window's end", codes(21099, 21101), syncer.Miss{Kind: syncer.MissGap, Gap: 1, Ahead: 999}},
		{"gap behind the window", codes(21100, 21102), syncer.Miss{Kind: syncer.MissNothing}},
		{"one gap among three", codes(20150, 20151, 20153), syncer.Miss{Kind: syncer.MissGap, Gap: 1, Ahead: 50}},
		{"two gaps", codes(20150, 20153, 20155), syncer.Miss{Kind: syncer.MissGap, Gap: 3, Ahead: 50}},
		{"first beyond the window", codes(21100, 21101), syncer.Miss{Kind: syncer.MissBeyond, Ahead: 1000, From: base, To: 21102}},
		{"beyond the window", codes(25000, 25001), syncer.Miss{Kind: syncer.MissBeyond, Ahead: 4900, From: base, To: 25002}},
		{"three beyond the window", codes(25000, 25001, 25002), syncer.Miss{Kind: syncer.MissBeyond, Ahead: 4900, From: base, To: 25003}},
		{"last beyond", codes(30099, 30100), syncer.Miss{Kind: syncer.MissBeyond, Ahead: 9999, From: base, To: 30101}},
		{"too far", codes(30100, 30101), syncer.Miss{Kind: syncer.MissNothing}},
		{"too short", []string{code(20150), code(20151)[1:]}, syncer.Miss{Kind: syncer.MissNotCodes}},
		{"letters", []string{"12345x", code(20151)}, syncer.Miss{Kind: syncer.MissNotCodes}},
		{"none", nil, syncer.Miss{Kind: syncer.MissNotCodes}},
	} {
		if _, found := hotpscan.Search(seed, 6, base, 1000, c.codes); found {
			t.Fatalf("%s: found, so there is nothing to explain", c.name)
		}
		c.want.Digits = 6
		got := syncer.ExplainMiss(seed, 6, base, 1000, c.codes)
		if got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
		text := (&syncer.MissError{Token: tokenA, Miss: got}).Error()
		for _, typed := range c.codes {
			if strings.Contains(text, typed) {
				t.Errorf("%s: %q shows a code", c.name, text)
			}
		}
		if guessed := got.Kind == syncer.MissNothing; got.Guessed() != guessed {
			t.Errorf("%s: may have been guessed: %v", c.name, got.Guessed())
		}
	}
}

// Where counters begin and end, nothing is searched that is not there.
func TestExplainMissAtTheEnds(t *testing.T) {
	seed := secret.New([]byte("12345678901234567890"))
	for _, base := range []uint64{0, 1, math.MaxUint64 - 1001, math.MaxUint64 - 1, math.MaxUint64} {
		if got := syncer.ExplainMiss(seed, 6, base, 1000, []string{"000000", "111111"}); got.Kind != syncer.MissNothing {
			t.Errorf("from %d: %+v", base, got)
		}
	}
}

// A single code fits somewhere by chance: it is explained from close by alone, and it may be a guess whatever it is.
func TestExplainSingleCode(t *testing.T) {
	seed := secret.New([]byte("12345678901234567890"))
	for n, want := range map[uint64]syncer.MissKind{95: syncer.MissUsed, 89: syncer.MissNothing, 110: syncer.MissNothing, 5000: syncer.MissNothing} {
		got := syncer.ExplainMiss(seed, 8, 100, 10, []string{hotpscan.Code(seed, 8, n)})
		if got.Kind != want || !got.Guessed() {
			t.Errorf("the code of %d: %+v, guessed %v", n, got, got.Guessed())
		}
	}
}
