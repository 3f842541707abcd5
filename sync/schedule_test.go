package syncer_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
	"tokendesk/sync/synctest"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

func (f *office) wantOutcomes(want ...string) {
	f.Helper()
	if got := f.log.outcomes(); !slices.Equal(got, want) {
		f.Errorf("the outcomes were %q, want %q", got, want)
	}
}

func (f *office) wantLeft(seqs ...uint64) {
	f.Helper()
	if left := f.left(); !slices.Equal(left, seqs) {
		f.Errorf("left: %+v, want %d", f.changes(), seqs)
	}
}

func (f *office) wantLogin(user string, seed secret.Secret, n uint64, want bool) {
	f.Helper()
	if f.login(user, seed, n) != want {
		f.Errorf("login of %s with code %d: accepted is %t", user, n, !want)
	}
}

func TestTakenBackBeforeItArrived(t *testing.T) {
	f := open(t, quick)
	seed := f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.assign(tokenA, "alice")
	f.unassign(tokenA)
	f.deliver()
	f.wantLeft()
	f.wantOutcomes("delivered unassign", "delivered put", "obsolete assign")
	f.wantLogin("alice", seed, 0, false)
	if _, seen, err := f.o.Observe(t.Context(), tokenA); err != nil || seen != (syncer.Observation{Exists: true}) {
		t.Errorf("the stock looks like this: %+v, %v", seen, err)
	}
}

func TestAssignedAgainWhileWaiting(t *testing.T) {
	f := open(t, quick)
	seed := f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.assign(tokenA, "alice")
	f.unassign(tokenA)
	f.assign(tokenA, "alice")
	f.deliver()
	f.wantLeft()
	f.wantLogin("alice", seed, 0, true)
}

// The put of a new seed does not say whose the token is; so the assignment that waited goes out after it.
func TestReseededBeforeTheAssignmentArrived(t *testing.T) {
	f := open(t, quick)
	f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.assign(tokenA, "alice")
	seed := secret.Random(20)
	f.update(func(tx *vault.Tx) error { return tx.SetSeed(tokenA, 2, seed) })
	f.alter(tokenA, vault.Put, func(t *vault.Token) { t.Generation = 2 })
	f.run()
	f.log.await(t, `"kind":"assign","token":"yk-1111111/otp2","user":"alice","counter"`, 1) // delivered
	f.wantLeft()
	f.wantOutcomes("obsolete put", "obsolete assign", "delivered put", "delivered assign")
	f.wantLogin("alice", seed, 0, true)
}

// An officer who has parked it is not passed by in that way.
func TestReseededWhileTheAssignmentIsParked(t *testing.T) {
	f := open(t, quick)
	f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	seq := f.assign(tokenA, "alice")
	if err := f.o.Park(officer, seq, "she is on leave"); err != nil {
		t.Fatal(err)
	}
	seed := secret.Random(20)
	f.update(func(tx *vault.Tx) error { return tx.SetSeed(tokenA, 2, seed) })
	f.alter(tokenA, vault.Put, func(t *vault.Token) { t.Generation = 2 })
	f.deliver()
	f.deliver()
	all := f.changes()
	if len(all) != 1 || !all[0].Parked || all[0].ParkedBy != officer || all[0].Reason != "she is on leave" || all[0].Generation != 2 {
		t.Fatalf("left: %+v, want the assignment as it was parked", all)
	}
	f.wantLogin("alice", seed, 0, false)
	if err := f.o.Retry(officer, all[0].Seq); err != nil {
		t.Fatal(err)
	}
	f.deliver()
	f.wantLeft()
	f.wantLogin("alice", seed, 1, true)
}

// It does not if somebody has left word of it already, or the token went to somebody else.
func TestReseededAndAssignedAnew(t *testing.T) {
	for _, user := range []string{"alice", "bob"} {
		f := open(t, quick)
		f.enroll(tokenA, 1, 0)
		f.enqueue(vault.Put, tokenA, "", 1, 0)
		f.assign(tokenA, "alice")
		seed := secret.Random(20)
		f.update(func(tx *vault.Tx) error { return tx.SetSeed(tokenA, 2, seed) })
		f.alter(tokenA, vault.Put, func(t *vault.Token) { t.Generation = 2 })
		f.assign(tokenA, user)
		f.deliver()
		f.deliver()
		f.wantLeft()
		f.wantOutcomes("obsolete put", "obsolete assign", "delivered put", "delivered assign")
		f.wantLogin(user, seed, 0, true)
	}
}

