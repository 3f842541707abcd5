package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"tokendesk/cmd/internal/api"
)

func testCertificate(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// FuzzOneCertificate has whatever file come in the place of a certificate.
func FuzzOneCertificate(f *testing.F) {
	der := testCertificate(f)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	f.Add(der)
	f.Add(text)
	f.Add(append(bytes.Clone(text), text...))
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := oneCertificate(data)
		if err != nil {
			return
		}
		if _, err := x509.ParseCertificate(found); err != nil {
			t.Fatalf("%x is taken for a certificate: %v", found, err)
		}
		if block, rest := pem.Decode(data); !bytes.Equal(found, data) && (block == nil || bytes.Contains(rest, []byte("-----BEGIN CERTIFICATE-----")) && oneMore(rest)) {
			t.Fatalf("one certificate is taken out of %q", data)
		}
	})
}

// oneMore tells whether there is a further certificate.
func oneMore(rest []byte) bool {
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return false
		}
		if block.Type == "CERTIFICATE" {
			return true
		}
	}
}

func TestKeyWishes(t *testing.T) {
	for words, want := range map[string]api.PIVWish{
		"9a":                      {Slot: "9a"},
		"9C:ECCP384":              {Slot: "9c", Algorithm: "eccp384"},
		"82:rsa2048:never:cached": {Slot: "82", Algorithm: "rsa2048", PINPolicy: "never", TouchPolicy: "cached"},
		"9e:::always":             {Slot: "9e", TouchPolicy: "always"},
		"95::once":                {Slot: "95", PINPolicy: "once"},
	} {
		if got, err := keyWish(words); err != nil || got != want {
			t.Errorf("%s: %+v, %v", words, got, err)
		}
	}
	for _, words := range []string{"", "9b", "96", "81", "f9", "9a:rsa1024", "9a:x25519", "9a::sometimes", "9a:::once", "9a::::", "9a,9c"} {
		if got, err := keyWish(words); err == nil {
			t.Errorf("%q is taken for %+v", words, got)
		}
	}
}
