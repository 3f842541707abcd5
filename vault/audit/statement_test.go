package audit

import (
	"strings"
	"testing"
)

const testText = "yk-10000001/otp2 is bob's now"

func testSignature(t testing.TB) Signature {
	s, err := SignText(ReceiptPage, []byte(testText), testSeed())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The signature was made a second time, by openssl, of what statement and frame say.
func TestStatementNeverChanges(t *testing.T) {
	const want = "1ydhNG27U1FwQ_GXBsn-SDSmeBqL5AAg2XQ9Yr7hcMiNcqy5fHwSyPLs6kNZF4cb66NGfEAI34bBCnfAuX7NBA"
	if got := testSignature(t).String(); got != want {
		t.Errorf("it is %s", got)
	}
}

func TestStatementVerifiesAsWhatItIs(t *testing.T) {
	key, s := testKey(t), testSignature(t)
	if err := key.VerifyText(ReceiptPage, []byte(testText), s); err != nil {
		t.Fatal(err)
	}
	mutants(s, func(_ string, other Signature) {
		if key.VerifyText(ReceiptPage, []byte(testText), other) == nil {
			t.Error("another signature verifies")
		}
	})
	other := key
	other[0] ^= 1
	for what, err := range map[string]error{
		"another text":                   key.VerifyText(ReceiptPage, []byte(testText+"."), s),
		"another kind":                   key.VerifyText(ReceiptStatement, []byte(testText), s),
		"another key":                    other.VerifyText(ReceiptPage, []byte(testText), s),
		"no key":                         (Key{}).VerifyText(ReceiptPage, []byte(testText), s),
		"a head as a statement":          key.VerifyText(headDomain, []byte(testText), Signature(testHead(t, testChain(t, 1)[0].Point()).Signature)),
		"a statement as that of another": key.VerifyText("tokendesk", []byte(" receipt v1"+testText), s),
	} {
		if err == nil {
			t.Errorf("%s verifies", what)
		}
	}
}

func TestOnlyKnownKindsAreSigned(t *testing.T) {
	for _, kind := range []Kind{"", headDomain, "tokendesk receipt", "tokendesk receipt v2"} {
		if _, err := SignText(kind, []byte(testText), testSeed()); err == nil {
			t.Errorf("%q is signed", kind)
		}
	}
}

func TestSignatureHasOneForm(t *testing.T) {
	s := testSignature(t)
	text := s.String()
	var got Signature
	if err := got.UnmarshalText([]byte(text)); err != nil || got != s {
		t.Fatalf("%v, %v", got, err)
	}
	last := strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", text[len(text)-1])
	for _, bad := range []string{
		"", text[1:], text + "=", text + "==", text + "\n", " " + text, text[:40] + "\n" + text[40:], strings.Replace(text, text[:1], "+", 1),
		text[:len(text)-1] + string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last^1]), // bits that say nothing
	} {
		if new(Signature).UnmarshalText([]byte(bad)) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
