package syncer

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestSeenIsKept(t *testing.T) {
	keys := providerKeys([]string{"ldap1:636", "ldap2:636"})
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	var s seen
	s.renew(2, now)
	for p, n := range map[string]uint64{"ldap1:636": 8, "ldap2:636": 1<<63 - 1} {
		if _, known := s.note(keys[p], n, now); known {
			t.Errorf("%s was known before", p)
		}
	}
	s.start(sighted{keys["ldap1:636"], 9, 8, now.Add(-time.Hour), now, time.Time{}})
	text := s.encode(keys, now)
	again := parseSeen(text)
	if again.encode(keys, now) != text {
		t.Errorf("%q becomes %q", text, again.encode(keys, now))
	}
	if before, known := again.note(keys["ldap1:636"], 7, now.Add(time.Minute)); !known || before.counter != 8 || !before.since.Equal(now) {
		t.Errorf("it had shown %+v, known %t", before, known)
	}
	open := again.open(keys["ldap1:636"])
	if open == nil || again.open(keys["ldap2:636"]) != nil {
		t.Fatalf("of %q, open is %+v", text, again)
	}
	want := Rollback{"yk-1/otp1", "ldap1:636", 9, 8, now.Add(-time.Hour), now, time.Time{}}
	if got := open.rollback("yk-1/otp1", keys); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestSeenIsShort(t *testing.T) {
	keys := providerKeys([]string{"ldap1.example.org:636", "ldap2.example.org:636"})
	var s seen
	s.renew(1, time.Now())
	for _, k := range keys {
		s.note(k, 1234, time.Now())
	}
	if text := s.encode(keys, time.Now()); len(text) > 32 {
		t.Errorf("%d bytes: %q", len(text), text)
	}
}

func TestSeenForgets(t *testing.T) {
	keys := providerKeys([]string{"a", "b"})
	now := time.Now().UTC().Truncate(time.Second)
	var s seen
	s.renew(1, now)
	s.note(keys["a"], 1, now)
	s.note("gone", 2, now)
	s.start(sighted{keys["a"], 3, 1, now, now, now})
	s.start(sighted{keys["b"], 3, 1, now, now, time.Time{}})
	if text := s.encode(keys, now); strings.Contains(text, "gone") || strings.Count(text, "!") != 2 {
		t.Errorf("after a moment: %q", text)
	}
	late := now.Add(rollbackKept + time.Second)
	if text := s.encode(keys, late); strings.Count(text, "!") != 1 || !strings.Contains(text, "!"+keys["b"]) {
		t.Errorf("after %v: %q", rollbackKept, text)
	}
	if over := s.renew(2, late); len(over) != 1 || over[0].provider != keys["b"] || !over[0].repaired.Equal(late) {
		t.Errorf("over with the new seed: %+v", over)
	}
	if len(s.at) != 0 || s.open(keys["b"]) != nil {
		t.Errorf("left of the old seed: %+v", s)
	}
}

func TestProviderKeysDiffer(t *testing.T) {
	var many []string
	for i := range 20_000 { // four letters are not enough for so many
		many = append(many, fmt.Sprint("ldap", i))
	}
	keys := providerKeys(many)
	used := map[string]bool{}
	for _, k := range keys {
		used[k] = true
	}
	if len(used) != len(many) {
		t.Errorf("%d keys for %d providers", len(used), len(many))
	}
	if a, b := providerKeys([]string{"x", "y"}), providerKeys([]string{"y"}); a["y"] != b["y"] {
		t.Errorf("the key of y depends on the others: %q, %q", a["y"], b["y"])
	}
}

func FuzzParseSeen(f *testing.F) {
	f.Add("2 kA3f.7s.tq0ji8 Xq2b.7s.tq0ji8 !kA3f.7s.5.tq0ji8.tq1000.0")
	f.Add("")
	f.Add("1 .. !..... a.zzzzzzzzzzzzzzzzz.1")
	f.Fuzz(func(t *testing.T, text string) {
		s := parseSeen(text)
		keys := map[string]string{}
		for _, x := range s.at {
			keys[x.provider] = x.provider
		}
		again := parseSeen(s.encode(keys, time.Time{}))
		if len(again.at) != len(s.at) || len(again.rollbacks) != len(s.rollbacks) || again.generation != s.generation {
			t.Fatalf("%q is %+v, and then %+v", text, s, again)
		}
		if twice := parseSeen(again.encode(keys, time.Time{})); !reflect.DeepEqual(twice, again) {
			t.Fatalf("%q does not settle: %+v, %+v", text, again, twice)
		}
	})
}
