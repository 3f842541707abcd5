package openldap_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
	"tokendesk/sync/hotpscan"
	"tokendesk/sync/openldap"
	"tokendesk/sync/synctest"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// settle waits until both providers have the same.
func settle(t *testing.T, p *synctest.Pair) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := p.AwaitSync(ctx); err != nil {
		t.Fatal(err)
	}
}

func login(t *testing.T, s *synctest.Slapd, user string, seed secret.Secret, n uint64) {
	t.Helper()
	if err := s.Login(user, hotpscan.Code(seed, 6, n)); err != nil {
		t.Fatalf("login with code %d: %v", n, err)
	}
}

func noLogin(t *testing.T, s *synctest.Slapd, user string, seed secret.Secret, n uint64, why string) {
	t.Helper()
	if s.Login(user, hotpscan.Code(seed, 6, n)) == nil {
		t.Fatalf("a login with code %d: %s", n, why)
	}
}

func stored(t *testing.T, s *synctest.Slapd) int64 {
	t.Helper()
	n, err := s.Stored(token.Central())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// lowered is how often replication has taken a provider back.
func lowered(t *testing.T, s *synctest.Slapd) (n int) {
	t.Helper()
	all, err := s.Writes(s.AdminDN)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range all {
		if w.Lowers() {
			n++
		}
	}
	return n
}

// agree expects both providers to have the token, alike and usable by alice from code n on.
func agree(t *testing.T, p *synctest.Pair, c *openldap.Connector, n uint64) {
	t.Helper()
	settle(t, p)
	want := syncer.Entry{Reading: syncer.Reading{Central: token.Central(), Counter: n, Ours: true, Generation: 1}, Owner: "alice", Enabled: true}
	for _, name := range c.Providers() {
		var all []syncer.Entry
		if err := c.Inventory(t.Context(), name, func(page []syncer.Entry) error { all = append(all, page...); return nil }); err != nil {
			t.Fatal(err)
		}
		if len(all) != 1 || all[0] != want {
			t.Errorf("%s has %+v, want %+v", name, all, want)
		}
	}
}

// The hazard that all this is about (ITS#10169): a write that knows nothing of other providers takes them back.
func TestReplicationTakesANaiveWriteBack(t *testing.T) {
	p := startPair(t)
	c, seed := connect(t, toPair(p)), secret.Random(20)
	apply(t, c, seed, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
	first, second := p.Providers[0], p.Providers[1]
	login(t, second, "alice", seed, 5)
	if err := first.AsAdmin(func(c *ldap.Conn) error {
		m := ldap.NewModifyRequest(tokenDN, nil)
		m.Replace("oathHOTPCounter", []string{"2"})
		return c.Modify(m)
	}); err != nil {
		t.Fatal(err)
	}
	settle(t, p)
	login(t, second, "alice", seed, 5) // for the second time
	login(t, second, "alice", seed, 8)
	if n := lowered(t, second); n != 1 {
		t.Fatalf("the naive write lowered the other provider's counter %d times, want once", n)
	}
	before := stored(t, first)
	apply(t, c, seed, change(vault.Advance, "alice", uint64(before)+3)) // raises the one, and is behind the other
	settle(t, p)
	if got := stored(t, second); got != 8 {
		t.Errorf("our write took the other provider from 8 to %d", got)
	}
	if n := lowered(t, second); n != 1 {
		t.Errorf("our write lowered the other provider's counter, if not for long")
	}
	noLogin(t, second, "alice", seed, 8, "the code was used")
	noLogin(t, first, "alice", seed, 8, "the code was used at the other provider")
}

func TestProviderDown(t *testing.T) {
	p := startPair(t)
	c, seed := connect(t, toPair(p)), secret.Random(20)
	apply(t, c, seed, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
	for down, s := range p.Providers {
		other := p.Providers[1-down]
		base := uint64(10 * (down + 1))
		s.Stop()
		if seen := apply(t, c, seed, change(vault.Advance, "alice", base)); seen.Counter != base {
			t.Errorf("with one provider down the counter is %d", seen.Counter)
		}
		login(t, other, "alice", seed, base)
		if u, err := c.FindUser(t.Context(), "alice"); err != nil || len(u.Tokens) != 1 {
			t.Errorf("with one provider down alice is %+v, %v", u, err)
		}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		settle(t, p)
		c.AwaitRested()
		apply(t, c, seed, change(vault.Put, "alice", 0)) // the login is known to one of them only
		agree(t, p, c, base+1)
	}
	for _, s := range p.Providers {
		s.Stop()
	}
	_, err := c.Observe(t.Context(), token)
	wantError(t, err, syncer.ErrUnavailable, c.Providers()[0], c.Providers()[1], "refused")
}

// A provider that hangs costs its timeout once, and not each call.
func TestProviderHangs(t *testing.T) {
	p := startPair(t)
	cfg := toPair(p)
	cfg.Timeout = 400 * time.Millisecond
	c, seed := connect(t, cfg), secret.Random(20)
	apply(t, c, seed, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
	settle(t, p)
	if err := p.Providers[0].Pause(); err != nil {
		t.Fatal(err)
	}
	apply(t, c, seed, change(vault.Advance, "alice", 3))
	begin := time.Now()
	for n := range uint64(5) {
		apply(t, c, seed, change(vault.Advance, "alice", 4+n))
	}
	if took := time.Since(begin); took >= cfg.Timeout {
		t.Errorf("five changes took %v while one provider hangs", took)
	}
	if err := p.Providers[0].Resume(); err != nil {
		t.Fatal(err)
	}
	agree(t, p, c, 8)
}

// Both can be reached, and not each other: what replication does not bring is written directly, and both versions become
// one afterwards.
func TestSplitAndHealed(t *testing.T) {
	for _, known := range []bool{false, true} {
		p := startPair(t)
		c, seed := connect(t, toPair(p)), secret.Random(20)
		c.SetGrace(50 * time.Millisecond)
		if known {
			apply(t, c, secret.Secret{}, change(vault.Put, "", 0))
			settle(t, p)
		}
		p.Cut(synctest.Reset)
		apply(t, c, seed, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
		for i, s := range p.Providers {
			login(t, s, "alice", seed, uint64(3+i))
		}
		if seen := apply(t, c, seed, change(vault.Advance, "alice", 2)); seen.Counter != 5 {
			t.Errorf("the counter is %d, and code 4 was used", seen.Counter)
		}
		p.Heal()
		agree(t, p, c, 5)
		apply(t, c, seed, change(vault.Disable, "alice", 0))
		for _, s := range p.Providers {
			noLogin(t, s, "alice", seed, 5, "the token is disabled")
		}
		apply(t, c, seed, change(vault.Enable, "alice", 0))
		agree(t, p, c, 5)
	}
}

// A provider that was away has the secret that a cut-off has removed elsewhere. It must not hand it on.
func TestProviderThatMissedACutOff(t *testing.T) {
	p := startPair(t)
	c, seed := connect(t, toPair(p)), secret.Random(20)
	c.SetGrace(50 * time.Millisecond)
	first := p.Providers[0]
	apply(t, c, seed, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
	settle(t, p)
	first.Stop()
	apply(t, c, seed, change(vault.Disable, "alice", 0))
	p.Cut(synctest.Reset)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	login(t, first, "alice", seed, 0) // nobody has told it
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	var err error
	for range 500 { // it rests at first, and is not asked
		if _, err = c.Apply(t.Context(), change(vault.Advance, "alice", 9), secret.Secret{}); err != nil {
			break
		}
		<-again.C
	}
	wantError(t, err, syncer.ErrNotConfirmed, c.Providers()[0], "not caught up")
	p.Heal()
	settle(t, p)
	for _, s := range p.Providers {
		noLogin(t, s, "alice", seed, 9, "the token is disabled")
	}
	if seen := apply(t, c, seed, change(vault.Advance, "alice", 9)); seen.Enabled || seen.Counter != 9 {
		t.Errorf("afterwards the service shows %+v", seen)
	}
}

// A cut-off closes every door that can be reached, whatever replication does.
func TestCutOffWhileSplit(t *testing.T) {
	for _, kind := range []vault.ChangeKind{vault.Disable, vault.Unassign} {
		p := startPair(t)
		c, seed := connect(t, toPair(p)), secret.Random(20)
		apply(t, c, seed, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
		settle(t, p)
		login(t, p.Providers[1], "alice", seed, 6)
		p.Cut(synctest.Vanish)
		begin := time.Now()
		if seen := apply(t, c, secret.Secret{}, change(kind, "alice", 0)); seen.Enabled || seen.Counter != 7 {
			t.Errorf("after %s the service shows %+v", kind, seen)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("%s took %v", kind, took)
		}
		for _, s := range p.Providers {
			noLogin(t, s, "alice", seed, 8, "the token is cut off")
		}
		p.Heal()
		settle(t, p)
		for _, s := range p.Providers {
			if got := stored(t, s); got != 6 {
				t.Errorf("after %s a provider is at %d, and code 6 was used", kind, got)
			}
		}
	}
}

// A provider that says success and does nothing is named.
func TestProviderThatDoesNothing(t *testing.T) {
	p := startPair(t)
	g := gate(t, p.Providers[1])
	c, seed := connect(t, toPair(p, p.Providers[0].URL, g.URL)), secret.Random(20)
	c.SetGrace(50 * time.Millisecond)
	apply(t, c, seed, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
	settle(t, p)
	p.Cut(synctest.Reset)
	g.Judge(func(op uint8) synctest.Verdict {
		if op == ldap.ApplicationModifyRequest || op == ldap.ApplicationAddRequest {
			return synctest.Lose
		}
		return synctest.Pass
	})
	for _, kind := range []vault.ChangeKind{vault.Advance, vault.Disable, vault.Unassign, vault.Put} {
		_, err := c.Apply(t.Context(), change(kind, "alice", 50), seed)
		wantError(t, err, syncer.ErrNotConfirmed, c.Providers()[1], string(kind))
	}
	login(t, p.Providers[1], "alice", seed, 0) // it was right to complain
}

// Two desks that write the same token leave what one of them wrote, and no mixture.
func TestTwoDesksWriteOneToken(t *testing.T) {
	p := startPair(t)
	seeds := map[string]secret.Secret{"desk-A": secret.Random(20), "desk-B": secret.Random(20)}
	counters := map[string]uint64{"desk-A": 1000, "desk-B": 2000}
	type result struct {
		desk string
		err  error
	}
	results := make(chan result)
	conns := make(map[string]*openldap.Connector)
	for name := range seeds {
		cfg := toPair(p)
		cfg.Desk = name
		conns[name] = connect(t, cfg)
	}
	for range 10 {
		for name, seed := range seeds {
			go func() {
				_, err := conns[name].Apply(t.Context(), change(vault.Put, "alice", counters[name]), seed)
				results <- result{name, err}
			}()
		}
		for range seeds {
			if r := <-results; r.err != nil && !errors.Is(r.err, syncer.ErrNotConfirmed) && !errors.Is(r.err, syncer.ErrUnavailable) {
				t.Errorf("%s: %v", r.desk, r.err)
			}
		}
		settle(t, p)
		for i, s := range p.Providers {
			if err := s.AsAdmin(func(c *ldap.Conn) error {
				r, err := c.Search(ldap.NewSearchRequest(tokenDN, ldap.ScopeBaseObject, 0, 0, 0, false, "(objectClass=*)", nil, nil))
				if err != nil {
					return err
				}
				e := r.Entries[0]
				whose := "desk-A"
				if e.GetAttributeValue("description") == "tokendesk generation 1 of desk-B" {
					whose = "desk-B"
				}
				want := map[string]string{"desk-A": "999", "desk-B": "1999"}[whose]
				if e.GetAttributeValue("oathHOTPCounter") != want || string(e.GetRawAttributeValue("oathSecret")) != string(seeds[whose].Reveal()) {
					t.Errorf("provider %d mixes what two desks wrote: %v with counter %s", i, e.GetAttributeValues("description"), e.GetAttributeValue("oathHOTPCounter"))
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
}
