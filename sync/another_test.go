package syncer_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
	"tokendesk/sync/synctest"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// replace gives a user another token, whose changes wait until the one before is cut off.
func (f *office) replace(seed secret.Secret, user string, cutOff uint64) (put, given uint64) {
	f.Helper()
	f.update(func(tx *vault.Tx) error {
		t, err := tx.Token(tokenB)
		if err != nil {
			return err
		}
		t.Owner = user
		if err := tx.PutToken(t); err != nil {
			return err
		}
		c, err := tx.Enqueue(vault.Change{Kind: vault.Put, Token: tokenB, User: user, Generation: t.Generation, Digits: 6, After: cutOff})
		if err != nil {
			return err
		}
		put = c.Seq
		c, err = tx.Enqueue(vault.Change{Kind: vault.Assign, Token: tokenB, User: user, Generation: t.Generation, Digits: 6, After: cutOff})
		given = c.Seq
		return err
	})
	f.o.Wake()
	return put, given
}

// notCutOff takes a token from its user, and the directory is too busy for that.
func (f *office) notCutOff() (cut uint64) {
	f.Helper()
	f.gate.Judge(func(op uint8) synctest.Verdict {
		if op == ldap.ApplicationModifyRequest {
			return synctest.Busy
		}
		return synctest.Pass
	})
	cut = f.unassign(tokenA)
	f.deliver()
	f.gate.Judge(func(uint8) synctest.Verdict { return synctest.Pass })
	f.wantOutlook(cut, syncer.Paused, "pause")
	return cut
}

// passes tries what is due; pauses stay.
func (f *office) passes() {
	f.Helper()
	if _, err := f.o.Pass(f.Context()); err != nil {
		f.Fatal(err)
	}
}

// A successor gets the replacement only once the leaver's token is cut off: that one is another's, and another token.
func TestAReplacementWaitsForAnothersCutOff(t *testing.T) {
	f := open(t, syncer.Backoff{Min: time.Hour, Max: time.Hour})
	alices, bobs := f.enroll(tokenA, 1, 0), f.enroll(tokenB, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.assign(tokenA, "alice")
	f.deliver()
	f.wantLogin("alice", alices, 0, true)
	cut := f.notCutOff()
	put, given := f.replace(bobs, "bob", cut)
	f.wantOutlook(put, syncer.Held, fmt.Sprintf("another %d", cut))
	f.wantOutlook(given, syncer.Held, fmt.Sprintf("earlier %d", put), fmt.Sprintf("another %d", cut))
	if h := f.show(put).Holds[0]; h.Seq != cut || !strings.Contains(h.String(), "is to be confirmed first") {
		t.Errorf("%+v: %s", h, h)
	}
	f.passes()
	f.wantLeft(cut, put, given)
	f.wantLogin("bob", bobs, 0, false)
	if err := f.o.Retry(officer, given); err != nil { // which gets nobody past it
		t.Fatal(err)
	}
	f.passes()
	f.wantLeft(cut, put, given)
	f.wantLogin("bob", bobs, 0, false)
	f.run()
	if err := f.o.Retry(officer, cut); err != nil {
		t.Fatal(err)
	}
	if err := f.wait(given); err != nil {
		t.Fatal(err)
	}
	f.wantLeft()
	f.wantLogin("alice", alices, 1, false)
	f.wantLogin("bob", bobs, 1, true)
}

// It does so as well when the replacement gets another seed while it waits: the assignment that follows waits in its place.
func TestAReseededReplacementStillWaits(t *testing.T) {
	f := open(t, syncer.Backoff{Min: time.Hour, Max: time.Hour})
	f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.assign(tokenA, "alice")
	f.deliver()
	cut := f.notCutOff()
	f.replace(f.enroll(tokenB, 1, 0), "bob", cut)
	seed := secret.Random(20)
	f.update(func(tx *vault.Tx) error { return tx.SetSeed(tokenB, 2, seed) })
	f.alter(tokenB, vault.Put, func(t *vault.Token) { t.Generation = 2 })
	f.passes()
	f.passes()
	all := f.changes()
	if n := len(all); n < 2 || all[n-1].Kind != vault.Assign || all[n-1].Generation != 2 || all[n-1].After != cut {
		t.Fatalf("left: %+v", all)
	}
	f.wantLogin("bob", seed, 0, false)
	if err := f.o.Retry(officer, cut); err != nil {
		t.Fatal(err)
	}
	f.deliver()
	f.deliver()
	f.wantLeft()
	f.wantLogin("bob", seed, 1, true)
}

// While a token is reseeded its owner goes on with the old seed. That is no breach, and drift says what it is.
func TestDriftDuringAReseed(t *testing.T) {
	s := openPair(t)
	s.issue(tokenA, "alice")
	s.update(func(tx *vault.Tx) error {
		tok, err := tx.Token(tokenA)
		if err != nil {
			return err
		}
		tok.Status = vault.Limbo
		if err := tx.PutToken(tok); err != nil {
			return err
		}
		return tx.PutJob(&vault.Job{Kind: "reseed", Token: tokenA})
	})
	rows, sum := s.rows()
	all := rows["YK1111111-2"].Differences
	if len(all) != 2 || sum.Breaches != 0 || sum.Settling != 1 {
		t.Fatalf("%+v, %+v", all, sum)
	}
	for _, x := range all {
		if x.Breach || !strings.Contains(x.Text, "its reseed is unfinished: alice goes on with the old seed at "+x.Provider) || !strings.Contains(x.Pending, "tokendesk resolve yk-1111111/otp2") {
			t.Errorf("%+v", x)
		}
	}
	s.wantSkipped(s.plan(syncer.PutBack), "YK1111111-2", "an unfinished reseed comes first")
	// Without the work it is a token whose codes nobody may accept.
	s.update(func(tx *vault.Tx) error {
		j, _, err := tx.JobFor(tokenA)
		if err != nil {
			return err
		}
		return tx.DeleteJob(j.ID)
	})
	if _, sum := s.rows(); sum.Breaches != 1 {
		t.Errorf("%+v", sum)
	}
}

// What was on its way when a reseed began arrives all the same: the owner logs in with the old seed until it is over.
func TestAReseedHoldsUpNothing(t *testing.T) {
	f := open(t, quick)
	seed := f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.assign(tokenA, "alice")
	f.disable(tokenA)
	f.enable(tokenA)
	f.update(func(tx *vault.Tx) error {
		tok, err := tx.Token(tokenA)
		if err != nil {
			return err
		}
		tok.Status = vault.Limbo
		return tx.PutToken(tok)
	})
	f.deliver()
	f.wantLeft()
	f.wantOutcomes("delivered disable", "delivered put", "delivered assign", "delivered enable")
	f.wantLogin("alice", seed, 0, true)
	f.unassign(tokenA) // as a reissue does before it leaves a token in limbo
	f.deliver()
	f.enqueue(vault.Put, tokenA, "", 1, 1)
	f.deliver()
	f.wantLogin("alice", seed, 1, false)
}