func TestUnassignEndsAParkedTypo(t *testing.T) {
	f := open(t, quick)
	seed := f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	typo := f.assign(tokenA, "alcie")
	f.deliver()
	f.wantLeft(typo)
	f.unassign(tokenA)
	f.assign(tokenA, "alice")
	f.deliver()
	f.wantLeft()
	f.wantOutcomes("delivered put", "delivered unassign", "obsolete assign", "delivered assign")
	f.wantLogin("alice", seed, 0, true)
	if !strings.Contains(f.log.text(), `"parked":true`) {
		t.Error("the log does not say that a parked change was dropped")
	}
}

func TestCutOffPassesWhatIsParked(t *testing.T) {
	f := open(t, quick)
	seed := f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.assign(tokenA, "alice")
	f.deliver()
	f.wantLogin("alice", seed, 0, true)
	if err := f.slapd.AsAdmin(func(c *ldap.Conn) error { // as if this vault were an old copy
		m := ldap.NewModifyRequest("cn="+tokenA.Central()+","+synctest.TokensBase, nil)
		m.Replace("description", []string{"tokendesk generation 9 of " + f.v.ID()})
		return c.Modify(m)
	}); err != nil {
		t.Fatal(err)
	}
	parked := f.enqueue(vault.Advance, tokenA, "alice", 1, 9)
	f.deliver()
	if all := f.changes(); len(all) != 1 || !all[0].Parked {
		t.Fatalf("left: %+v, want the advance parked", all)
	}
	f.run()
	if err := f.wait(f.unassign(tokenA)); err != nil {
		t.Fatal(err)
	}
	f.wantLeft(parked)
	f.wantLogin("alice", seed, 1, false)
	if err := f.slapd.Login("alice", ""); err == nil {
		t.Error("the bare password lets alice in")
	}
}

// Neither what is paused of their token nor each other holds cut-offs back; they keep their own pause.
func TestCutOffsPassWhatIsPaused(t *testing.T) {
	f := open(t, syncer.Backoff{Min: time.Hour, Max: time.Hour})
	seed := f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.assign(tokenA, "alice")
	f.deliver()
	f.gate.Judge(func(op uint8) synctest.Verdict {
		if op == ldap.ApplicationModifyRequest {
			return synctest.Busy
		}
		return synctest.Pass
	})
	advance := f.enqueue(vault.Advance, tokenA, "alice", 1, 5)
	disable := f.disable(tokenA)
	f.deliver()
	f.wantLeft(advance, disable)
	f.gate.Judge(func(uint8) synctest.Verdict { return synctest.Pass })
	f.run()
	if err := f.wait(f.unassign(tokenA)); err != nil {
		t.Fatal(err)
	}
	f.wantLeft(advance, disable)
	f.wantLogin("alice", seed, 0, false)
}

// Everything of a time without a central service waits when there is one at last: the token was given to alice,
// disabled, taken back, reseeded and given to bob.
func TestDrainsATimeWithoutService(t *testing.T) {
	f := open(t, quick)
	old := f.enroll(tokenA, 1, 0)
	f.assign(tokenA, "alice")
	f.disable(tokenA)
	f.unassign(tokenA)
	seed := f.enroll(tokenA, 2, 0)
	f.update(func(tx *vault.Tx) error { return tx.DeleteSeed(tokenA, 1) })
	f.enqueue(vault.Put, tokenA, "bob", 2, 0)
	f.assign(tokenA, "bob")
	f.deliver()
	f.wantLeft()
	f.wantOutcomes("delivered disable", "delivered unassign", "obsolete assign", "delivered put", "delivered assign")
	f.wantLogin("alice", old, 0, false)
	f.wantLogin("alice", seed, 0, false)
	f.wantLogin("bob", old, 0, false)
	f.wantLogin("bob", seed, 0, true)
}

// A cut-off is delivered before what it ends has arrived; that must not open the door afterwards.
func TestDisabledBeforeItArrived(t *testing.T) {
	f := open(t, quick)
	seed := f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "alice", 1, 0)
	f.assign(tokenA, "alice")
	f.disable(tokenA)
	f.deliver()
	f.wantLeft()
	f.wantOutcomes("delivered disable", "delivered put", "delivered assign")
	f.wantLogin("alice", seed, 0, false)
	if err := f.slapd.Login("alice", ""); err == nil {
		t.Error("the bare password lets alice in")
	}
	f.enable(tokenA)
	f.deliver()
	f.wantLeft()
	f.wantLogin("alice", seed, 0, true)
}

