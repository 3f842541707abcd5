package syncer_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
	"tokendesk/sync/synctest"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

var second = audit.Officer{UID: 1001, Name: "omar"}

// trail is what an officer did, oldest first: "action: reason".
func (f *office) trail(by audit.Officer) (all []string) {
	f.Helper()
	if err := f.v.View(func(tx *vault.Tx) error {
		return tx.Acts(1, func(e audit.Entry) (bool, error) {
			if e.Officer == by {
				all = append(all, e.Action+": "+e.Reason)
			}
			return true, nil
		})
	}); err != nil {
		f.Fatal(err)
	}
	return all
}

func (f *office) wantTrail(by audit.Officer, want ...string) {
	f.Helper()
	if got := f.trail(by); strings.Join(got, "\n") != strings.Join(want, "\n") {
		f.Errorf("%s has done %q, want %q", by.Name, got, want)
	}
}

func TestPark(t *testing.T) {
	f := open(t, quick)
	seed := f.enroll(tokenA, 1, 0)
	f.enroll(tokenB, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	given := f.assign(tokenA, "alice")
	behind := f.enqueue(vault.Advance, tokenA, "alice", 1, 3)
	f.enqueue(vault.Put, tokenB, "", 1, 0)
	if err := f.o.Park(officer, given, "alice is on leave"); err != nil {
		t.Fatal(err)
	}
	f.deliver()
	f.wantLeft(given, behind)
	if err := f.wait(given); !errors.Is(err, syncer.ErrParked) || !strings.Contains(err.Error(), "alice is on leave") {
		t.Errorf("Wait: %v", err)
	}
	if err := f.o.Retry(officer, given); err != nil {
		t.Fatal(err)
	}
	f.deliver()
	f.wantLeft()
	f.wantLogin("alice", seed, 3, true)
	f.wantTrail(officer, "park assign: user alice; reason: alice is on leave", "retry assign: user alice")

	cut := f.disable(tokenA)
	if err := f.o.Park(officer, cut, "later"); !errors.Is(err, syncer.ErrCutOffStays) {
		t.Errorf("parking a cut-off: %v", err)
	}
	if err := f.o.Park(officer, given, "gone"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("parking what is gone: %v", err)
	}
	f.deliver()
	f.wantLeft()
}

func TestReasonsAreNeeded(t *testing.T) {
	f := open(t, quick)
	f.enroll(tokenA, 1, 0)
	put := f.enqueue(vault.Put, tokenA, "", 1, 0)
	for _, reason := range []string{"", " \t", "two\nlines", "esc \x1b[2J", "\xff", strings.Repeat("x", syncer.MaxReason+1)} {
		if err := f.o.Park(officer, put, reason); !errors.Is(err, syncer.ErrReason) {
			t.Errorf("park for %q: %v", reason, err)
		}
		if err := f.o.Discard(officer, put, reason, second); !errors.Is(err, syncer.ErrReason) {
			t.Errorf("discard for %q: %v", reason, err)
		}
	}
	f.wantTrail(officer)
	if err := f.o.Discard(officer, put, strings.Repeat("x", syncer.MaxReason), audit.Officer{}); err != nil {
		t.Error(err)
	}
	f.wantLeft()
}

// A cut-off is given up by two persons, or not at all.
func TestDiscardACutOff(t *testing.T) {
	f := open(t, quick)
	seed := f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.assign(tokenA, "alice")
	f.deliver()
	cut := f.unassign(tokenA)
	namesake := audit.Officer{UID: officer.UID, Name: "olga.admin"}
	for _, approver := range []audit.Officer{{}, officer, namesake} {
		var needed *syncer.ApprovalError
		err := f.o.Discard(officer, cut, "a mistake", approver)
		if !errors.As(err, &needed) || needed.Change.Seq != cut || needed.By != officer || !strings.Contains(err.Error(), "alice") {
			t.Errorf("approved by %+v: %v", approver, err)
		}
	}
	f.wantLeft(cut)
	f.wantTrail(officer)

	waiting, told := make(chan struct{}), make(chan error, 1)
	go func() {
		close(waiting)
		told <- f.wait(cut)
	}()
	<-waiting
	f.awaitWaiter(cut)
	if err := f.o.Discard(officer, cut, "alice's entry is deleted by hand", second); err != nil {
		t.Fatal(err)
	}
	if err := <-told; !errors.Is(err, syncer.ErrDiscarded) {
		t.Errorf("whoever waits is told: %v", err)
	}
	f.wantTrail(officer, fmt.Sprintf("discard unassign: user alice; change %d", cut)+"; approved by omar (uid 1001); reason: alice's entry is deleted by hand")
	f.wantTrail(second, "approve discard unassign: user alice; wanted by olga (uid 1000); reason: alice's entry is deleted by hand")
	f.deliver()
	f.wantLeft()
	f.wantLogin("alice", seed, 0, true) // nobody told the service
}

// A cut-off that was given up lets nobody slip in: the next one gets the token only after the service has taken it from the last.
func TestAfterADiscardedCutOff(t *testing.T) {
	f := open(t, quick)
	seed := f.enroll(tokenA, 1, 0)
	f.enroll(tokenB, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.enqueue(vault.Put, tokenB, "", 1, 0)
	f.assign(tokenA, "alice")
	f.deliver()
	f.gate.Judge(func(op uint8) synctest.Verdict {
		if op == ldap.ApplicationModifyRequest {
			return synctest.Busy
		}
		return synctest.Pass
	})
	cut := f.unassign(tokenA)
	toBob := f.assign(tokenA, "bob")
	toAlice := f.assign(tokenB, "alice")
	f.deliver()
	f.wantLeft(cut, toBob, toAlice)
	if err := f.o.Discard(officer, cut, "tried by hand", second); err != nil {
		t.Fatal(err)
	}
	f.gate.Judge(func(uint8) synctest.Verdict { return synctest.Pass })
	f.deliver()
	for _, c := range f.changes() {
		if !c.Parked {
			t.Errorf("%+v went out, or waits unseen", c)
		}
	}
	f.wantLeft(toBob, toAlice)
	if f.login("bob", seed, 0) {
		t.Error("bob logs in with alice's token")
	}
}

// An entry that the desk no longer has to deliver is nobody's to park, also while the last attempt is under way.
func TestParkedWhileOnItsWay(t *testing.T) {
	f := open(t, quick)
	s := f.step()
	f.enroll(tokenA, 1, 0)
	put := f.enqueue(vault.Put, tokenA, "", 1, 0)
	passed := make(chan error, 1)
	go func() { _, err := f.o.Pass(t.Context()); passed <- err }()
	s.await(t)
	if err := f.o.Park(officer, put, "not now"); err != nil {
		t.Fatal(err)
	}
	s.answer <- errBusy
	if err := <-passed; err != nil {
		t.Fatal(err)
	}
	if c := f.changes()[0]; !c.Parked || c.ParkedBy != officer || c.Reason != "not now" || c.Problem != errBusy.Error() || c.Attempts != 1 {
		t.Errorf("%+v", c)
	}
	if err := f.o.Retry(officer, put); err != nil {
		t.Fatal(err)
	}
	go func() { _, err := f.o.Pass(t.Context()); passed <- err }()
	s.await(t)
	if err := f.o.Discard(officer, put, "not at all", audit.Officer{}); err != nil {
		t.Fatal(err)
	}
	s.answer <- nil // it arrives, and that is on record too
	if err := <-passed; err != nil {
		t.Fatal(err)
	}
	f.wantLeft()
	f.wantTrail(audit.Officer{UID: audit.DeskUID, Name: "tokendeskd"}, "push put: ")
	if _, seen, err := f.o.Observe(context.Background(), tokenA); err != nil || !seen.Exists {
		t.Errorf("%+v, %v", seen, err)
	}
}
