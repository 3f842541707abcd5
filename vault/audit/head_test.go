package audit

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"tokendesk/vault/secret"
)

const goldenHead = "tokendesk audit head v1 vault=WZ5UB6PT6ZC7JYBFNO4C3ATQLH seq=3 hash=f39aefe5bc1c850db3e59e22e444b608f3c59534bbed3082195d6f14a4470393 " +
	"epoch=99 counter=7099 time=2026-03-04T06:06:07.123456789Z key=tokendesk-audit-key:7kOPbSHd5mWF1a8bBzRCqV7EeYqA6njYoixQBhA456s " +
	"signature=JYI7fl1iFZefBvN/CCoo7ZpdYXCaAw7XsE3vcYfb0+BWFvHr75crPu8xIZsPwjgSIWzW+8JIOy7Lg0CvIkiCDw=="

func TestHeadNeverChanges(t *testing.T) {
	if got := testHead(t, testChain(t, 3)[2].Point()).String(); got != goldenHead {
		t.Errorf("the head's line is\n%s", got)
	}
	if k := testKey(t); k.String() != "tokendesk-audit-key:7kOPbSHd5mWF1a8bBzRCqV7EeYqA6njYoixQBhA456s" || k.Fingerprint() != "6605-eddd-c7c5-b664-a61c-85d4-a8be-6419" {
		t.Errorf("key %s, fingerprint %s", k, k.Fingerprint())
	}
}

func TestEveryFieldOfAHeadIsSigned(t *testing.T) {
	h := testHead(t, testChain(t, 3)[2].Point())
	if err := h.Verify(testKey(t)); err != nil {
		t.Fatal(err)
	}
	fields := 0
	mutants(h, func(field string, mutant Head) {
		fields++
		if mutant.Verify(testKey(t)) == nil {
			t.Errorf("another %s is not noticed", field)
		}
		if mutant.Verify(mutant.Key) == nil {
			t.Errorf("another %s is not noticed by the head's own key", field)
		}
	})
	if fields != 8 {
		t.Errorf("%d fields were tried", fields)
	}
}

func TestHeadIsRefused(t *testing.T) {
	good := testHead(t, testChain(t, 1)[0].Point())
	otherSeed := secret.New([]byte("another seed of 32 bytes........"))
	other, err := good.Sign(otherSeed)
	if err != nil {
		t.Fatal(err)
	}
	resign := func(change func(*Head)) Head {
		h := good
		change(&h)
		return h
	}
	for name, c := range map[string]struct {
		head  Head
		key   Key
		words string
	}{
		"other key":       {other, testKey(t), "another audit key, " + other.Key.Fingerprint()},
		"no key":          {good, Key{}, "no audit key"},
		"no signature":    {resign(func(h *Head) { h.Signature = nil }), testKey(t), "signature is wrong"},
		"short signature": {resign(func(h *Head) { h.Signature = h.Signature[:63] }), testKey(t), "signature is wrong"},
		"other zone":      {resign(func(h *Head) { h.Time = h.Time.In(time.FixedZone("", 60)) }), testKey(t), "a time"},
		"zero":            {Head{}, Key{}, "no audit key"},
	} {
		if err := c.head.Verify(c.key); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	const word = "too-short"
	for _, h := range []Head{{}, {Vault: "two words"}, {Vault: "new\nline"}, {Vault: strings.Repeat("x", 65)}} {
		if _, err := h.Sign(testSeed()); err == nil {
			t.Errorf("%q has signed", h.Vault)
		}
	}
	if _, err := (Head{Vault: testVault}).Sign(secret.New([]byte(word))); err == nil || strings.Contains(err.Error(), word) {
		t.Error(err)
	}
	if k, err := KeyOf(secret.New([]byte(word))); err == nil || strings.Contains(err.Error(), word) || k != (Key{}) {
		t.Error(err)
	}
}

func TestSeedStays(t *testing.T) {
	seed := testSeed()
	h, err := Head{Vault: testVault}.Sign(seed)
	if err != nil || !seed.Equal(testSeed()) {
		t.Fatal("signing used the seed up", err)
	}
	if err := h.Verify(testKey(t)); err != nil {
		t.Error(err)
	}
}

func TestParseHead(t *testing.T) {
	want := testHead(t, testChain(t, 2)[1].Point())
	for _, before := range []string{"", "Mar 04 05:06:07 desk tokendeskd[1]: "} {
		for _, after := range []string{"", "\n", "\r\n"} {
			got, err := ParseHead(before + want.String() + after)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%q %q: %+v, %v", before, after, got, err)
			}
		}
	}
	line := want.String()
	for _, bad := range []string{
		"", "\n", headDomain, headDomain + " ", line + " ", line + "x", line + " more=1", line[:len(line)-1], line + "\n" + line,
		strings.Replace(line, "seq=2", "seq=02", 1), strings.Replace(line, "seq=2", "seq=+2", 1), strings.Replace(line, "seq=2", "seq=-2", 1),
		strings.Replace(line, "seq=2", "seq=99999999999999999999", 1), strings.Replace(line, " seq", "  seq", 1),
		strings.Replace(line, "vault=", "vault=\x1b", 1), strings.Replace(line, "v1", "v2", 1), strings.Replace(line, "Z key", "+00:00 key", 1),
		headDomain + " vault=" + strings.Repeat("x", 1<<20),
	} {
		if h, err := ParseHead(bad); err == nil || !reflect.DeepEqual(h, Head{}) {
			t.Errorf("%.100q was accepted", bad)
		}
	}
}

