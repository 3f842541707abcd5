package openldap_test

import (
	"errors"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
	"tokendesk/sync/openldap"
	"tokendesk/sync/synctest"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// again is a change of the token that has the name after the first one was removed.
func again(kind vault.ChangeKind, user string, counter uint64) vault.Change {
	ch := change(kind, user, counter)
	ch.Generation = 2
	return ch
}

// there tells whether a server has the token's entry.
func there(t *testing.T, s *synctest.Slapd) (found bool) {
	t.Helper()
	if err := s.AsAdmin(func(c *ldap.Conn) error {
		r, err := c.Search(ldap.NewSearchRequest(tokenDN, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)", []string{"1.1"}, nil))
		if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) {
			return nil
		}
		found = err == nil && len(r.Entries) == 1
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

func wantGone(t *testing.T, p *synctest.Pair, want bool) {
	t.Helper()
	for i, s := range p.Providers {
		if got := !there(t, s); got != want {
			t.Errorf("gone from provider %d: %t, want %t", i+1, got, want)
		}
	}
}

// remains is a Remove while a provider is away.
func remains(t *testing.T, c *openldap.Connector, ch vault.Change) {
	t.Helper()
	_, err := c.Apply(t.Context(), ch, secret.Secret{})
	wantError(t, err, syncer.ErrRemains, c.Providers()[0])
	wantError(t, err, syncer.ErrUnavailable)
}

// The provider that is away has what nobody else has: a seed that is newer than all they know. Nothing of it may come back.
func TestRemoveWhereTheOpeningHasNotCome(t *testing.T) {
	p, seed := startPair(t), secret.Random(20)
	c := connect(t, toPair(p))
	apply(t, c, secret.Secret{}, change(vault.Put, "", 0))
	settle(t, p)
	onlyAtTheFirst(t, p, c, seed, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
	for range 2 {
		remains(t, c, change(vault.Remove, "alice", 0))
	}
	firstReturns(t, p, c)
	wantGone(t, p, false)
	for i, s := range p.Providers {
		noLogin(t, s, "alice", seed, uint64(i), "the token was removed")
		if s.Login("alice", "") == nil {
			t.Error("the password does without a code")
		}
	}
	apply(t, c, secret.Secret{}, change(vault.Remove, "alice", 0))
	settle(t, p)
	wantGone(t, p, true)
}

// Its name is free before the provider returns that has the old one.
func TestPutAfterRemoveWhileAProviderIsAway(t *testing.T) {
	for name, unseen := range map[string]bool{"the others know all": false, "it has what nobody else has": true} {
		t.Run(name, func(t *testing.T) {
			p, old, seed := startPair(t), secret.Random(20), secret.Random(20)
			c := connect(t, toPair(p))
			apply(t, c, old, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
			settle(t, p)
			if unseen {
				old = secret.Random(20)
			}
			onlyAtTheFirst(t, p, c, old, change(vault.Put, "alice", 40))
			remains(t, c, change(vault.Remove, "alice", 0))
			apply(t, c, seed, again(vault.Put, "bob", 3), again(vault.Assign, "bob", 3))
			login(t, p.Providers[1], "bob", seed, 3)
			firstReturns(t, p, c)
			for i, s := range p.Providers {
				login(t, s, "bob", seed, uint64(4+i))
				noLogin(t, s, "alice", old, uint64(40+i), "it was removed")
				noLogin(t, s, "bob", old, uint64(40+i), "it is another token")
				noLogin(t, s, "alice", seed, uint64(6+i), "it is bob's")
			}
		})
	}
}

// Where nobody who can be reached knows the token, there is nothing to close, and no saying what will come.
func TestRemoveWhereTheTokenHasNotCome(t *testing.T) {
	p, seed := startPair(t), secret.Random(20)
	c := connect(t, toPair(p))
	onlyAtTheFirst(t, p, c, seed, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
	_, err := c.Apply(t.Context(), change(vault.Remove, "alice", 0), secret.Secret{})
	wantError(t, err, syncer.ErrUnavailable, c.Providers()[0], token.Central(), "last")
	if errors.Is(err, syncer.ErrRemains) {
		t.Errorf("%q says that it is closed", err)
	}
	firstReturns(t, p, c)
	apply(t, c, secret.Secret{}, change(vault.Remove, "alice", 0))
	settle(t, p)
	wantGone(t, p, true)
}

// Nothing arrives late from one provider at another and brings a deleted entry back: what was written just before is followed
// by the deletion on every way that it takes.
func TestRemoveLeavesNothingBehind(t *testing.T) {
	p := startPair(t)
	c := connect(t, toPair(p))
	for n := range 30 {
		seed := secret.Random(20)
		apply(t, c, seed, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
		if n%2 == 0 { // so that both have a write that the other one may not have
			for _, s := range p.Providers {
				if err := s.AsAdmin(func(conn *ldap.Conn) error {
					m := ldap.NewModifyRequest(tokenDN, nil)
					m.Replace("l", []string{"on its way"})
					return conn.Modify(m)
				}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if n%3 == 0 {
			p.Cut(synctest.Vanish)
		}
		apply(t, c, secret.Secret{}, change(vault.Remove, "alice", 0))
		wantGone(t, p, true)
		p.Heal()
		settle(t, p)
		wantGone(t, p, true)
	}
}

// Where the two do not replicate, each gets the deletion and the new token from the desk. It stays one token when they do again.
func TestPutAfterRemoveWithoutReplication(t *testing.T) {
	p, old, seed := startPair(t), secret.Random(20), secret.Random(20)
	c := connect(t, toPair(p))
	apply(t, c, old, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
	settle(t, p)
	p.Cut(synctest.Vanish)
	apply(t, c, secret.Secret{}, change(vault.Remove, "alice", 0))
	apply(t, c, seed, again(vault.Put, "bob", 0), again(vault.Assign, "bob", 0))
	p.Heal()
	settle(t, p)
	for i, s := range p.Providers {
		login(t, s, "bob", seed, uint64(i))
		noLogin(t, s, "alice", old, uint64(i), "it was removed")
	}
}

// A server that says it has deleted, and has not, is not believed.
func TestRemoveIsReadBack(t *testing.T) {
	s, seed := start(t), secret.Random(20)
	g := gate(t, s)
	c := through(t, s, g)
	apply(t, c, seed, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
	g.Judge(func(op uint8) synctest.Verdict {
		if op == ldap.ApplicationDelRequest {
			return synctest.Lose
		}
		return synctest.Pass
	})
	c.SetGrace(50 * time.Millisecond)
	_, err := c.Apply(t.Context(), change(vault.Remove, "alice", 0), secret.Secret{})
	wantError(t, err, syncer.ErrNotConfirmed, token.Central(), "comes back")
	noLogin(t, s, "alice", seed, 0, "it is closed all the same")
	g.Judge(func(uint8) synctest.Verdict { return synctest.Pass })
	apply(t, c, secret.Secret{}, change(vault.Remove, "alice", 0))
	if there(t, s) {
		t.Error("it is still there")
	}
}

// What nobody may delete is closed all the same, and the officer is told which right is missing.
func TestRemoveWithoutTheRight(t *testing.T) {
	s, seed := start(t), secret.Random(20)
	c := connect(t, config(s))
	apply(t, c, seed, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
	rule := `access to dn.subtree="ou=tokens`
	rewrite(t, s, rule, `access to dn.subtree="`+synctest.TokensBase+`" attrs=entry by dn.exact="`+s.BindDN+`" =rscxda`+"\n"+rule)
	_, err := c.Apply(t.Context(), change(vault.Remove, "alice", 0), secret.Secret{})
	wantError(t, err, syncer.ErrRemains, tokenDN, "lacks a right", "doctor")
	wantError(t, err, syncer.ErrRefused)
	noLogin(t, s, "alice", seed, 0, "the token was removed")
	if !there(t, s) {
		t.Error("it was deleted without the right to")
	}
}

// A write that was given up and arrives after the token was removed does nothing, also to the next one of that name.
func TestLateWriteAfterRemove(t *testing.T) {
	for _, renewed := range []bool{false, true} {
		s, seed := start(t), secret.Random(20)
		k := newKeeper(t, s)
		cfg := config(s)
		cfg.URLs = []string{"ldap://" + k.Addr().String()}
		cfg.Timeout = time.Second
		c := connect(t, cfg)
		apply(t, c, secret.Secret{}, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
		k.armed <- struct{}{}
		_, err := c.Apply(t.Context(), change(vault.Put, "alice", 0), seed)
		wantError(t, err, syncer.ErrUnavailable)
		arrive := <-k.kept
		apply(t, c, secret.Secret{}, change(vault.Remove, "alice", 0))
		want := uint16(ldap.LDAPResultNoSuchObject)
		if renewed {
			apply(t, c, secret.Random(20), again(vault.Put, "alice", 0), again(vault.Assign, "alice", 0))
			want = ldap.LDAPResultAssertionFailed
		}
		if code := arrive(); code != want {
			t.Errorf("a late write is answered with %d, want %d", code, want)
		}
		noLogin(t, s, "alice", seed, 0, "the token was removed")
	}
}

// Another desk has enrolled the key meanwhile, over this desk's seed. What is deleted here is not its token.
func TestRemoveLeavesAnotherDesksToken(t *testing.T) {
	s, old, seed := start(t), secret.Random(20), secret.Random(20)
	c, cfg := connect(t, config(s)), config(s)
	cfg.Desk = "desk-B"
	other := connect(t, cfg)
	apply(t, c, old, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
	apply(t, c, secret.Secret{}, change(vault.Unassign, "alice", 0))
	apply(t, other, seed, change(vault.Put, "bob", 0), change(vault.Assign, "bob", 0))
	login(t, s, "bob", seed, 0)
	apply(t, c, secret.Secret{}, change(vault.Remove, "", 0))
	login(t, s, "bob", seed, 1)
	noLogin(t, s, "alice", old, 0, "the token was removed")
	apply(t, other, secret.Secret{}, change(vault.Remove, "bob", 0))
	if there(t, s) {
		t.Error("the desk whose it is cannot remove it")
	}
}
