package openldap_test

import (
	"context"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"sync/atomic"
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

var allKinds = []vault.ChangeKind{vault.Put, vault.Assign, vault.Unassign, vault.Disable, vault.Enable, vault.Advance, vault.Remove}

func TestRefusals(t *testing.T) {
	s := start(t)
	put := change(vault.Put, "", 0)
	for _, c := range []struct {
		name  string
		spoil func(*openldap.Config)
		words []string
	}{
		{"no tokens base", func(c *openldap.Config) { c.TokensBase = "ou=none," + synctest.BaseDN }, []string{"ou=none", "create it"}},
		{"no params for the digits", func(c *openldap.Config) { delete(c.Params, 6) }, []string{"6 digits"}},
		{"no rights", func(c *openldap.Config) {
			c.BindDN, c.Password = synctest.UserDN("alice"), secret.New([]byte(synctest.UserPassword("alice")))
		}, []string{"uid=alice", "right", "tokendesk doctor"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config(s)
			c.spoil(&cfg)
			_, err := connect(t, cfg).Apply(t.Context(), put, secret.Random(20))
			wantError(t, err, syncer.ErrRefused, c.words...)
		})
	}
	cfg := config(s)
	cfg.PeopleBase = "ou=none," + synctest.BaseDN
	c := connect(t, cfg)
	_, err := c.FindUser(t.Context(), "alice")
	wantError(t, err, syncer.ErrRefused, "ou=none", "no such entry")
}

func TestInsufficientAccess(t *testing.T) {
	s := start(t)
	apply(t, connect(t, config(s)), secret.Random(20), change(vault.Put, "", 0), change(vault.Assign, "alice", 0))
	rewrite(t, s, `by dn.exact="`+s.BindDN+`" =wc`, `by dn.exact="`+s.BindDN+`" =c`)
	rewrite(t, s, `by dn.exact="`+s.BindDN+`" write`, `by dn.exact="`+s.BindDN+`" read`)
	c := connect(t, config(s))
	for _, kind := range []vault.ChangeKind{vault.Put, vault.Unassign, vault.Disable, vault.Enable, vault.Advance, vault.Remove} {
		_, err := c.Apply(t.Context(), change(kind, "alice", 9), secret.Random(20))
		wantError(t, err, syncer.ErrRefused, s.BindDN, "right")
	}
}

// A link that may not be searched looks like no link: what is confirmed is that the secret is gone.
func TestUnassignOfAHiddenLink(t *testing.T) {
	s := start(t)
	seed := secret.Random(20)
	apply(t, connect(t, config(s)), seed, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
	rewrite(t, s, "attrs=objectClass,oathHOTPToken\n  by dn.exact=\""+s.BindDN+"\" write\n  by * read", "attrs=oathHOTPToken\n  by * none")
	if err := s.Login("alice", hotpscan.Code(seed, 6, 0)); err != nil {
		t.Fatal(err)
	}
	c := connect(t, config(s))
	if seen := apply(t, c, secret.Secret{}, change(vault.Unassign, "alice", 0)); seen.Enabled {
		t.Error("the secret is still there")
	}
	if s.Login("alice", hotpscan.Code(seed, 6, 1)) == nil {
		t.Error("alice still logs in")
	}
	_, err := c.Apply(t.Context(), change(vault.Assign, "bob", 0), seed) // what nobody can see is not confirmed
	wantError(t, err, syncer.ErrRefused, "right")
}

func TestUnavailable(t *testing.T) {
	s := start(t)
	g := gate(t, s)
	c, seed := through(t, s, g), secret.Random(20)
	apply(t, c, seed, change(vault.Put, "", 0))
	observe := func() error {
		_, err := c.Observe(t.Context(), token)
		return err
	}
	g.Judge(func(uint8) synctest.Verdict { return synctest.Busy })
	wantError(t, observe(), syncer.ErrUnavailable, "busy")
	g.Judge(func(op uint8) synctest.Verdict {
		if op == ldap.ApplicationModifyRequest {
			return synctest.Cut
		}
		return synctest.Pass
	})
	_, err := c.Apply(t.Context(), change(vault.Advance, "", 5), secret.Secret{})
	wantError(t, err, syncer.ErrUnavailable)
	g.Judge(func(uint8) synctest.Verdict { return synctest.Pass })
	if err := observe(); err != nil {
		t.Error("it does not recover from a cut connection:", err)
	}

	cfg := config(s)
	cfg.Password = secret.New([]byte("wrong"))
	_, err = connect(t, cfg).Observe(t.Context(), token)
	wantError(t, err, syncer.ErrUnavailable, s.BindDN, "password")

	direct := connect(t, config(s))
	apply(t, direct, seed, change(vault.Put, "", 0))
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = direct.Observe(ctx, token)
	wantError(t, err, syncer.ErrUnavailable)
	wantError(t, err, context.DeadlineExceeded)
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	apply(t, direct, seed, change(vault.Put, "", 0))

	s.Stop()
	_, err = direct.Observe(t.Context(), token)
	wantError(t, err, syncer.ErrUnavailable, "refused")
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	apply(t, direct, seed, change(vault.Advance, "", 7))
}

// An idle connection that died is not worth a failed attempt, whether that shows before or while it is used.
func TestIdleConnectionIsReplaced(t *testing.T) {
	s := start(t)
	g := gate(t, s)
	c := through(t, s, g)
	apply(t, c, secret.Random(20), change(vault.Put, "", 0))
	s.Stop()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	apply(t, c, secret.Secret{}, change(vault.Advance, "", 3))
	var requests atomic.Int32
	g.Judge(func(uint8) synctest.Verdict {
		if requests.Add(1) == 1 {
			return synctest.Cut
		}
		return synctest.Pass
	})
	apply(t, c, secret.Secret{}, change(vault.Advance, "", 6))
}

// A real login moves the counter after the connector has read it and before its modify arrives.
func TestLoginBetweenReadAndWrite(t *testing.T) {
	for _, kind := range []vault.ChangeKind{vault.Advance, vault.Put} {
		for _, first := range []uint64{0, 3} { // without and with a stored counter
			s := start(t)
			g := gate(t, s)
			c, seed := through(t, s, g), secret.Random(20)
			apply(t, c, seed, change(vault.Put, "", first), change(vault.Assign, "alice", 0))
			var modifies atomic.Int32
			login := make(chan error, 1)
			g.Judge(func(op uint8) synctest.Verdict {
				if op == ldap.ApplicationModifyRequest && modifies.Add(1) == 1 {
					login <- s.Login("alice", hotpscan.Code(seed, 6, first+4))
				}
				return synctest.Pass
			})
			seen := apply(t, c, seed, change(kind, "alice", first+4))
			if err := <-login; err != nil {
				t.Fatal(err)
			}
			if seen.Counter != first+5 {
				t.Errorf("%s from %d: the counter is %d, the login had moved it to %d", kind, first, seen.Counter, first+5)
			}
			if modifies.Load() != 1 { // what the login left needs no other write
				t.Errorf("%s was sent %d times, want once", kind, modifies.Load())
			}
		}
	}
}

// A seed that arrives after its entry was read, as by replication, does not inherit the counter of the one before.
func TestSeedThatComesBetweenEntryAndSecret(t *testing.T) {
	for _, kind := range []vault.ChangeKind{vault.Put, vault.Assign, vault.Enable} {
		s := start(t)
		g := gate(t, s)
		c, other := through(t, s, g), connect(t, config(s))
		apply(t, other, secret.Random(20), change(vault.Put, "", 500), change(vault.Assign, "alice", 0))
		seed, reseed := secret.Random(20), change(vault.Put, "alice", 16)
		reseed.Generation = 2
		var compares atomic.Int32
		came := make(chan error, 1)
		g.Judge(func(op uint8) synctest.Verdict {
			if op == ldap.ApplicationCompareRequest && compares.Add(1) == 1 {
				_, err := other.Apply(t.Context(), reseed, seed)
				came <- err
			}
			return synctest.Pass
		})
		same := reseed
		same.Kind = kind
		seen := apply(t, c, seed, same)
		if err := <-came; err != nil {
			t.Fatal(err)
		}
		if seen.Counter != 16 {
			t.Errorf("%s: the new seed is at %d, want 16", kind, seen.Counter)
		}
		if err := s.Login("alice", hotpscan.Code(seed, 6, 16)); err != nil {
			t.Errorf("%s: the new seed's next code: %v", kind, err)
		}
	}
}

func TestReadBack(t *testing.T) {
	s := start(t)
	g := gate(t, s)
	c, seed := through(t, s, g), secret.Random(20)
	lose := func(op uint8) synctest.Verdict {
		if op == ldap.ApplicationModifyRequest || op == ldap.ApplicationAddRequest {
			return synctest.Lose
		}
		return synctest.Pass
	}
	pass := func(uint8) synctest.Verdict { return synctest.Pass }
	for _, ch := range []vault.Change{change(vault.Put, "", 0), change(vault.Assign, "alice", 0), change(vault.Advance, "", 9), change(vault.Disable, "alice", 0), change(vault.Enable, "alice", 0), change(vault.Unassign, "alice", 0)} {
		g.Judge(lose)
		_, err := c.Apply(t.Context(), ch, seed)
		wantError(t, err, syncer.ErrNotConfirmed, string(ch.Kind))
		g.Judge(pass)
		apply(t, c, seed, ch)
	}
	g.Judge(lose) // the same generation and counter, but not the secret
	_, err := c.Apply(t.Context(), change(vault.Put, "", 0), secret.Random(20))
	wantError(t, err, syncer.ErrNotConfirmed, "secret")
}

// The server repeats every request in its diagnostic message; none of it may come out.
func TestSecretsStayOutOfErrors(t *testing.T) {
	s := start(t)
	g := gate(t, s)
	seed := secret.New([]byte("GEHEIM-0123456789-xy"))
	prepare := connect(t, config(s))
	for _, op := range []uint8{ldap.ApplicationBindRequest, ldap.ApplicationSearchRequest, ldap.ApplicationModifyRequest, ldap.ApplicationAddRequest, ldap.ApplicationCompareRequest} {
		for _, kind := range allKinds {
			g.Judge(func(got uint8) synctest.Verdict {
				if got == op {
					return synctest.Echo
				}
				return synctest.Pass
			})
			c := through(t, s, g)
			_, err := c.Apply(t.Context(), change(kind, "alice", 1), seed)
			texts := []string{}
			if err != nil {
				texts = append(texts, err.Error())
			}
			for _, p := range c.Check(t.Context()) {
				texts = append(texts, p.What, p.Cure)
			}
			for _, text := range texts {
				for _, hidden := range [][]byte{seed.Reveal(), []byte(s.Password)} {
					noSecret(t, text, hidden)
				}
			}
			if op == ldap.ApplicationBindRequest && err == nil {
				t.Error("the echo was not seen")
			}
		}
		apply(t, prepare, seed, change(vault.Put, "", 0)) // from the second round on the entry is there
	}
}

func noSecret(t *testing.T, text string, hidden []byte) {
	t.Helper()
	low := strings.ToLower(text)
	for form, s := range map[string]string{
		"raw": string(hidden), "hex": hex.EncodeToString(hidden),
		"base32": strings.TrimRight(base32.StdEncoding.EncodeToString(hidden), "="),
		"base64": strings.TrimRight(base64.StdEncoding.EncodeToString(hidden), "="),
	} {
		if strings.Contains(low, strings.ToLower(s)) {
			t.Errorf("a secret stands in a text (%s): %s", form, text)
		}
	}
}