func TestLineOfAHeadIsDamaged(t *testing.T) {
	line := goldenHead
	for i := range len(line) {
		for bit := range 8 {
			bad := []byte(line)
			bad[i] ^= 1 << bit
			if h, err := ParseHead(string(bad)); err == nil && h.Verify(testKey(t)) == nil {
				t.Errorf("bit %d of byte %d: %s", bit, i, bad)
			}
		}
	}
}

func TestParseKey(t *testing.T) {
	want := testKey(t)
	text := want.String()
	for _, good := range []string{text, " " + text + "\n", text + "\r\n"} {
		if got, err := ParseKey(good); err != nil || got != want {
			t.Errorf("%q: %v", good, err)
		}
	}
	bare := strings.TrimPrefix(text, keyPrefix)
	for _, bad := range []string{
		"", keyPrefix, bare, keyPrefix + keyPrefix + bare, text + "=", text[:len(text)-1], text + "A", text[:30] + "\n" + text[30:], strings.ToUpper(text),
		keyPrefix + strings.Repeat("A", 43), text[:len(text)-1] + "_", // not the zero key; no stray bits at the end
	} {
		if got, err := ParseKey(bad); err == nil || got != (Key{}) {
			t.Errorf("%q was accepted", bad)
		}
	}
	var fromJSON Key
	if b, err := json.Marshal(want); err != nil || string(b) != `"`+text+`"` || json.Unmarshal(b, &fromJSON) != nil || fromJSON != want {
		t.Errorf("%s, %v", b, err)
	}
}

func FuzzParseHead(f *testing.F) {
	f.Add(goldenHead)
	f.Add("desk: " + testHead(f, Point{}).String() + "\n")
	f.Fuzz(func(t *testing.T, line string) {
		h, err := ParseHead(line)
		if err != nil {
			return
		}
		if text := h.String(); !strings.HasSuffix(strings.TrimRight(line, "\r\n"), text) {
			t.Fatalf("%q became %q", line, text)
		}
		if again, err := ParseHead(h.String()); err != nil || !reflect.DeepEqual(again, h) {
			t.Fatalf("%+v became %+v, %v", h, again, err)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	f.Add(testKey(f).String())
	f.Add(keyPrefix + "AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		if k, err := ParseKey(text); err == nil && k.String() != strings.TrimSpace(text) {
			t.Fatalf("%q became %q", text, k)
		}
	})
}
