package syncer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

func TestBatchResultsByLine(t *testing.T) {
	f := alone(t)
	a, b := f.enroll(tokenA, 1, 100), f.enroll(tokenB, 1, 40)
	const unknown, forbidden, unverified device.TokenID = "fob-7", "fob-8", "fob-9"
	f.enroll(forbidden, 1, 0)
	f.update(func(tx *vault.Tx) error {
		return tx.PutToken(vault.Token{ID: unverified, Status: vault.Pending, Digits: 6})
	})
	f.alter(tokenA, vault.Put, func(t *vault.Token) { t.Owner = "alice" })
	waiting := len(f.changes())
	lines := []syncer.BatchLine{
		{Line: 3, Token: tokenA, Codes: codesAt(a, 200, 201)},
		{Line: 4, Token: unknown, Codes: codesAt(a, 200, 201)},
		{Line: 5, Token: tokenB, Codes: codesAt(b, 61, 60)},
		{Line: 6, Token: tokenA, Codes: codesAt(a, 200, 201)},
		{Line: 8, Token: tokenA, Codes: codesAt(a, 400, 401, 402)},
		{Line: 9, Token: forbidden, Codes: codesAt(a, 1, 2)},
		{Line: 10, Token: tokenB, Codes: codesAt(b, 4000, 4001)},
		{Line: 11, Token: tokenB, Codes: codesAt(b, 60)},
		{Line: 12, Token: unverified, Codes: codesAt(b, 60, 61)},
		{Line: 13, Token: tokenB, Codes: codesAt(a, 150, 151)},
	}
	no := errors.New("not today")
	may := func(_ *vault.Tx, t vault.Token) error {
		if t.ID == forbidden {
			return no
		}
		return nil
	}
	var told []int
	results, err := f.o.ResyncBatch(t.Context(), officer, lines, may, func(done, of int) { told = append(told, done, of) })
	if err != nil || !slices.Equal(told, []int{10, 10}) || len(results) != len(lines) {
		t.Fatalf("%v, told %v", err, told)
	}
	for i, l := range lines {
		if results[i].Line != l.Line || results[i].Token != l.Token {
			t.Errorf("result %d is of line %d, %s", i, results[i].Line, results[i].Token)
		}
	}
	moved := func(i int, from, to uint64) {
		t.Helper()
		if r := results[i]; r.Err != nil || r.From != from || r.To != to || r.Owner != "alice" {
			t.Errorf("line %d: %+v", r.Line, r)
		}
	}
	moved(0, 100, 202)
	moved(4, 202, 403)
	if !errors.Is(results[1].Err, vault.ErrNotFound) || !errors.Is(results[5].Err, no) {
		t.Errorf("%v, %v", results[1].Err, results[5].Err)
	}
	wantMiss(t, results[2].Err, syncer.MissReversed)
	wantMiss(t, results[3].Err, syncer.MissUsed)
	if m := wantMiss(t, results[6].Err, syncer.MissBeyond); m.Ahead != 3960 {
		t.Errorf("%+v", m)
	}
	wantMiss(t, results[7].Err, syncer.MissCount)
	wantMiss(t, results[8].Err, syncer.MissUnverified)
	wantMiss(t, results[9].Err, syncer.MissOther)
	if f.counter(tokenA) != 403 || f.counter(tokenB) != 40 {
		t.Errorf("the counters are %d and %d", f.counter(tokenA), f.counter(tokenB))
	}
	left := f.changes()[waiting:]
	if len(left) != 1 || left[0].Kind != vault.Advance || left[0].Counter != 403 || left[0].User != "alice" {
		t.Errorf("the outbox has %+v", left)
	}
	if got := f.missed(); !slices.Equal(got, []string{"used", "reversed", "beyond", "other-token"}) {
		t.Errorf("the trail has %q", got)
	}
}

// resyncs is how many acts the trail has of counters that were found.
func (f *office) resyncs() (n int) {
	f.Helper()
	if err := f.v.View(func(tx *vault.Tx) error {
		return tx.Acts(1, func(e audit.Entry) (bool, error) {
			if e.Action == "resync" {
				n++
			}
			return true, nil
		})
	}); err != nil {
		f.Fatal(err)
	}
	return n
}

