package openldap_test

import (
	"testing"

	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
	"tokendesk/sync/hotpscan"
	"tokendesk/sync/openldap"
	"tokendesk/sync/synctest"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// What is there under the token's name may be from another desk, a lost vault or somebody's script. Its counter is not
// this seed's, whatever generation it claims; an enrollment gets through all the same.
func TestForeignEntryIsTakenOver(t *testing.T) {
	asDesk := func(name string, generation int, user string) func(*testing.T, *synctest.Slapd) {
		// Without a user it is stock, and has no secret to compare.
		return func(t *testing.T, s *synctest.Slapd) {
			cfg := config(s)
			cfg.Desk = name
			c := connect(t, cfg)
			put, assign := change(vault.Put, user, 5000), change(vault.Assign, user, 5000)
			put.Generation, assign.Generation, put.Digits, assign.Digits = generation, generation, 8, 8
			if user == "" {
				apply(t, c, secret.Secret{}, put)
				return
			}
			apply(t, c, secret.Random(20), put, assign)
		}
	}
	byHand := func(secret, note string) func(*testing.T, *synctest.Slapd) {
		return func(t *testing.T, s *synctest.Slapd) {
			if err := s.AsAdmin(func(c *ldap.Conn) error {
				a := ldap.NewAddRequest(tokenDN, nil)
				a.Attribute("objectClass", []string{"device", "oathHOTPToken"})
				a.Attribute("oathSecret", []string{secret})
				a.Attribute("oathHOTPCounter", []string{"4999"})
				a.Attribute("oathHOTPParams", []string{synctest.Params8})
				if note != "" {
					a.Attribute("description", []string{note})
				}
				return c.Add(a)
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	const foreign = "a seed of another one"
	for name, prepare := range map[string]func(*testing.T, *synctest.Slapd){
		"stock of another desk, same generation":         asDesk("desk-B", 1, ""),
		"stock of another desk, later generation":        asDesk("desk-B", 7, ""),
		"the lost vault had given it to alice":           asDesk("desk-B", 1, "alice"),
		"this desk had, before its vault was put back":   asDesk(desk, 1, "alice"),
		"a desk without name had":                        asDesk("", 1, "alice"),
		"stock of a desk without name, later generation": asDesk("", 7, ""),
		"by hand":                   byHand(foreign, ""),
		"by hand, with an old note": byHand(foreign, "tokendesk generation 1"),
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			prepare(t, s)
			c, seed := connect(t, config(s)), secret.Random(20)
			seen := apply(t, c, seed, change(vault.Put, "alice", 2), change(vault.Assign, "alice", 2))
			if want := (syncer.Observation{Exists: true, Counter: 2, Owner: "alice", Enabled: true}); seen != want {
				t.Errorf("the service shows %+v, want %+v", seen, want)
			}
			if err := s.Login("alice", hotpscan.Code(seed, 6, 2)); err != nil {
				t.Error("alice cannot log in:", err)
			}
		})
	}
	t.Run("as stock", func(t *testing.T) {
		s := start(t)
		byHand(foreign, "")(t, s)
		if seen := apply(t, connect(t, config(s)), secret.Secret{}, change(vault.Put, "", 2)); seen != (syncer.Observation{Exists: true, Counter: 2}) {
			t.Errorf("the service shows %+v", seen)
		}
	})
	t.Run("this desk's, from before it had a name", func(t *testing.T) {
		s := start(t)
		seed := "12345678901234567890"
		byHand(seed, "Tokendesk generation 1")(t, s)
		if seen := apply(t, connect(t, config(s)), secret.New([]byte(seed)), change(vault.Put, "alice", 2)); seen.Counter != 5000 {
			t.Errorf("the counter of the same seed went from 5000 to %d", seen.Counter)
		}
	})
}

// A vault that was put back from an old copy meets what it has done since.
func TestLaterGenerationOfThisDesk(t *testing.T) {
	s := start(t)
	c := connect(t, config(s))
	later := change(vault.Put, "", 0)
	later.Generation = 3
	apply(t, c, secret.Secret{}, later)
	for _, kind := range []vault.ChangeKind{vault.Put, vault.Assign, vault.Enable, vault.Advance} {
		_, err := c.Apply(t.Context(), change(kind, "alice", 9), secret.Random(20))
		wantError(t, err, syncer.ErrRefused, "YK1234567-2", "generation 3", "newer than 1", "tokendesk doctor", "restore")
	}
	if u, err := c.FindUser(t.Context(), "alice"); err != nil || len(u.Tokens) != 0 {
		t.Errorf("a refused assignment has linked it: %+v, %v", u, err)
	}
}

func TestCounterOfAnotherDesksSeedIsLeftAlone(t *testing.T) {
	s := start(t)
	cfg := config(s)
	cfg.Desk = "desk-B"
	apply(t, connect(t, cfg), secret.Secret{}, change(vault.Put, "", 0))
	_, err := connect(t, config(s)).Apply(t.Context(), change(vault.Advance, "", 9), secret.Secret{})
	wantError(t, err, syncer.ErrRefused, "another desk", "desk-B")
}

// Stock that somebody's entry still links would be that user's.
func TestLinkOfSomebodyElseIsNamed(t *testing.T) {
	s := start(t)
	c, seed := connect(t, config(s)), secret.Random(20)
	apply(t, c, seed, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0), change(vault.Put, "ALICE", 0))
	for _, kind := range []vault.ChangeKind{vault.Put, vault.Assign, vault.Enable} {
		for _, user := range []string{"", "bob", "nobody"} {
			if user == "" && kind == vault.Assign {
				continue
			}
			_, err := c.Apply(t.Context(), change(kind, user, 0), seed)
			words := []string{"alice", "oathHOTPToken"}
			if user == "nobody" && kind == vault.Assign {
				words = []string{"nobody"}
			}
			wantError(t, err, syncer.ErrRefused, words...)
		}
	}
	if err := s.Login("alice", hotpscan.Code(seed, 6, 0)); err != nil {
		t.Error("a refused change was made in part:", err)
	}
}

// The directory compares names without case and tells how it spells them.
func TestFindUser(t *testing.T) {
	s := start(t)
	c := connect(t, config(s))
	if u, err := c.FindUser(t.Context(), "ALice"); err != nil || u.Name != "alice" {
		t.Errorf("%+v, %v", u, err)
	}
	if err := s.AsAdmin(func(conn *ldap.Conn) error {
		m := ldap.NewModifyRequest(synctest.UserDN("bob"), nil)
		m.Add("uid", []string{"carol"})
		return conn.Modify(m)
	}); err != nil {
		t.Fatal(err)
	}
	_, err := c.FindUser(t.Context(), "carol")
	wantError(t, err, syncer.ErrRefused, "several", "user filter")
}

var _ syncer.Connector = (*openldap.Connector)(nil)
