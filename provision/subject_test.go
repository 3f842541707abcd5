package provision

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"

	"tokendesk/vault/secret"
)

func TestParseSubject(t *testing.T) {
	for in, want := range map[string]string{
		"CN=alice": "CN=alice",
		"cn=Alice Example, o=Example\\, Inc.,C=DE": "CN=Alice Example,O=Example\\, Inc.,C=DE",
		`CN=J\C3\BCrgen`: "CN=Jürgen",
		"CN=\\ alice\\ ": "CN=\\ alice\\ ",
	} {
		der, err := parseSubject(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if got := nameOf(t, der); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
	for in, want := range map[string]string{
		"DC=example": "\x16\x07example", "emailAddress=a@example.org": "\x16\x0da@example.org", "C=DE": "\x13\x02DE", "UID=alice": "\x0c\x05alice",
	} { // IA5String, PrintableString and UTF8String
		if der, err := parseSubject(in); err != nil || !strings.HasSuffix(string(der), want) {
			t.Errorf("%s became %x, %v", in, der, err)
		}
	}
	for _, bad := range []string{
		"", "alice", "CN=", "CN=a,", "X=1", "CN=a+O=b", "CN=a\nb", "CN=\\00", "CN=\\zz", "C=Ü", "DC=ü", "CN=a\\", "CN=\\C3,O=x", "CN=#30",
		strings.Repeat("CN=a,", 20) + "CN=b", "CN=" + strings.Repeat("a", 500), "CN=\xff",
	} {
		if der, err := parseSubject(bad); !isRefused(err) {
			t.Errorf("%q became %s, %v", bad, nameOf(t, der), err)
		}
	}
}

func nameOf(t *testing.T, der []byte) string {
	t.Helper()
	var sequence pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &sequence); err != nil || len(rest) > 0 {
		t.Fatalf("%x: %v", der, err)
	}
	var name pkix.Name
	name.FillFromRDNSequence(&sequence)
	return name.String()
}

// Whatever a user's name is, it comes out of a request as it went in; whatever else is given, it is refused or is DER.
func FuzzSubject(f *testing.F) {
	for _, seed := range []string{"alice", `CN=Alice\, A.,O=Example`, " ", `a\`, "#", "ü", "C=DE", `CN=\C3\BC`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if der, err := parseSubject(s); err == nil {
			nameOf(t, der)
		} else if !isRefused(err) {
			t.Errorf("%q: %v", s, err)
		}
		der, err := parseSubject("CN=" + escapeName(s))
		if err != nil {
			return
		}
		var sequence pkix.RDNSequence
		if _, err := asn1.Unmarshal(der, &sequence); err != nil || len(sequence) != 1 || sequence[0][0].Value != s {
			t.Errorf("%q became %v, %v", s, sequence, err)
		}
	})
}

func TestRandomDigits(t *testing.T) {
	seen, digits := map[string]bool{}, [10]int{}
	for range 2000 {
		s := randomDigits(pukDigits)
		if s.Len() != pukDigits || obvious(s.Reveal()) || strings.Trim(string(s.Reveal()), "0123456789") != "" {
			t.Error("these are no digits to be used")
		}
		for _, c := range s.Reveal() {
			digits[c-'0']++
		}
		seen[string(s.Reveal())] = true
		s.Wipe()
	}
	if len(seen) < 1990 {
		t.Errorf("only %d of 2000 differ", len(seen))
	}
	for d, n := range digits {
		if n < 1300 || n > 1900 { // 1600, and more than seven standard deviations
			t.Errorf("digit %d came %d times among 16000", d, n)
		}
	}
	for pin, want := range map[string]bool{
		"123456": true, "12345678": true, "654321": true, "000000": true, "88888888": true, "234567": true,
		"123457": false, "112233": false, "13579135": false, "": false,
	} {
		s := secret.New([]byte(pin))
		if got := obvious(s.Reveal()); got != want {
			t.Errorf("%q: %v", pin, got)
		}
		s.Wipe()
	}
}