// A batch of many is some large transactions: progress is told after each, and when it is ended early, what is done is done as a
// whole, and the rest says that it was not tried.
func TestBatchInTransactions(t *testing.T) {
	f := alone(t)
	const n = 2300
	var lines []syncer.BatchLine
	for from := 0; from < n; from += 500 {
		f.update(func(tx *vault.Tx) error {
			for i := from; i < min(n, from+500); i++ {
				id, seed := numbered(i), secret.Random(20)
				err := errors.Join(tx.SetSeed(id, 1, seed), tx.PutToken(vault.Token{ID: id, Status: vault.Active, Digits: 6, Generation: 1}))
				lines = append(lines, syncer.BatchLine{Line: i, Token: id, Codes: codesAt(seed, uint64(i%900), uint64(i%900)+1)})
				seed.Wipe()
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	var told []int
	results, err := f.o.ResyncBatch(ctx, officer, lines, nil, func(done, of int) {
		if told = append(told, done); len(told) == 2 {
			cancel(enough)
		}
	})
	if !errors.Is(err, context.Canceled) || !slices.Equal(told, []int{250, 750}) {
		t.Fatalf("%v, told %v", err, told)
	}
	for i, r := range results {
		id, next := lines[i].Token, uint64(i%900)+2
		if done := i < 750; done != (r.Err == nil) || done != (r.To == next) || done != (f.counter(id) == next) || !done && !errors.Is(r.Err, err) {
			t.Fatalf("line %d: %+v; the counter is %d", i, r, f.counter(id))
		}
	}
	if got := f.resyncs(); got != 750 {
		t.Errorf("%d acts", got)
	}
	if results, err = f.o.ResyncBatch(t.Context(), officer, lines[749:], nil, nil); err != nil || len(results) != n-749 {
		t.Fatal(err)
	}
	wantMiss(t, results[0].Err, syncer.MissUsed)
	for _, r := range results[1:] {
		if r.Err != nil {
			t.Fatalf("line %d: %v", r.Line, r.Err)
		}
	}
}

// Many lines of one token are no way to guess faster.
func TestBatchIsNoOracle(t *testing.T) {
	f := alone(t)
	f.o.SetClock(func() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) })
	seed := f.enroll(tokenA, 1, 100)
	var lines []syncer.BatchLine
	for i := range 50 {
		lines = append(lines, syncer.BatchLine{Line: i, Token: tokenA, Codes: []string{"000000", fmt.Sprintf("%06d", i+1)}})
	}
	lines = append(lines, syncer.BatchLine{Line: 50, Token: tokenA, Codes: codesAt(seed, 150, 151)})
	for range 2 {
		results, err := f.o.ResyncBatch(t.Context(), officer, lines, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			var slow *syncer.SlowDownError
			if tried := !errors.As(r.Err, &slow); tried && (i > 3 || len(f.missed()) > 4) {
				t.Fatalf("line %d was tried: %+v", i, r)
			}
		}
	}
	if f.counter(tokenA) != 100 || len(f.missed()) != 4 {
		t.Errorf("the counter is %d, %d misses are recorded", f.counter(tokenA), len(f.missed()))
	}
}

// A success forgives what was before it, and nothing that comes after it.
func TestSuccessInABatchIsNoLicence(t *testing.T) {
	f := alone(t)
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	f.o.SetClock(func() time.Time { return now })
	seed := f.enroll(tokenA, 1, 100)
	for range 20 {
		f.update(func(tx *vault.Tx) error {
			return syncer.TokenPace.Fail(tx, vault.TokenAttempts(tokenA), now.Add(-time.Hour))
		})
	}
	lines := []syncer.BatchLine{{Token: tokenA, Codes: codesAt(seed, 150, 151)}}
	for i := range 50 {
		lines = append(lines, syncer.BatchLine{Line: i, Token: tokenA, Codes: []string{"000000", fmt.Sprintf("%06d", i+1)}})
	}
	if _, err := f.o.ResyncBatch(t.Context(), officer, lines, nil, nil); err != nil {
		t.Fatal(err)
	}
	if f.counter(tokenA) != 152 || len(f.missed()) != 4 {
		t.Errorf("the counter is %d, %d guesses were tried", f.counter(tokenA), len(f.missed()))
	}
}

// The counter of a restored token may be behind what was used since: somebody has to ask the central service first.
func TestBatchLeavesRestoredTokens(t *testing.T) {
	f := alone(t)
	seed := f.enroll(tokenA, 1, 100)
	f.update(func(tx *vault.Tx) error {
		tok, err := tx.Token(tokenA)
		tok.Stale = true
		return errors.Join(err, tx.PutToken(tok))
	})
	results, err := f.o.ResyncBatch(t.Context(), officer, []syncer.BatchLine{{Token: tokenA, Codes: codesAt(seed, 100, 101)}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantMiss(t, results[0].Err, syncer.MissRestored)
	if f.counter(tokenA) != 100 {
		t.Errorf("the counter is %d", f.counter(tokenA))
	}
}

// Slips of the pen are no guesses, but the trail is for ever.
func TestSlipsInABatchAreRecordedOnce(t *testing.T) {
	f := alone(t)
	f.enroll(tokenA, 1, 100)
	var lines []syncer.BatchLine
	for i := range 100 {
		lines = append(lines, syncer.BatchLine{Line: i, Token: tokenA, Codes: []string{"a", "b"}})
	}
	if _, err := f.o.ResyncBatch(t.Context(), officer, lines, nil, nil); err != nil {
		t.Fatal(err)
	}
	if n := len(f.missed()); n != 1 {
		t.Errorf("%d entries of the trail", n)
	}
}

func TestEmptyBatch(t *testing.T) {
	f := alone(t)
	if results, err := f.o.ResyncBatch(t.Context(), officer, nil, nil, nil); err != nil || len(results) != 0 {
		t.Errorf("%v, %v", results, err)
	}
}
