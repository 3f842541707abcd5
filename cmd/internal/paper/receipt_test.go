package paper

import (
	"bytes"
	"fmt"
	"html"
	"net/url"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"tokendesk/vault/audit"
)

func verify(page []byte, key *audit.Key) (Proven, error) { return Verify(bytes.NewReader(page), key) }

// statementOf is the text that a page's QR code holds.
func statementOf(t testing.TB, page []byte) string {
	t.Helper()
	m := regexp.MustCompile(`<meta name="statement" content="([^"]*)">`).FindSubmatch(page)
	if m == nil {
		t.Fatal("the page has no statement")
	}
	return html.UnescapeString(string(m[1]))
}

func TestReceiptVerifies(t *testing.T) {
	key, r := testKey(t), testReceipt(t)
	page := render(t, r)
	want := r.Statement
	want.Format, want.Version, want.Time = statementFormat, statementVersion, want.Time.UTC()
	for what, c := range map[string]struct {
		text string
		key  *audit.Key
		page bool
	}{
		"page": {string(page), &key, true}, "page by its own key": {string(page), nil, true},
		"code": {statementOf(t, page), &key, false}, "code by its own key": {statementOf(t, page), nil, false},
		"code with a break": {statementOf(t, page) + "\n", &key, false}, "code from elsewhere": {statementOf(t, page) + "\r\n", &key, false},
	} {
		got, err := verify([]byte(c.text), c.key)
		if err != nil || got.Statement != want || got.Page != c.page {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
	if again := render(t, r); !bytes.Equal(again, page) {
		t.Error("the same receipt is printed in two ways")
	}
}

// everyByte calls fn for every place of a text, on all processors.
func everyByte(n int, fn func(int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range runtime.NumCPU() {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				fn(i)
			}
		})
	}
	all.Wait()
}

func TestEveryByteCounts(t *testing.T) {
	key := testKey(t)
	page := render(t, testReceipt(t))
	for what, text := range map[string][]byte{"page": page, "code": []byte(statementOf(t, page))} {
		refused := func(change string, at int, changed []byte) {
			if _, err := verify(changed, nil); err == nil { // by its own key: the caller's refuses no less
				t.Errorf("%s: byte %d %s, and it verifies", what, at, change)
			}
		}
		everyByte(len(text), func(i int) {
			changed := bytes.Clone(text)
			changed[i] ^= 1 << (i % 8)
			refused("changed", i, changed)
			if i%16 == 0 || i > len(text)-300 {
				refused("removed", i, append(bytes.Clone(text[:i]), text[i+1:]...))
				refused("doubled", i, append(append(bytes.Clone(text[:i]), text[i]), text[i:]...))
			}
		})
		for _, more := range []string{" ", "\t", "\x00", "\n\n", "x"} {
			refused("added at the end", len(text), append(bytes.Clone(text), more...))
			refused("added at the beginning", 0, append([]byte(more), text...))
		}
	}
	for _, end := range []string{"\n", "\r\n"} {
		if _, err := verify(append(bytes.Clone(page), end...), &key); err == nil {
			t.Errorf("a page with %q at its end verifies", end)
		}
	}
	if _, err := verify(bytes.ReplaceAll(page, []byte("\n"), []byte("\r\n")), &key); err == nil {
		t.Error("a page with other line breaks verifies")
	}
}

func TestForgeriesAreRefused(t *testing.T) {
	key, r := testKey(t), testReceipt(t)
	page := render(t, r)
	said := statementOf(t, page)
	forged := r
	seed := testSeed("b")
	defer seed.Wipe()
	var err error
	if forged.Key, err = audit.KeyOf(seed); err != nil {
		t.Fatal(err)
	}
	theirs, err := forged.Render(signWith("b"))
	if err != nil {
		t.Fatal(err)
	}
	mixed := bytes.Replace(theirs, []byte(html.EscapeString(statementOf(t, theirs))), []byte(html.EscapeString(said)), 1)
	last := bytes.LastIndexByte(trimLast(page), '\n') + 1
	asPage, err := sealed([]byte("<p>nothing</p>\n"), key, sign)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ text, want string }{
		"another key":             {string(theirs), "another key"},
		"another key's code":      {statementOf(t, theirs), "another key"},
		"another page":            {string(mixed), "another key"},
		"two signatures":          {string(page) + string(page[last:]), "the signature is wrong"},
		"no signature":            {string(page[:last]), "last line"},
		"a page without a code":   {string(asPage), "no statement"},
		"nothing":                 {"", "last line"},
		"another file":            {"<!DOCTYPE html>\n", "last line"},
		"half of a code":          {said[:len(said)/2], "not whole"},
		"an empty code":           {statementStart + signatureStart + signatureEnd, "signature is damaged"},
		"a code without an end":   {statementStart + signatureStart + `"`, "not whole"},
		"more than a receipt has": {strings.Repeat("x", MaxDocument+1), "longer than"},
	} {
		if _, err := verify([]byte(c.text), &key); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", what, err, c.want)
		}
	}
}

// A statement of a later version is called that, and not a forgery.
func TestLaterVersion(t *testing.T) {
	key := testKey(t)
	said := []byte(fmt.Sprintf(`{"tokendesk":"receipt","v":2,"key":%q`, key))
	s, err := sign(audit.ReceiptStatement, said)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify([]byte(string(said)+signatureStart+s.String()+signatureEnd), &key); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("%v", err)
	}
}

