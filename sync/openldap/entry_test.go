package openldap

import (
	"math"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"
)

func TestCounterIsLastUsed(t *testing.T) {
	for stored, next := range map[string]uint64{"": 0, "-1": 0, "0": 1, "41": 42, "9223372036854775806": math.MaxInt64} {
		got, err := parseCounter(stored)
		if err != nil || got != next {
			t.Errorf("%q: %d, %v, want %d", stored, got, err, next)
		}
	}
	for _, bad := range []string{"9223372036854775807", "-2", "1e3", " 1", "x"} {
		if _, err := parseCounter(bad); err == nil {
			t.Errorf("%q passed for a counter", bad)
		}
	}
	if formatCounter(0) != nil || formatCounter(1)[0] != "0" {
		t.Error("no code was used yet: the attribute must be absent; after the first it is 0")
	}
}

func FuzzCounter(f *testing.F) {
	for _, s := range []string{"", "-1", "0", "302", "9223372036854775807", "0x10", "1 "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, stored string) {
		next, err := parseCounter(stored)
		if err != nil || next == 0 {
			return
		}
		if again, err := parseCounter(formatCounter(next)[0]); err != nil || again != next {
			t.Fatalf("%q: %d became %d, %v", stored, next, again, err)
		}
	})
}

func TestOriginNotes(t *testing.T) {
	for note, want := range map[string]origin{
		"tokendesk generation 2":                   {2, ""},
		" Tokendesk  GENERATION 7  Of  Desk-B ":    {7, "Desk-B"},
		"tokendesk generation 3 of ":               {},
		"tokendesk generation 3 of two desks":      {},
		"tokendesk generation 3 by desk":           {},
		"tokendesk generation 0 of desk":           {},
		"tokendesk generation -1":                  {},
		"tokendesk generation 2147483648":          {},
		"spare key":                                {},
		"":                                         {},
		"tokendesk generation 2147483647 of desk1": {math.MaxInt32, "desk1"},
	} {
		if got := parseOrigin(note); got != want {
			t.Errorf("%q: %+v, want %+v", note, got, want)
		}
	}
	if got := originOf([]string{"spare", "tokendesk generation 1 of a", "tokendesk generation 3 of b"}); got != (origin{3, "b"}) {
		t.Errorf("of several: %+v", got)
	}
}

func FuzzOrigin(f *testing.F) {
	for _, s := range []string{"tokendesk generation 2", " Tokendesk  GENERATION 7 of X", "tokendesk generation -1", "tokendesk generation 2147483648", "spare key"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, note string) {
		o := parseOrigin(note)
		if o.generation < 0 || o.generation > math.MaxInt32 || o.generation == 0 && o.desk != "" {
			t.Fatalf("%q: %+v", note, o)
		}
		if o.generation != 0 && parseOrigin(o.String()) != o {
			t.Fatalf("%q: %+v does not survive", note, o)
		}
		own := origin{3, "desk"}
		if kept := withOrigin([]string{note}, own); parseOrigin(kept[0]) != own || (o.generation == 0) != (len(kept) == 2) {
			t.Fatalf("%q: kept %q", note, kept)
		}
	})
}

// Whatever a user is called, the filter compares and nothing else.
func FuzzUserFilter(f *testing.F) {
	for _, s := range []string{"alice", "*", "a)(uid=*", `\2a`, "\x00", "ü", "%s"} {
		f.Add(s)
	}
	c := &Config{UserFilter: DefaultUserFilter}
	f.Fuzz(func(t *testing.T, name string) {
		filter := c.userFilter(name)
		p, err := ldap.CompileFilter(filter)
		if err != nil {
			t.Fatalf("%q: %v", filter, err)
		}
		if p.Tag != ldap.FilterEqualityMatch || len(p.Children) != 2 {
			t.Fatalf("%q became another filter: %q", name, filter)
		}
		if got := string(p.Children[1].ByteValue); strings.ToValidUTF8(name, "") == name && got != name && p.Children[1].Value != name {
			t.Fatalf("%q is compared as %q", name, got)
		}
	})
}

func TestContextCSN(t *testing.T) {
	got := parseContextCSN([]string{"20261122030405.000001Z#000000#001#000000", "20261122030405.000002Z#000000#002#000000",
		"20261122030406.000000Z#000000#001#000000", "no CSN", ""})
	if len(got) != 2 || got["001"] != "20261122030406.000000Z#000000#001#000000" || got["002"] == "" {
		t.Errorf("%v", got)
	}
}

func FuzzContextCSN(f *testing.F) {
	f.Add("20261122030405.000001Z#000000#001#000000", "x#y#z#")
	f.Fuzz(func(t *testing.T, a, b string) {
		for id, csn := range parseContextCSN([]string{a, b}) {
			if csn != a && csn != b || !strings.Contains(csn, "#"+id+"#") {
				t.Fatalf("%q of %q, %q", csn, a, b)
			}
		}
	})
}

// Names of tokens are made of DNs that people may have written.
func FuzzCentral(f *testing.F) {
	for _, s := range []string{"cn=YK1-2,ou=t", `cn=a\2cb,ou=t`, "cn=x+uid=y,ou=t", "cn=x,ou=u", "", "ou=t"} {
		f.Add(s)
	}
	c, err := New(Config{URLs: []string{"ldapi://"}, PeopleBase: "ou=p", TokensBase: "ou=t", Params: map[int]string{6: "cn=6"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, dn string) {
		name := c.central(dn)
		if name != dn && !sameDN("cn="+ldap.EscapeDN(name)+",ou=t", dn) {
			t.Fatalf("%q is not the token %q", dn, name)
		}
	})
}

// Whatever a URL is, its errors do not repeat it: it may hold a password.
func FuzzEndpoint(f *testing.F) {
	for _, s := range []string{"ldaps://h:1", "ldapi://%2Frun%2Fx/", "ldapi:///run/x", "ldap://u:p@h", "ldaps://[::1]:636", "ldap://localhost", "://"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := (&Config{}).endpoint(text, nil)
		switch {
		case err == nil && (e.name == "" || e.addr == "" || e.network == ""):
			t.Fatalf("%q: %+v", text, e)
		case err == nil && e.tls == nil && e.network != "unix" && !strings.HasPrefix(strings.ToLower(text), "ldap:"):
			t.Fatalf("%q is spoken to in clear text", text)
		case err != nil && strings.Contains(text, "@") && len(text) > 8 && strings.Contains(err.Error(), text):
			t.Fatalf("%q is repeated: %v", text, err)
		}
	})
}
