package syncer_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/vault"
)

const (
	tokenC device.TokenID = "yk-3333333/otp2"
	tokenD device.TokenID = "yk-4444444/otp1"
)

func TestDriftOfEveryKind(t *testing.T) {
	s := openPair(t)
	alices := s.issue(tokenA, "alice")
	s.issue(tokenB, "bob")
	s.issue(tokenC, "")
	s.issue(tokenD, "carol")
	if rows, sum := s.rows(); len(rows) != 0 || sum.Here != 4 || sum.Agree != 4 || sum.There[s.c.Providers()[1]] != 4 {
		t.Errorf("in step: %+v, %+v", rows, sum)
	}
	n := 0
	if _, err := s.d.Rows(t.Context(), true, func(r syncer.Row) error { n++; return nil }); err != nil || n != 4 {
		t.Errorf("all rows are %d, %v", n, err)
	}
	if _, err := s.pair.Providers[0].Crowd(1); err != nil {
		t.Fatal(err)
	}
	s.adminRemoves(tokenA)
	s.adminUnlinks("bob")
	s.adminTakesSecret(tokenB)
	s.adminPutsSecret(tokenC)
	s.adminDescribes(tokenD, "by hand")
	s.wantDrift(map[string][]syncer.DifferenceKind{
		"YK1111111-2": {syncer.DiffersMissing}, "YK2222222-2": {syncer.DiffersOwner, syncer.DiffersEnabled},
		"YK3333333-2": {syncer.DiffersEnabled}, "YK4444444-1": {syncer.DiffersSeed}, "OLD0000000": {syncer.DiffersUnknown},
	})
	rows, sum := s.rows()
	if x := rows["YK3333333-2"].Differences; len(x) != 2 || !x[0].Breach || !strings.Contains(x[0].Text, "stock") {
		t.Errorf("the breach is %+v", x)
	}
	if sum.Breaches != 1 || sum.Kinds[syncer.DiffersEnabled] != 2 || sum.Settling != 0 || sum.Here != 4 {
		t.Errorf("the summary is %+v", sum)
	}
	s.repair(syncer.PutBack)
	s.wantDrift(map[string][]syncer.DifferenceKind{"OLD0000000": {syncer.DiffersUnknown}})
	s.wantLoginAt(1, "alice", alices, 1, true)
	rows, _ = s.rows()
	if x := rows["YK1111111-2"].Differences; len(x) != 1 || x[0].Kind != syncer.DiffersCounterAhead || x[0].Provider != s.c.Providers()[0] {
		t.Errorf("after a login: %+v", x) // which provider 1 alone has counted
	}
	s.once()
	rows, sum = s.rows()
	if x := rows["YK1111111-2"].Differences; len(x) != 1 || x[0].Kind != syncer.DiffersCounterBehind || x[0].Pending == "" || sum.Settling != 1 {
		t.Errorf("while it is levelled: %+v, %+v", x, sum)
	}
	if p := s.plan(syncer.PutBack); len(p.Steps) != 0 {
		t.Errorf("what the outbox settles is repaired: %+v", p)
	} else {
		s.wantSkipped(p, "YK1111111-2", "is on its way")
		s.wantSkipped(p, "OLD0000000", "no token that a desk")
	}
}

func TestDriftPutBack(t *testing.T) {
	s := openPair(t)
	alices, bobs, carols := s.issue(tokenA, "alice"), s.issue(tokenB, "bob"), s.issue(tokenC, "carol")
	s.issue(tokenD, "")
	s.adminTakesSecret(tokenA)
	s.adminUnlinks("bob")
	s.adminUnlinks("carol")
	s.adminLinks("bob", tokenC)
	s.adminRemoves(tokenD)
	p := s.repair(syncer.PutBack)
	s.wantDone(p, tokenA, "enable it there")
	s.wantDone(p, tokenB, "give it to bob there")
	s.wantDone(p, tokenC, "cut bob off there, then give it to carol there")
	s.wantDone(p, tokenD, "write it there as it is here")
	s.wantDrift(nil)
	s.wantLoginAt(1, "alice", alices, 1, true)
	s.wantLoginAt(2, "bob", bobs, 1, true)
	s.wantLoginAt(1, "carol", carols, 1, true)
	s.wantLoginAt(1, "bob", carols, 2, false)
	if acts := s.acts("repair: unassign"); len(acts) != 1 || !strings.Contains(acts[0], "user bob; put-back: bob has it at") {
		t.Errorf("the trail has %q", acts)
	}
	s.wantNoDrift()
}

