package openldap_test

import (
	"errors"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/sync/hotpscan"
	"tokendesk/sync/openldap"
	"tokendesk/sync/synctest"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// onlyAtTheFirst makes changes at the first provider while the second is away, and then has the second one return alone.
func onlyAtTheFirst(t *testing.T, p *synctest.Pair, c *openldap.Connector, seed secret.Secret, changes ...vault.Change) {
	t.Helper()
	p.Providers[1].Stop()
	apply(t, c, seed, changes...)
	p.Cut(synctest.Vanish)
	p.Providers[0].Stop()
	if err := p.Providers[1].Start(); err != nil {
		t.Fatal(err)
	}
	c.AwaitRested()
}

// firstReturns ends what onlyAtTheFirst began.
func firstReturns(t *testing.T, p *synctest.Pair, c *openldap.Connector) {
	t.Helper()
	if err := p.Providers[0].Start(); err != nil {
		t.Fatal(err)
	}
	p.Heal()
	settle(t, p)
	c.AwaitRested()
}

// written is how often the desk has changed something at a server.
func written(t *testing.T, s *synctest.Slapd) int {
	t.Helper()
	all, err := s.Writes(s.BindDN)
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// The one provider that has the opening is away when the cut-off comes. What it brings along must not win.
func TestCutOffWhereTheOpeningHasNotCome(t *testing.T) {
	for name, tc := range map[string]struct {
		cut    vault.Change
		writes int // of each attempt while the other one is away
	}{
		"disable":            {change(vault.Disable, "alice", 0), 1},
		"unassign":           {change(vault.Unassign, "alice", 0), 2},
		"put without seed":   {change(vault.Put, "alice", 0), 1},
		"enable, likewise":   {change(vault.Enable, "alice", 0), 1},
		"unassign of nobody": {change(vault.Unassign, "", 0), 1},
	} {
		t.Run(name, func(t *testing.T) {
			p, seed := startPair(t), secret.Random(20)
			c := connect(t, toPair(p))
			apply(t, c, secret.Secret{}, change(vault.Put, "", 0))
			settle(t, p)
			onlyAtTheFirst(t, p, c, seed, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
			for range 2 {
				before := written(t, p.Providers[1])
				if seen := apply(t, c, secret.Secret{}, tc.cut); seen.Enabled {
					t.Errorf("afterwards the service shows %+v", seen)
				}
				if got := written(t, p.Providers[1]) - before; got != tc.writes {
					t.Errorf("%d writes while the other one is away, want %d", got, tc.writes)
				}
			}
			firstReturns(t, p, c)
			for i, s := range p.Providers {
				noLogin(t, s, "alice", seed, uint64(i), "the token was cut off")
				if s.Login("alice", "") == nil {
					t.Error("the password does without a code")
				}
			}
			apply(t, c, secret.Secret{}, tc.cut) // unassigns, where nobody was named
			settle(t, p)
			before := written(t, p.Providers[0]) + written(t, p.Providers[1])
			apply(t, c, secret.Secret{}, tc.cut)
			if got := written(t, p.Providers[0]) + written(t, p.Providers[1]); got != before {
				t.Errorf("%d writes of what is there already", got-before)
			}
		})
	}
}

// The one provider that has the opening is away when the counter moves. What is written meanwhile must not close the token.
func TestAdvanceWhereTheOpeningHasNotCome(t *testing.T) {
	p, seed := startPair(t), secret.Random(20)
	c := connect(t, toPair(p))
	apply(t, c, seed, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
	apply(t, c, secret.Secret{}, change(vault.Disable, "alice", 0))
	settle(t, p)
	onlyAtTheFirst(t, p, c, seed, change(vault.Enable, "alice", 0))
	before := written(t, p.Providers[1])
	_, err := c.Apply(t.Context(), change(vault.Advance, "alice", 5), seed)
	wantError(t, err, syncer.ErrUnavailable, token.Central(), "closed there")
	if got := written(t, p.Providers[1]) - before; got != 0 {
		t.Errorf("%d writes", got)
	}
	firstReturns(t, p, c)
	if seen := apply(t, c, seed, change(vault.Advance, "alice", 5)); !seen.Enabled || seen.Counter != 5 {
		t.Errorf("when it has returned the service shows %+v", seen)
	}
	for i, s := range p.Providers {
		login(t, s, "alice", seed, uint64(6+i))
	}
}

// A user who has another token by now keeps it.
func TestUnassignLeavesTheUsersOtherToken(t *testing.T) {
	p, seed := startPair(t), secret.Random(20)
	c := connect(t, toPair(p))
	apply(t, c, secret.Secret{}, change(vault.Put, "", 0))
	settle(t, p)
	p.Providers[0].Stop()
	put, assign := change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0)
	put.Token, assign.Token = second, second
	apply(t, c, seed, put, assign)
	apply(t, c, secret.Secret{}, change(vault.Unassign, "alice", 0))
	login(t, p.Providers[1], "alice", seed, 0)
}

const second device.TokenID = "yk-1234567/otp1"

// Nothing can be written to last against an entry that only the provider that is away has.
func TestCutOffWhereTheTokenHasNotCome(t *testing.T) {
	p, seed := startPair(t), secret.Random(20)
	c := connect(t, toPair(p))
	onlyAtTheFirst(t, p, c, seed, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
	for _, kind := range []vault.ChangeKind{vault.Disable, vault.Unassign} {
		_, err := c.Apply(t.Context(), change(kind, "alice", 0), secret.Secret{})
		wantError(t, err, syncer.ErrUnavailable, c.Providers()[0], token.Central(), "last")
	}
	firstReturns(t, p, c)
	apply(t, c, secret.Secret{}, change(vault.Disable, "alice", 0))
	for i, s := range p.Providers {
		noLogin(t, s, "alice", seed, uint64(i), "the token is disabled")
	}
}

// What has not come to the one provider that can be reached is no reason to refuse anything for good.
func TestNoRefusalOnAPartialView(t *testing.T) {
	p, seed := startPair(t), secret.Random(20)
	c := connect(t, toPair(p))
	c.SetGrace(50 * time.Millisecond)
	of := func(token device.TokenID, kind vault.ChangeKind, user string) vault.Change {
		ch := change(kind, user, 4)
		ch.Token, ch.Generation = token, 2
		return ch
	}
	waits := func(ch vault.Change, words ...string) {
		t.Helper()
		_, err := c.Apply(t.Context(), ch, seed)
		wantError(t, err, syncer.ErrUnavailable, append(words, c.Providers()[0])...)
		if errors.Is(err, syncer.ErrRefused) {
			t.Errorf("%q refuses", err)
		}
	}
	onlyAtTheFirst(t, p, c, seed, of(token, vault.Put, "alice"))
	waits(of(token, vault.Advance, "alice"), "is not there")
	waits(of(token, vault.Assign, "alice"), "is not there")
	waits(of(token, vault.Assign, "newcomer"), `no user "newcomer"`)
	old := of(second, vault.Put, "alice")
	old.Generation = 1
	apply(t, c, seed, old)
	waits(of(second, vault.Advance, "alice"), "generation 1")
	apply(t, c, seed, of(second, vault.Put, "alice"), of(second, vault.Assign, "alice"), of(token, vault.Put, ""))
	waits(of(token, vault.Assign, "alice"), "already has token", second.Central())
	waits(of(second, vault.Put, "bob"), "linked by alice")

	_, err := c.Apply(t.Context(), old, seed)
	wantError(t, err, syncer.ErrRefused, "newer than 1")
	long := of(token, vault.Put, "")
	long.Digits = 7
	_, err = c.Apply(t.Context(), long, seed)
	wantError(t, err, syncer.ErrRefused, "7 digits")

	if err := p.Providers[0].Start(); err != nil {
		t.Fatal(err)
	}
	c.AwaitRested()
	_, err = c.Apply(t.Context(), of(token, vault.Assign, "alice"), seed) // the providers say different things
	wantError(t, err, syncer.ErrNotConfirmed, "not caught up", "already has token")
	p.Heal()
	settle(t, p)
	_, err = c.Apply(t.Context(), of(token, vault.Assign, "alice"), seed)
	wantError(t, err, syncer.ErrRefused, "already has token", second.Central())
	_, err = c.Apply(t.Context(), of(token, vault.Assign, "newcomer"), seed)
	wantError(t, err, syncer.ErrRefused, "newcomer")
}

// A user that has come to one provider only is not unknown.
func TestUserThatHasNotComeEverywhere(t *testing.T) {
	p, seed := startPair(t), secret.Random(20)
	c := connect(t, toPair(p))
	apply(t, c, seed, change(vault.Put, "newcomer", 0))
	settle(t, p)
	p.Cut(synctest.Vanish)
	if err := p.Providers[0].AsAdmin(func(conn *ldap.Conn) error {
		a := ldap.NewAddRequest(synctest.UserDN("newcomer"), nil)
		a.Attribute("objectClass", []string{"inetOrgPerson"})
		a.Attribute("cn", []string{"newcomer"})
		a.Attribute("sn", []string{"newcomer"})
		a.Attribute("userPassword", []string{synctest.UserPassword("newcomer")})
		return conn.Add(a)
	}); err != nil {
		t.Fatal(err)
	}
	_, err := c.Apply(t.Context(), change(vault.Assign, "newcomer", 0), seed)
	wantError(t, err, syncer.ErrNotConfirmed, "not caught up", "newcomer", c.Providers()[1])
	p.Heal()
	settle(t, p)
	apply(t, c, seed, change(vault.Assign, "newcomer", 0))
	if err := p.Providers[1].Login("newcomer", hotpscan.Code(seed, 6, 0)); err != nil {
		t.Error(err)
	}
}

// A provider that is left alone for a while is asked before it costs a change.
func TestRestingProviderIsAskedBeforeARefusal(t *testing.T) {
	p, seed := startPair(t), secret.Random(20)
	cfg := toPair(p)
	cfg.Timeout = 2 * time.Second // so that the rest is ten
	c := connect(t, cfg)
	c.SetGrace(50 * time.Millisecond)
	p.Providers[1].Stop()
	apply(t, c, seed, change(vault.Put, "alice", 0))
	p.Cut(synctest.Vanish)
	if err := p.Providers[1].Start(); err != nil {
		t.Fatal(err)
	}
	if err := p.Providers[0].Pause(); err != nil {
		t.Fatal(err)
	}
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	seen, err := c.Observe(t.Context(), token)
	for i := 0; err != nil && i < 250; i++ { // the other one rests as well, for as long as it took to see that it was away
		<-again.C
		seen, err = c.Observe(t.Context(), token)
	}
	if err != nil || seen.Exists {
		t.Fatalf("while one provider hangs the other shows %+v, %v", seen, err)
	}
	if err := p.Providers[0].Resume(); err != nil {
		t.Fatal(err)
	}
	apply(t, c, seed, change(vault.Assign, "alice", 0))
	login(t, p.Providers[0], "alice", seed, 0)
}
