package syncer_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

// alone is a desk without a central service.
func alone(t *testing.T) *office {
	t.Helper()
	f := &office{T: t, v: vaulttest.New(t), log: &record{}}
	f.o = syncer.NewOutbox(f.v, nil, slog.New(f.log.handler()), quick)
	return f
}

func codesAt(seed secret.Secret, ns ...uint64) (all []string) {
	for _, n := range ns {
		all = append(all, hotpscan.Code(seed, 6, n))
	}
	return all
}

func (f *office) begin(id device.TokenID) *syncer.Attempt {
	f.Helper()
	a, err := f.o.Begin(f.Context(), officer, id)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(a.Close)
	return a
}

// wantMiss checks that an error is a miss of some kind.
func wantMiss(t testing.TB, err error, kind syncer.MissKind) syncer.Miss {
	t.Helper()
	var miss *syncer.MissError
	if !errors.As(err, &miss) || miss.Miss.Kind != kind {
		t.Fatalf("%v, want a miss of kind %s", err, kind)
	}
	return miss.Miss
}

// missed are the kinds that the trail has of codes that did not fit.
func (f *office) missed() (kinds []string) {
	f.Helper()
	if err := f.v.View(func(tx *vault.Tx) error {
		return tx.Acts(1, func(e audit.Entry) (bool, error) {
			if e.Outcome == "not-verified" {
				kind, _, _ := strings.Cut(e.Reason, ":")
				kinds = append(kinds, kind)
			}
			return true, nil
		})
	}); err != nil {
		f.Fatal(err)
	}
	return kinds
}

func TestSurplusTouchesMoveTheCounter(t *testing.T) {
	f := alone(t)
	seed := f.enroll(tokenA, 1, 100)
	a := f.begin(tokenA)
	if _, ok, err := a.ResyncLast(codesAt(seed, 150)); ok || err != nil {
		t.Fatalf("one code: %v, %v", ok, err)
	}
	if _, ok, err := a.ResyncLast(codesAt(seed, 120, 150, 151)); !ok || err != nil {
		t.Fatalf("%v, %v", ok, err)
	}
	for _, c := range []struct {
		at    uint64
		moved bool
		next  uint64
	}{
		{152, true, 153}, {153, true, 154}, {153, false, 154}, {151, false, 154}, {154 + 16, false, 154}, {154 + 15, true, 170},
	} {
		moved, change, err := a.Surplus(hotpscan.Code(seed, 6, c.at))
		if err != nil || moved != c.moved || f.counter(tokenA) != c.next || moved && change.Counter != c.next {
			t.Fatalf("the code of %d: %v, %+v, %v; the counter is %d", c.at, moved, change, err, f.counter(tokenA))
		}
	}
	f.wantTrail(officer, "resync: ", "resync: touched on: ")
	if n := len(f.changes()); n != 4 {
		t.Errorf("%d changes for four moves", n)
	}
}

// Somebody else has moved the counter: what an attempt knows is old, and nothing goes back.
func TestAttemptsDoNotUndoEachOther(t *testing.T) {
	f := alone(t)
	seed := f.enroll(tokenA, 1, 100)
	a, b := f.begin(tokenA), f.begin(tokenA)
	if _, err := a.Resync(codesAt(seed, 300, 301)); err != nil {
		t.Fatal(err)
	}
	_, err := b.Resync(codesAt(seed, 200, 201))
	wantMiss(t, err, syncer.MissChanged)
	if _, _, err := b.Surplus(hotpscan.Code(seed, 6, 105)); err == nil {
		t.Error("a surplus touch has moved the counter back")
	}
	if n := f.counter(tokenA); n != 302 {
		t.Errorf("the counter is %d", n)
	}
}

// Codes that may have been guessed slow down, also in another process later; codes that are the token's, or no codes, do not.
// What one attempt has used up is no code for another that began before it.
func TestACounterIsUsedOnce(t *testing.T) {
	f := alone(t)
	seed := f.enroll(tokenA, 1, 100)
	first, second := f.begin(tokenA), f.begin(tokenA)
	if _, err := first.Test(codesAt(seed, 100)[0]); err != nil {
		t.Fatal(err)
	}
	_, err := second.Resync(codesAt(seed, 100, 101))
	wantMiss(t, err, syncer.MissChanged)
	if f.counter(tokenA) != 101 {
		t.Errorf("the counter is %d", f.counter(tokenA))
	}
}