// The head on a receipt is one that audit verify takes from the page.
func TestReceiptShipsAHead(t *testing.T) {
	r := testReceipt(t)
	for line := range strings.Lines(string(render(t, r))) {
		if strings.Contains(line, "tokendesk audit head ") {
			if h, err := audit.ParseHead(line); err != nil || h.String() != r.Head.String() || h.Verify(testKey(t)) != nil {
				t.Errorf("%q: %v", line, err)
			}
			return
		}
	}
	t.Error("the page has no line with a head")
}

// elsewhere finds what would have a browser ask another computer, or run something.
var elsewhere = regexp.MustCompile(`(?i)<script|<link|<img|<iframe|<object|<embed|<form|javascript:|https?:|url\(|@import|\bon[a-z]+=|\bsrc=|\bhref=`)

const hostileText = "\"'><script>alert(1)</script><img src=x onerror=y>--><!-- \x1b[31m\u202e&#0; javascript:x `{{.}}`\n"

func TestHostileWordsStayWords(t *testing.T) {
	key, r := testKey(t), testReceipt(t)
	r.From, r.To, r.Officer, r.Reason, r.Old, r.OldSerial, r.OldStatus = hostileText, hostileText, hostileText, hostileText, hostileText, hostileText, hostileText
	r.Token, r.Serial, r.Type, r.Central, r.Firmware, r.Desk = hostileText, hostileText, hostileText, hostileText, hostileText, Imprint{hostileText, hostileText}
	r.Kind, r.Revoke = hostileText, []Certificate{{hostileText, hostileText, hostileText}}
	page := render(t, r)
	if _, err := verify(page, &key); err != nil {
		t.Fatal(err)
	}
	for _, tag := range regexp.MustCompile(`<[^>]*>`).FindAllString(string(page), -1) {
		if found := elsewhere.FindString(html.UnescapeString(strings.ReplaceAll(tag, html.EscapeString(statementOf(t, page)), ""))); found != "" && !strings.HasPrefix(tag, "<meta name=\"statement\"") {
			t.Errorf("%q in %q", found, tag)
		}
	}
	if strings.ContainsAny(string(page), "\x1b\u202e") {
		t.Error("the page has control characters")
	}
	if n := strings.Count(string(page), "<!--"); n != 1 {
		t.Errorf("%d comments, and not the signature alone", n)
	}
	if found := elsewhere.FindString(string(render(t, testReceipt(t)))); found != "" {
		t.Errorf("the page has %q", found)
	}
}

// The longest texts that the desk lets in are printed, and their QR code can be made.
func TestLongestReceipt(t *testing.T) {
	key, r := testKey(t), testReceipt(t)
	long := strings.Repeat(`"`, 300) // each is two bytes in JSON
	r.Vault, r.From, r.To, r.Officer, r.Reason = strings.Repeat("v", 64), long, long, long, long
	r.Kind, r.Token, r.Serial, r.Old, r.OldSerial, r.OldStatus = Kind(strings.Repeat("k", 20)), "yk-4294967295/otp2", "4294967295", "yk-4294967294/otp2", "4294967294", "compromised"
	r.Number, r.Seq, r.Offline, r.Emulated = 1<<64-1, 1<<64-1, true, true
	r.Proof = Proof{Codes: 3, Generation: 1 << 30, Counter: 1<<64 - 4, OldGeneration: 1 << 30, OldFrom: 1<<64 - 1, OldWindow: 10000, Typed: true}
	for range 24 {
		r.Revoke = append(r.Revoke, Certificate{strings.Repeat("f", 40), long, long})
	}
	page := render(t, r)
	if got, err := verify(page, &key); err != nil || len(got.To) > maxName || len(got.Reason) > maxReason {
		t.Errorf("%+v, %v", got, err)
	}
	t.Logf("%d bytes, %d of them in the code", len(page), len(statementOf(t, page)))
}

func TestSigningMayFail(t *testing.T) {
	r := testReceipt(t)
	calls := 0
	for fail := 1; fail <= 2; fail++ {
		calls = 0
		page, err := r.Render(func(k audit.Kind, text []byte) (audit.Signature, error) {
			if calls++; calls == fail {
				return audit.Signature{}, fmt.Errorf("the vault is locked")
			}
			return sign(k, text)
		})
		if page != nil || err == nil || !strings.Contains(err.Error(), "the vault is locked") {
			t.Errorf("%d: %q, %v", fail, page, err)
		}
	}
}

// Whatever verifies with the key is one of the texts that were signed with it.
func FuzzVerify(f *testing.F) {
	key := testKey(f)
	page := render(f, testReceipt(f))
	said := statementOf(f, page)
	signed := map[string]bool{string(page): true, said: true, said + "\n": true, said + "\r\n": true, said + "\r": true}
	for text := range signed {
		f.Add([]byte(text))
	}
	f.Add([]byte(fmt.Sprintf(seal, key, audit.Signature{})))
	f.Add([]byte(statementStart + signatureStart + audit.Signature{}.String() + signatureEnd))
	f.Add([]byte(url.QueryEscape(said)))
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := verify(text, &key); (err == nil) != signed[string(text)] {
			t.Errorf("%q: %v", text, err)
		}
		verify(text, nil) // a key of its own may prove it
	})
}