func TestDriftTakeOver(t *testing.T) {
	s := openPair(t)
	alices, bobs, carols := s.issue(tokenA, "alice"), s.issue(tokenB, "bob"), s.issue(tokenC, "")
	s.assign(tokenC, "carol")
	s.drain()
	s.adminTakesSecret(tokenA)
	s.adminUnlinks("bob")
	s.adminRemoves(tokenC)
	p := s.repair(syncer.TakeOver)
	s.wantDone(p, tokenA, "disable it here, then disable it there")
	s.wantDone(p, tokenB, "unassign it here from bob, then cut bob off there")
	s.wantDone(p, tokenC, "unassign it here from carol, then cut carol off there, then write it there as it is here")
	if got := s.token(tokenA); got.Status != vault.Disabled || got.Owner != "alice" {
		t.Errorf("%+v", got)
	}
	for _, id := range []device.TokenID{tokenB, tokenC} {
		if got := s.token(id); got.Status != vault.Active || got.Owner != "" {
			t.Errorf("%+v", got)
		}
	}
	s.wantDrift(nil)
	s.wantLoginAt(1, "alice", alices, 1, false)
	s.wantLoginAt(2, "bob", bobs, 1, false)
	s.wantLoginAt(1, "carol", carols, 1, false)
}

func TestDriftTakesAnotherOwnerOver(t *testing.T) {
	s := openPair(t)
	seed := s.issue(tokenA, "alice")
	s.issue(tokenB, "carol")
	s.adminUnlinks("alice")
	s.adminLinks("bob", tokenA)
	p := s.repair(syncer.TakeOver)
	s.wantDone(p, tokenA, "assign it here to bob instead of alice, with its seed as it is, then cut alice off there, then give it to bob there")
	if got := s.token(tokenA); got.Owner != "bob" {
		t.Errorf("%+v", got)
	}
	s.wantLoginAt(1, "bob", seed, 1, true)
	s.wantLoginAt(1, "alice", seed, 2, false)
	s.wantNoDrift()

	s.adminUnlinks("carol") // bob has a token already, so this one cannot be his too
	s.adminLinks("bob", tokenB)
	p = s.plan(syncer.TakeOver)
	s.wantSkipped(p, tokenB.Central(), "settle that first")
	s.wantDone(p, tokenA, "unassign it here from bob, then cut bob off there")
}

// A token that nobody may log in with and that is open there is closed, whatever the choice.
func TestDriftClosesABreach(t *testing.T) {
	for _, choice := range []syncer.Choice{syncer.PutBack, syncer.TakeOver} {
		t.Run(string(choice), func(t *testing.T) {
			s := openPair(t)
			alices := s.issue(tokenA, "alice")
			s.issue(tokenB, "")
			s.issue(tokenC, "")
			s.disable(tokenA)
			s.drain()
			s.adminPutsSecret(tokenA)
			s.adminPutsSecret(tokenB)
			s.adminLinks("bob", tokenB)
			s.adminLinks("carol", tokenC)
			p := s.repair(choice)
			s.wantDone(p, tokenA, "disable it there")
			s.wantDone(p, tokenB, "cut bob off there")
			s.wantDone(p, tokenC, "cut carol off there")
			for _, x := range p.Steps {
				if x.Breach != (x.Token != tokenC) {
					t.Errorf("breach %t: %+v", x.Breach, x)
				}
			}
			if a, b := s.token(tokenA), s.token(tokenB); a.Status != vault.Disabled || a.Owner != "alice" || b.Owner != "" {
				t.Errorf("the vault has %+v, %+v", a, b)
			}
			s.wantDrift(nil)
			s.wantLoginAt(1, "alice", alices, 0, false)
		})
	}
}

func TestDriftLeavesWhatItCannotTakeOver(t *testing.T) {
	s := openPair(t)
	s.issue(tokenA, "alice")
	s.issue(tokenB, "bob")
	s.issue(tokenC, "carol")
	s.issue(tokenD, "")
	s.adminDescribes(tokenA, "by hand")
	s.adminDescribes(tokenB, "tokendesk generation 7 of "+s.v.ID())
	s.adminTakesSecret(tokenC)
	s.update(func(tx *vault.Tx) error {
		return tx.PutJob(&vault.Job{Kind: "reissue", Token: tokenC, Officer: "olga"})
	})
	s.adminPutsSecret(tokenD)
	p := s.plan(syncer.TakeOver)
	s.wantSkipped(p, tokenA.Central(), "does not have the seed")
	s.wantSkipped(p, tokenB.Central(), "old copy")
	s.wantSkipped(p, tokenC.Central(), "unfinished reissue comes first: tokendesk resolve yk-3333333/otp2")
	if len(p.Steps) != 1 || p.Steps[0].Token != tokenD || !p.Steps[0].Breach {
		t.Errorf("the plan is %+v", p)
	}
	p = s.plan(syncer.PutBack)
	s.wantDone(p, tokenA, "write it there as it is here")
	s.wantSkipped(p, tokenB.Central(), "tokendesk doctor")
	s.wantSkipped(p, tokenC.Central(), "unfinished reissue")
	if _, err := s.d.Plan(nil, "both"); err == nil {
		t.Error("there is a third choice")
	}
}