func TestEnableIsDroppedWhenDisabledAgain(t *testing.T) {
	f := open(t, quick)
	seed := f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "alice", 1, 0)
	f.assign(tokenA, "alice")
	f.disable(tokenA)
	f.enable(tokenA)
	f.disable(tokenA)
	f.deliver()
	f.wantLeft()
	f.wantOutcomes("delivered disable", "delivered disable", "delivered put", "delivered assign", "obsolete enable")
	f.wantLogin("alice", seed, 0, false)
}

// What belongs to the seed before goes, also if it is parked; nothing is left that somebody would have to discard.
func TestEarlierGenerationIsDropped(t *testing.T) {
	f := open(t, quick)
	f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.assign(tokenA, "ghost") // parked: there is no such user
	f.enqueue(vault.Advance, tokenA, "ghost", 1, 9)
	f.deliver()
	if all := f.changes(); len(all) != 2 || !all[0].Parked {
		t.Fatalf("left: %+v", all)
	}
	seed := f.enroll(tokenA, 2, 0)
	f.enqueue(vault.Put, tokenA, "alice", 2, 0)
	f.assign(tokenA, "alice")
	f.deliver()
	f.wantLeft()
	f.wantOutcomes("delivered put", "obsolete assign", "obsolete advance", "delivered put", "delivered assign")
	f.wantLogin("alice", seed, 0, true)
}

// A counter move of a token that nobody may use takes a secret away which somebody has put back in the server's own tools.
func TestAdvanceOfAClosedTokenClosesIt(t *testing.T) {
	f := open(t, quick)
	seed := f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "alice", 1, 0)
	f.assign(tokenA, "alice")
	f.disable(tokenA)
	f.deliver()
	if _, err := f.c.Apply(t.Context(), vault.Change{Kind: vault.Put, Token: tokenA, User: "alice", Generation: 1, Digits: 6}, seed); err != nil {
		t.Fatal(err)
	}
	f.enqueue(vault.Advance, tokenA, "alice", 1, 5)
	f.deliver()
	f.wantLeft()
	f.wantLogin("alice", seed, 5, false)
	if seen, err := f.c.Observe(t.Context(), tokenA); err != nil || seen.Enabled || seen.Counter != 5 {
		t.Errorf("the service shows %+v, %v", seen, err)
	}
}

// A token that another desk, or a lost vault, has left in the directory is enrolled here.
func TestEnrollsOverAnotherDesksEntry(t *testing.T) {
	f := open(t, quick)
	f.enroll(tokenA, 1, 7000)
	f.enqueue(vault.Put, tokenA, "alice", 1, 7000)
	f.assign(tokenA, "alice")
	f.deliver()
	f.wantLeft()
	g := f.anotherDesk()
	seed := g.enroll(tokenA, 1, 3)
	g.enqueue(vault.Put, tokenA, "alice", 1, 3)
	g.assign(tokenA, "alice")
	g.deliver()
	g.wantLeft()
	if n := g.counter(tokenA); n != 3 {
		t.Errorf("the other desk's counter was taken over: %d", n)
	}
	g.wantLogin("alice", seed, 3, true)
}

func TestHurry(t *testing.T) {
	f := open(t, syncer.Backoff{Min: time.Hour, Max: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	f.gate.Judge(func(uint8) synctest.Verdict { return synctest.Busy })
	f.enroll(tokenA, 1, 0)
	put := f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.deliver()
	f.gate.Judge(func(uint8) synctest.Verdict { return synctest.Pass })
	f.run()
	if err := f.o.Hurry(ctx, put); err != nil {
		t.Fatal(err)
	}
	if err := f.o.Hurry(ctx, put); err != nil {
		t.Errorf("an entry that is gone: %v", err)
	}
	parked := f.assign(tokenA, "nobody")
	if err := f.wait(parked); !errors.Is(err, syncer.ErrParked) {
		t.Fatal(err)
	}
	if err := f.o.Hurry(ctx, parked); !errors.Is(err, syncer.ErrParked) {
		t.Errorf("hurrying what is parked: %v", err)
	}
	if all := f.changes(); len(all) != 1 || !all[0].Parked || all[0].Attempts != 1 {
		t.Errorf("it did not stay as it was: %+v", all)
	}
}
