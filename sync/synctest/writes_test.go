package synctest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/sync/synctest"
	"tokendesk/vault/secret"
)

func TestWrites(t *testing.T) {
	s, seed := start(t), secret.Random(20)
	c := asProvisioner(t, s, s.URL)
	addToken(t, c, seed)
	modify := func(change func(*ldap.ModifyRequest)) {
		t.Helper()
		m := ldap.NewModifyRequest(tokenDN, nil)
		change(m)
		if err := c.Modify(m); err != nil {
			t.Fatal(err)
		}
	}
	counter := func(v ...string) func(*ldap.ModifyRequest) {
		return func(m *ldap.ModifyRequest) { m.Replace("oathHOTPCounter", v) }
	}
	other := secret.Random(20)
	const kept, changed, lowered, reseeded = "kept", "changed", "lowered", "reseeded"
	steps := []struct {
		what     string
		change   func(*ldap.ModifyRequest)
		verdict  string
		old, new int64
	}{
		{"first", counter("9"), changed, -1, 9},
		{"same", counter("9"), kept, 9, 9},
		{"compare and set", func(m *ldap.ModifyRequest) {
			m.Delete("oathHOTPCounter", []string{"9"})
			m.Add("oathHOTPCounter", []string{"12"})
		}, changed, 9, 12},
		{"there and back", func(m *ldap.ModifyRequest) {
			m.Delete("oathHOTPCounter", []string{"12"})
			m.Add("oathHOTPCounter", []string{"12"})
		}, kept, 12, 12},
		{"lower", counter("3"), lowered, 12, 3},
		{"increment", func(m *ldap.ModifyRequest) { m.Increment("oathHOTPCounter", "2") }, changed, 3, 5},
		{"none", counter(), lowered, 5, -1},
		{"again", counter("100"), changed, -1, 100},
		{"same secret", func(m *ldap.ModifyRequest) {
			m.Replace("oathSecret", []string{string(seed.Reveal())})
			m.Replace("oathHOTPCounter", []string{"99"})
		}, lowered, 100, 99},
		{"another note", func(m *ldap.ModifyRequest) {
			m.Replace("description", []string{"generation 1"})
			m.Replace("oathHOTPCounter", []string{"98"})
		}, lowered, 99, 98},
		{"another secret", func(m *ldap.ModifyRequest) {
			m.Replace("oathSecret", []string{string(other.Reveal())})
			m.Replace("oathHOTPCounter", []string{"0"})
		}, reseeded, 98, 0},
		{"no secret", func(m *ldap.ModifyRequest) {
			m.Delete("oathSecret", nil)
			m.Delete("oathHOTPCounter", nil)
		}, lowered, 0, -1},
		{"without a secret", counter("50"), changed, -1, 50},
		{"another one without", func(m *ldap.ModifyRequest) {
			m.Replace("description", []string{"generation 2"})
			m.Replace("oathHOTPCounter", []string{"1"})
		}, reseeded, 50, 1},
		{"several", func(m *ldap.ModifyRequest) { m.Replace("description", []string{"b", "a"}) }, reseeded, 0, 0},
		{"another order", func(m *ldap.ModifyRequest) { m.Replace("description", []string{"a", "b"}) }, kept, 0, 0},
		{"one less", func(m *ldap.ModifyRequest) { m.Delete("description", []string{"a"}) }, reseeded, 0, 0},
		{"a link", func(m *ldap.ModifyRequest) { m.Replace("seeAlso", []string{synctest.UserDN("bob")}) }, changed, 0, 0},
	}
	for _, step := range steps {
		modify(step.change)
	}
	if err := c.Modify(ldap.NewModifyRequest("cn=nothing,"+synctest.TokensBase, nil)); err == nil {
		t.Fatal("an entry that is not there was changed")
	}
	all, err := s.Writes(s.BindDN)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != len(steps)+2 {
		t.Fatalf("%d writes, want %d: %v", len(all), len(steps)+2, all)
	}
	if w := all[0]; w.Type != "add" || w.DN != tokenDN || !w.Changes() || w.Lowers() || !w.Reseeds || w.By != s.BindDN || w.Time.IsZero() {
		t.Errorf("the first is %+v", w)
	}
	if w := all[1]; w.Type != "modify" || w.DN != synctest.UserDN("alice") || !slices.EqualFunc(w.Mods, []string{"[oathHOTPUser]", "[" + tokenDN + "]"},
		func(m synctest.Mod, v string) bool { return m.Op == "add" && fmt.Sprint(m.Values) == v }) {
		t.Errorf("the link is %+v", w)
	}
	for i, step := range steps {
		w := all[i+2]
		verdict := kept
		switch {
		case w.Lowers():
			verdict = lowered
		case w.Reseeds:
			verdict = reseeded
		case w.Changes():
			verdict = changed
		}
		if verdict != step.verdict || w.Changes() != (step.verdict != kept) {
			t.Errorf("%s: %s is taken for %s", step.what, w, verdict)
		}
		if w.Counter != nil && *w.Counter != (synctest.CounterChange{Old: step.old, New: step.new}) || w.Counter == nil && step.old != step.new {
			t.Errorf("%s: %s: the counter is %+v", step.what, w, w.Counter)
		}
		for _, hidden := range []secret.Secret{seed, other} {
			if strings.Contains(fmt.Sprintf("%s %+v", w, w), string(hidden.Reveal())) {
				t.Errorf("%s: a secret is shown", step.what)
			}
		}
	}
	logins(t, s, len(all))
}

// logins are not the provisioner's writes.
func logins(t *testing.T, s *synctest.Slapd, before int) {
	t.Helper()
	if err := s.Login("bob", ""); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Writes(s.BindDN); err != nil || len(all) != before {
		t.Errorf("%d writes became %d, %v", before, len(all), err)
	}
}
