package syncer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	syncer "tokendesk/sync"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// stock enrolls tokens that nobody has, some hundred in a transaction, and leaves word of each and of moves of its counter.
func (f *office) stock(n, moves int) (last uint64) {
	f.Helper()
	const together = 200
	for from := 0; from < n; from += together {
		f.update(func(tx *vault.Tx) error {
			for i := from; i < min(n, from+together); i++ {
				id, seed := numbered(i), secret.Random(20)
				err := errors.Join(tx.SetSeed(id, 1, seed), tx.PutToken(vault.Token{ID: id, Status: vault.Active, Digits: 6, Generation: 1, Counter: uint64(moves)}))
				seed.Wipe()
				if err != nil {
					return err
				}
				for move := range moves + 1 {
					kind := vault.Advance
					if move == 0 {
						kind = vault.Put
					}
					c, err := tx.Enqueue(vault.Change{Kind: kind, Token: id, Generation: 1, Counter: uint64(move), Digits: 6})
					if err != nil {
						return err
					}
					last = c.Seq
				}
			}
			return nil
		})
	}
	return last
}

// Days without the service: a few changes find out that it is away, the others wait as they are, and when it is back each is
// written once.
func TestDaysOffline(t *testing.T) {
	const tokens, moves = 700, 2
	f := open(t, quick)
	f.slapd.Stop()
	f.run()
	last := f.stock(tokens, moves)
	f.o.Wake()
	f.log.await(t, "cannot deliver yet", 10)
	if p, err := f.o.Progress(); err != nil || p.Done != 0 || p.Left != tokens*(moves+1) {
		t.Errorf("%+v, %v", p, err)
	}
	if err := f.slapd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := f.o.Wait(ctx, last); err != nil {
		t.Fatal(err)
	}
	if err := f.empty(ctx); err != nil {
		t.Fatal(err)
	}
	writes, err := f.slapd.Writes(f.slapd.BindDN)
	if err != nil {
		t.Fatal(err)
	}
	per := map[string]int{}
	for _, w := range writes {
		if !w.Changes() || w.Lowers() {
			t.Errorf("a write for nothing: %s", w)
		}
		per[w.DN]++
	}
	for dn, n := range per {
		if n != moves+1 {
			t.Errorf("%s was written %d times", dn, n)
		}
	}
	if len(per) != tokens {
		t.Errorf("%d tokens arrived", len(per))
	}
}

// empty waits until nothing is left, one change at a time.
func (f *office) empty(ctx context.Context) error {
	for {
		page, _, err := f.o.List(syncer.Filter{Limit: 1})
		if err != nil || len(page) == 0 {
			return err
		}
		if err := f.o.Wait(ctx, page[0].Change.Seq); err != nil {
			return err
		}
	}
}

// What fails for itself is tried again and again, is never parked, and holds back nothing but its token and those who depend on it.
func TestPoisonHoldsBackItsDependentsOnly(t *testing.T) {
	f := open(t, quick)
	var cut uint64
	f.through(&poison{f.c, func(c vault.Change) error {
		if c.Seq == cut || c.Token == numbered(1) {
			return errBusy
		}
		return nil
	}}, quick)
	for i := range 6 {
		f.enroll(numbered(i), 1, 0)
		f.enqueue(vault.Put, numbered(i), "", 1, 0)
	}
	f.assign(numbered(0), "alice")
	behind := f.assign(numbered(1), "bob")
	f.deliver()
	f.wantLeft(2, behind)
	cut = f.unassign(numbered(0))
	toAlice := f.assign(numbered(2), "alice")
	toCarol := f.assign(numbered(3), "carol")
	f.run()
	if err := f.wait(toCarol); err != nil {
		t.Fatal(err)
	}
	last := f.enqueue(vault.Advance, numbered(4), "", 1, 5)
	if err := f.wait(last); err != nil {
		t.Fatal(err)
	}
	f.log.await(t, "cannot deliver yet", 12)
	f.wantLeft(2, behind, cut, toAlice)
	for _, c := range f.changes() {
		if c.Parked || (c.Attempts > 0) != (c.Seq == 2 || c.Seq == cut) {
			t.Errorf("%+v", c)
		}
	}
	f.wantOutlook(toAlice, syncer.Held, fmt.Sprintf("cut-off %d", cut))
}

// In a long outbox, cut-offs that come go first, and so does what somebody waits for, with what it depends on.
func TestWhatGoesFirst(t *testing.T) {
	f := open(t, quick)
	s := f.step()
	f.run()
	f.stock(5, 1) // 1 to 10
	f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)     // 11
	given := f.assign(tokenA, "alice")         // 12
	f.enqueue(vault.Advance, tokenA, "", 1, 9) // 13
	var order []uint64
	next := func() { order = append(order, s.next(t).Seq) }
	next()
	arrived := s.await(t) // the next one is under way
	told := make(chan error, 1)
	go func() { told <- f.wait(given) }()
	f.awaitWaiter(given)
	cut := f.disable(numbered(4)) // 14
	s.answer <- nil
	order = append(order, arrived.Seq)
	for range 12 {
		next()
	}
	if want := []uint64{1, 2, cut, 11, 12, 3, 4, 5, 6, 7, 8, 9, 10, 13}; !slices.Equal(order, want) {
		t.Errorf("they went in the order %d, want %d", order, want)
	}
	if err := <-told; err != nil {
		t.Error(err)
	}
}

// A cut-off that failed is tried again once its pause is over, however much else there is to do; and what it has held back
// follows it.
func TestCutOffsAreTriedAgainAmongOthers(t *testing.T) {
	f := open(t, quick)
	f.enroll(tokenA, 1, 0)
	f.enroll(tokenB, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.enqueue(vault.Put, tokenB, "", 1, 0)
	f.assign(tokenA, "alice")
	f.deliver()
	clock := newClock()
	fails := 2
	var order []uint64
	cut, given := f.unassign(tokenA), f.assign(tokenB, "alice")
	f.stock(3, 0)
	f.through(&poison{f.c, func(c vault.Change) error {
		order = append(order, c.Seq)
		if c.Seq == cut && fails > 0 {
			fails--
			return errBusy
		}
		if c.Seq == 7 {
			clock.move(time.Minute)
		}
		return nil
	}}, syncer.Backoff{Min: time.Second, Max: 10 * time.Second})
	f.o.SetClock(clock.now)
	if due, err := f.o.Pass(t.Context()); err != nil || due.Sub(clock.now()) > 2*time.Second {
		t.Errorf("%v, %v", due, err)
	}
	clock.move(time.Minute)
	if due, err := f.o.Pass(t.Context()); err != nil || !due.IsZero() {
		t.Errorf("%v, %v", due, err)
	}
	// One more failure comes between 7 and 8, as the pause is over then; the next pass begins with it.
	if want := []uint64{cut, 6, 7, cut, 8, cut, given}; !slices.Equal(order, want) {
		t.Errorf("they went in the order %d, want %d", order, want)
	}
	f.wantLeft()
}
