package syncer_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/sync/synctest"
	"tokendesk/vault"
)

// adminBringsBack has an administrator load a token from yesterday's export, for a user.
func (s *site) adminBringsBack(id device.TokenID, user, note string) {
	s.Helper()
	if err := s.pair.Providers[0].AsAdmin(func(c *ldap.Conn) error {
		a := ldap.NewAddRequest(tokenDN(id), nil)
		a.Attribute("objectClass", []string{"device", "oathHOTPToken"})
		a.Attribute("oathSecret", []string{"12345678901234567890"})
		a.Attribute("oathHOTPParams", []string{synctest.Params6})
		a.Attribute("description", []string{note})
		return c.Add(a)
	}); err != nil {
		s.Fatal(err)
	}
	s.settled()
	s.adminLinks(user, id)
}

func TestDriftOfADeletedToken(t *testing.T) {
	for _, choice := range []syncer.Choice{syncer.PutBack, syncer.TakeOver} {
		s := openPair(t)
		s.issue(tokenA, "alice")
		s.remove(tokenA)
		s.drain()
		s.wantDrift(nil)
		s.adminBringsBack(tokenA, "alice", "tokendesk generation 1 of "+s.v.ID())
		s.wantDrift(map[string][]syncer.DifferenceKind{"YK1111111-2": {syncer.DiffersDeleted}})
		rows, sum := s.rows()
		r := rows["YK1111111-2"]
		if sum.Breaches != 1 || r.Desk != nil || r.Deleted == nil || r.Deleted.Generation != 1 || !r.Differences[0].Breach ||
			!strings.Contains(r.Differences[0].Text, "was deleted here at") || !strings.Contains(r.Differences[0].Text, "alice can log in") {
			t.Errorf("%+v, %+v", sum, r)
		}
		view, err := s.d.UserView(t.Context(), "alice")
		if err != nil || len(view.Tokens) != 1 || view.Tokens[0].Deleted == nil || len(view.Tokens[0].Differences) != 1 ||
			view.Tokens[0].Differences[0].Kind != syncer.DiffersDeleted || !view.Tokens[0].Differences[0].Breach {
			t.Errorf("alice's view: %+v, %v", view, err)
		}
		p := s.plan(choice)
		s.wantDone(p, tokenA, "cut alice off and remove it there")
		if !p.Steps[0].Breach {
			t.Error("the plan does not say that it closes anything")
		}
		if _, err := s.d.Repair(t.Context(), officer, p, p.Digest); err != nil {
			t.Fatal(err)
		}
		if again := s.plan(choice); len(again.Steps) != 0 {
			t.Errorf("while it is on its way: %+v", again)
		} else {
			s.wantSkipped(again, "YK1111111-2", "is on its way")
		}
		s.drain()
		s.wantDrift(nil)
		if view, err = s.d.UserView(t.Context(), "alice"); err != nil || len(view.Tokens) != 0 {
			t.Errorf("alice's view afterwards: %+v, %v", view, err)
		}
		if acts := s.acts("repair: remove"); len(acts) != 1 || !strings.Contains(acts[0], "user alice; "+string(choice)) {
			t.Errorf("the trail has %q", acts)
		}
	}
}

// What has the name of a deleted token and is not that token is nobody's to remove by the way.
func TestDriftOfADeletedNameThatIsSomebodyElses(t *testing.T) {
	for note, why := range map[string]string{
		"tokendesk generation 1 of another-desk": "another desk or tool",
		"from the old system":                    "another desk or tool",
		"":                                       "old copy", // a later generation of this desk
	} {
		s := openPair(t)
		s.issue(tokenA, "alice")
		s.remove(tokenA)
		s.drain()
		if note == "" {
			note = "tokendesk generation 2 of " + s.v.ID()
		}
		s.adminBringsBack(tokenA, "bob", note)
		s.wantDrift(map[string][]syncer.DifferenceKind{"YK1111111-2": {syncer.DiffersUnknown}})
		p := s.plan(syncer.PutBack)
		s.wantSkipped(p, "YK1111111-2", why)
		s.wantSkipped(p, "YK1111111-2", "bob can log in")
	}
}

// A plan to remove a token is none any more when the name was taken again.
func TestRepairOfADeletedTokenThatIsThereAgain(t *testing.T) {
	s := openPair(t)
	s.issue(tokenA, "alice")
	s.remove(tokenA)
	s.drain()
	s.adminBringsBack(tokenA, "alice", "tokendesk generation 1 of "+s.v.ID())
	p := s.plan(syncer.PutBack)
	seed := s.enroll(tokenA, 2, 0)
	var changed *syncer.ChangedError
	if _, err := s.d.Repair(t.Context(), officer, p, p.Digest); !errors.As(err, &changed) || changed.Token != tokenA {
		t.Fatalf("the repair: %v", err)
	}
	s.enqueue(vault.Unassign, tokenA, "alice", 2, 0)
	s.enqueue(vault.Put, tokenA, "", 2, 0)
	s.assign(tokenA, "bob")
	s.drain()
	s.wantDrift(nil)
	s.wantLoginAt(1, "bob", seed, 0, true)
	// And the other way round: deleted after the plan was made.
	s.adminTakesSecret(tokenA)
	p = s.plan(syncer.PutBack)
	s.remove(tokenA)
	if _, err := s.d.Repair(t.Context(), officer, p, p.Digest); !errors.As(err, &changed) {
		t.Errorf("the repair of what was deleted since: %v", err)
	}
}

// Whatever its end was, an expired or compromised token is one that nobody may log in with.
func TestDriftOfExpiredAndCompromisedTokens(t *testing.T) {
	s := openPair(t)
	s.issue(tokenA, "alice")
	s.issue(tokenB, "bob")
	s.alter(tokenA, vault.Disable, func(t *vault.Token) { t.Status, t.Expires = vault.Expired, time.Now() })
	s.alter(tokenB, vault.Unassign, func(t *vault.Token) {
		t.Loss = vault.Loss{Kind: vault.Lost, Time: time.Now(), Owner: t.Owner}
		t.Status, t.Owner = vault.Compromised, ""
	})
	s.drain()
	s.wantDrift(nil)
	s.adminPutsSecret(tokenA)
	s.adminPutsSecret(tokenB)
	s.adminLinks("bob", tokenB)
	rows, sum := s.rows()
	a, b := rows["YK1111111-2"].Differences, rows["YK2222222-2"].Differences
	if sum.Breaches != 2 || len(a) != 2 || !strings.Contains(a[0].Text, "here it is expired") ||
		len(b) != 4 || !strings.Contains(b[1].Text, "here it is compromised") {
		t.Errorf("%+v: %+v, %+v", sum, a, b)
	}
	if view, err := s.d.UserView(t.Context(), "bob"); err != nil || len(view.Tokens) != 1 || len(view.Tokens[0].Differences) != 2 {
		t.Errorf("bob's view: %+v, %v", view, err)
	}
	p := s.repair(syncer.TakeOver) // which takes nothing over here
	s.wantDone(p, tokenA, "disable it there")
	s.wantDone(p, tokenB, "cut bob off there")
	s.wantDrift(nil)
	if got := s.token(tokenB); got.Status != vault.Compromised || got.Owner != "" {
		t.Errorf("%+v", got)
	}
	s.adminRemoves(tokenB) // as in a clean-up; nobody misses it
	s.wantDrift(nil)
}