// Whoever hangs up before the answer has tried all the same.
func TestGuessesOfWhoHangsUpCount(t *testing.T) {
	f := alone(t)
	f.enroll(tokenA, 1, 100)
	ctx, hangUp := context.WithCancel(t.Context())
	a, err := f.o.Begin(ctx, officer, tokenA)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	hangUp()
	if _, err := a.Resync([]string{"000000", "000001"}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if n := len(f.missed()); n != 1 {
		t.Errorf("%d guesses are recorded", n)
	}
}

func TestGuessesSlowDown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault")
	f := &office{T: t, v: vaulttest.Create(t, path), log: &record{}}
	clock := newClock()
	outbox := func() *syncer.Outbox {
		o := syncer.NewOutbox(f.v, nil, slog.New(f.log.handler()), quick)
		o.SetClock(clock.now)
		return o
	}
	f.o = outbox()
	seed := f.enroll(tokenA, 1, 100)
	a := f.begin(tokenA)
	for range 5 {
		for _, codes := range [][]string{codesAt(seed, 151, 150), codesAt(seed, 150, 153), codesAt(seed, 50, 51), codesAt(seed, 5000, 5001), codesAt(seed, 150, 150), {"1", "2"}} {
			if _, err := a.Resync(codes); err == nil || errors.As(err, new(*syncer.SlowDownError)) {
				t.Fatalf("%v", err)
			}
		}
	}
	for range 4 {
		_, err := a.Resync([]string{"000000", "000001"})
		wantMiss(t, err, syncer.MissNothing)
	}
	slow := (*syncer.SlowDownError)(nil)
	if _, err := a.Resync(codesAt(seed, 150, 151)); !errors.As(err, &slow) {
		t.Fatalf("after four guesses: %v", err)
	}
	if _, err := f.o.Begin(t.Context(), officer, tokenA); !errors.As(err, &slow) {
		t.Fatalf("after four guesses, begun anew: %v", err)
	}
	a.Close()
	if err := f.v.Close(); err != nil {
		t.Fatal(err)
	}
	f.v = vaulttest.Open(t, path)
	vaulttest.CheckAtEnd(t, f.v)
	f.o = outbox()
	if _, err := f.o.Begin(t.Context(), officer, tokenA); !errors.As(err, &slow) {
		t.Fatalf("after a restart: %v", err)
	}
	clock.move(slow.Until.Sub(clock.now()))
	if _, err := f.begin(tokenA).Resync(codesAt(seed, 150, 151)); err != nil {
		t.Fatalf("after the wait: %v", err)
	}
	_, err := f.begin(tokenA).Resync([]string{"000000", "000001"})
	wantMiss(t, err, syncer.MissNothing)
	want := strings.Repeat("reversed gap used beyond repeated not-codes ", 5) + strings.Repeat("nothing ", 5)
	if got := strings.Join(f.missed(), " ") + " "; got != want {
		t.Errorf("the trail has %q", got)
	}
}

// Whose the codes are is told where it may be, and not even the token's own trail names one of another tenant.
func TestCodesOfAnotherToken(t *testing.T) {
	f := alone(t)
	f.enroll(tokenA, 1, 100)
	other := f.enroll(tokenB, 1, 40)
	_, err := f.begin(tokenA).Resync(codesAt(other, 60, 61))
	if m := wantMiss(t, err, syncer.MissOther); m.Other != tokenB {
		t.Errorf("%+v", m)
	}
	f.alter(tokenB, vault.Put, func(t *vault.Token) { t.Tenant = "north" })
	_, err = f.begin(tokenA).Resync(codesAt(other, 60, 61))
	if m := wantMiss(t, err, syncer.MissOther); m.Other != tokenB {
		t.Errorf("%+v", m)
	}
	if err := f.v.View(func(tx *vault.Tx) error {
		history, err := tx.History(tokenA, 0, 1)
		if len(history) != 1 || strings.Contains(history[0].Reason, string(tokenB)) {
			t.Errorf("%+v", history)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	f.o.Sees = func(_ context.Context, tenant string) bool { return tenant == "" }
	_, err = f.begin(tokenA).Resync(codesAt(other, 60, 61))
	if m := wantMiss(t, err, syncer.MissOther); m.Other != "" || m.Tenant != "" || strings.Contains(err.Error(), string(tokenB)) {
		t.Errorf("%v: %+v", err, m)
	}
}

// Whatever is tried in which order, by typed codes, by captured ones and in batches: no counter goes back, and no code is taken twice.
func TestNoCounterGoesBack(t *testing.T) {
	for seedOf := range uint64(12) {
		t.Run(fmt.Sprint(seedOf), func(t *testing.T) {
			f, r := alone(t), rand.New(rand.NewPCG(seedOf, 7))
			clock := newClock() // by which every wait is over
			f.o.SetClock(func() time.Time { clock.move(time.Hour); return clock.now() })
			ids := []device.TokenID{tokenA, tokenB}
			seeds := map[device.TokenID]secret.Secret{tokenA: f.enroll(tokenA, 1, 5), tokenB: f.enroll(tokenB, 1, 900)}
			taken := map[string]bool{}
			for range 60 {
				id := ids[r.IntN(2)]
				before := f.counter(id)
				at := max(before, 40) - 40 + r.Uint64N(100)
				codes := codesAt(seeds[id], at, at+1+r.Uint64N(2))
				used := 2
				var err error
				switch r.IntN(4) {
				case 0:
					_, err = f.begin(id).Test(codes[0])
					used = 1
				case 1:
					_, err = f.begin(id).Resync(codes)
				case 2:
					a := f.begin(id)
					var ok bool
					if _, ok, err = a.ResyncLast(codes); ok {
						_, _, err = a.Surplus(hotpscan.Code(seeds[id], 6, at+r.Uint64N(20)))
					} else if err == nil {
						err = a.Missed(codes)
					}
				default:
					var results []syncer.BatchResult
					results, err = f.o.ResyncBatch(t.Context(), officer, []syncer.BatchLine{{Line: 1, Token: id, Codes: codes}, {Line: 2, Token: id, Codes: codes}}, nil, nil)
					if err == nil {
						if err = results[0].Err; err == nil && results[1].Err == nil {
							t.Fatalf("the same codes were taken twice: %+v", results)
						}
					}
				}
				now := f.counter(id)
				switch moved := now != before; {
				case now < before:
					t.Fatalf("the counter went from %d to %d", before, now)
				case moved != (err == nil):
					t.Fatalf("the counter went from %d to %d, and the error is %v", before, now, err)
				case moved && (at < before || now <= at):
					t.Fatalf("the code of %d was taken while the counter was %d; now it is %d", at, before, now)
				}
				if err == nil {
					for i := range uint64(used) {
						key := fmt.Sprint(id, at+i)
						if taken[key] {
							t.Fatalf("the code of %s was taken twice", key)
						}
						taken[key] = true
					}
				}
			}
		})
	}
}