func TestRepairIsRefusedWhenThingsHaveChanged(t *testing.T) {
	s := openPair(t)
	s.issue(tokenA, "alice")
	s.issue(tokenB, "bob")
	s.adminTakesSecret(tokenA)
	s.adminTakesSecret(tokenB)
	p := s.plan(syncer.PutBack)
	if again := s.plan(syncer.PutBack); again.Digest != p.Digest || len(p.Steps) != 2 {
		t.Errorf("the same twice: %+v, %+v", p, again)
	}
	if other := s.plan(syncer.TakeOver); other.Digest == p.Digest {
		t.Error("two repairs have one digest")
	}
	var changed *syncer.ChangedError
	if _, err := s.d.Repair(t.Context(), officer, p, ""); !errors.As(err, &changed) {
		t.Errorf("without a digest: %v", err)
	}
	if _, err := s.d.Repair(t.Context(), officer, p, "beef"); !errors.As(err, &changed) || changed.Token != "" {
		t.Errorf("with another digest: %v", err)
	}
	few := p
	few.Steps = p.Steps[:1]
	if _, err := s.d.Repair(t.Context(), officer, few, p.Digest); !errors.As(err, &changed) {
		t.Errorf("with a step less: %v", err)
	}
	s.disable(tokenB)
	done, err := s.d.Repair(t.Context(), officer, p, p.Digest)
	if !errors.As(err, &changed) || changed.Token != tokenB || changed.Done != 0 || done.Steps != 0 || !strings.Contains(err.Error(), "look at the drift again") {
		t.Errorf("of a token that was disabled meanwhile: %+v, %v", done, err)
	}
	if c := s.changes(); len(c) != 1 || c[0].Kind != vault.Disable {
		t.Errorf("the outbox has %+v", c)
	}
	s.drain()
	s.wantDone(s.repair(syncer.PutBack), tokenA, "enable it there")
	s.wantDrift(nil)
}

func TestDriftWithAProviderDown(t *testing.T) {
	s := openPair(t)
	s.issue(tokenA, "alice")
	s.issue(tokenB, "carol")
	s.adminTakesSecret(tokenA)
	s.adminUnlinks("carol")
	s.adminLinks("bob", tokenB)
	s.pair.Providers[1].Stop()
	rows, sum := s.rows()
	if len(sum.NotReached) != 1 || sum.NotReached[0].Provider != s.c.Providers()[1] || sum.NotReached[0].Problem == "" {
		t.Errorf("not reached: %+v", sum.NotReached)
	}
	r := rows[tokenA.Central()]
	if len(r.Differences) != 1 || r.There[1].Problem == "" || r.There[0].Problem != "" {
		t.Errorf("the row is %+v", r)
	}
	p := s.plan(syncer.TakeOver)
	s.wantDone(p, tokenA, "disable it here, then disable it there")
	s.wantSkipped(p, tokenB.Central(), "not all providers can be read")
	s.pair.Providers[0].Stop()
	if _, err := s.d.Rows(t.Context(), false, func(syncer.Row) error { return nil }); !errors.Is(err, syncer.ErrUnavailable) {
		t.Errorf("without any provider: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.d.Rows(ctx, false, func(syncer.Row) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("without time: %v", err)
	}
}

func TestDriftOfALockedVault(t *testing.T) {
	s := openPair(t)
	s.issue(tokenA, "alice")
	s.adminTakesSecret(tokenA)
	p := s.plan(syncer.PutBack)
	if _, err := s.d.Rows(t.Context(), true, func(syncer.Row) error { return s.v.Lock() }); err != nil {
		t.Errorf("locked at the end: %v", err)
	}
	if _, err := s.d.Rows(t.Context(), true, func(syncer.Row) error { return nil }); !isLocked(err) {
		t.Errorf("rows: %v", err)
	}
	if _, err := s.d.Repair(t.Context(), officer, p, p.Digest); !isLocked(err) {
		t.Errorf("repair: %v", err)
	}
	if _, err := s.d.UserView(t.Context(), "alice"); !isLocked(err) {
		t.Errorf("user: %v", err)
	}
}
