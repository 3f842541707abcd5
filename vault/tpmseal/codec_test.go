package tpmseal

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/stretch"
)

// example is a blob of which every byte is given, with a counter and with or without a PIN. No TPM has made it.
func example(t testing.TB, withPIN bool) *blob {
	t.Helper()
	digits := func(s string, n int) []byte { return []byte(strings.Repeat(s, n)[:n]) }
	c := counter{firstIndex + 2, append([]byte{0, 0x0B}, digits("name ", 32)...)}
	b := &blob{version: blobVersion, srk: append([]byte{0, 0x0B}, digits("root ", 32)...), private: digits("private ", 100),
		mark: vault.Mark{Counter: c.encode(), Value: 0x0102030405060708}}
	if withPIN {
		b.recipe = stretch.Recipe{Params: stretch.Minimum(), Salt: [16]byte(digits("salt ", 16))}.Encode()
	} else {
		b.auth = digits("auth ", authSize)
	}
	public, err := b.template()
	if err != nil {
		t.Fatal(err)
	}
	b.public = tpm2.Marshal(public)
	return b
}

func exampleSecrets() (plain, object, half secret.Secret) {
	return secret.New([]byte("what the vault hangs from")), secret.New([]byte("0123456789abcdef0123456789abcdef")),
		secret.New([]byte("fedcba9876543210fedcba9876543210"))
}

// These blobs were made when format 2 was new. If they do not open, vaults that exist do not open either: the layout,
// the policy, the public area and the derivation of the key may never change within a version.
func TestGolden(t *testing.T) {
	plain, object, half := exampleSecrets()
	for name, c := range map[string]struct {
		pin  bool
		blob string
	}{
		"PIN":    {true, goldenPIN},
		"no PIN": {false, goldenNoPIN},
	} {
		want := example(t, c.pin)
		raw, err := hex.DecodeString(c.blob)
		if err != nil {
			t.Fatal(err)
		}
		b, err := decodeBlob(raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(b.head(), want.head()) {
			t.Errorf("%s: the head is now\n%x, was\n%x", name, want.head(), b.head())
		}
		k := half
		if !c.pin {
			k = secret.Secret{}
		}
		if got, err := b.open(object, k); err != nil || !got.Equal(plain) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What the TPM and the HKDF get of a stretched PIN.
	recipe := example(t, true).recipe
	k, err := splitKey(secret.New(append(bytes.Clone(recipe), []byte("0123456789abcdefghijklmnfedcba9876543210fedcba9876543210")...)))
	if err != nil || !bytes.Equal(k.recipe, recipe) || string(k.auth.Reveal()) != "MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1u" || !k.half.Equal(half) {
		t.Errorf("a key is split otherwise (%v)", err)
	}
}

func TestFingerprintIsStable(t *testing.T) {
	// The base point of P-256 stands for a key.
	point, err := hex.DecodeString("00206b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296" +
		"00204fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Fingerprint(append(bytes.Clone(templateHead), point...))
	if want := goldenFingerprint; err != nil || got != want {
		t.Errorf("%q (%v), want %q", got, err, want)
	}
}

func FuzzDecodeBlob(f *testing.F) {
	plain, object, half := exampleSecrets()
	for _, withPIN := range []bool{true, false} {
		b := example(f, withPIN)
		if err := b.seal(plain, object, half); err != nil {
			f.Fatal(err)
		}
		f.Add(b.encode())
		b.version = oldVersion
		b.auth = []byte("auth")
		f.Add(b.encode())
	}
	f.Add([]byte{})
	f.Add([]byte{1, 0xFF, 0xFF})
	f.Add([]byte{2, 0xFF, 0xFF})
	f.Fuzz(func(t *testing.T, p []byte) {
		b, err := decodeBlob(p)
		if err != nil {
			return
		}
		if again := b.encode(); !bytes.Equal(again, p) {
			t.Errorf("decoded %x, encoded %x", p, again)
		}
		if _, err := b.open(object, half); b.version == blobVersion && err == nil && !bytes.Equal(b.head(), example(t, b.hasPIN()).head()) {
			t.Error("an altered head opens")
		}
	})
}

func FuzzParseCounter(f *testing.F) {
	f.Add(counter{firstIndex, make([]byte, nameSize)}.encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, p []byte) {
		c, err := parseCounter(p)
		if err == nil && (!bytes.Equal(c.encode(), p) || c.handle < firstIndex || c.handle > lastIndex) {
			t.Errorf("parsed %x as %x", p, c.encode())
		}
	})
}

func FuzzParent(f *testing.F) {
	f.Add(tpm2.Marshal(tpm2.ECCSRKTemplate))
	f.Add(append(bytes.Clone(templateHead), 0, 1, 1, 0, 1, 1))
	f.Fuzz(func(t *testing.T, p []byte) {
		parent, err := parseParent(p)
		if err != nil {
			return
		}
		if !bytes.Equal(tpm2.Marshal(parent.public), p) {
			t.Errorf("parsed %x as %x", p, tpm2.Marshal(parent.public))
		}
		if _, err := Wrap(p, secret.Random(8)); err != nil {
			t.Errorf("parsed, but: %v", err)
		}
	})
}

func FuzzDecodeWrapped(f *testing.F) {
	w := wrapped{make([]byte, nameSize), tpm2.Marshal(wrappedPublic(make([]byte, 32))), []byte("duplicate"), []byte("seed")}
	f.Add(w.encode())
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, p []byte) {
		w, err := decodeWrapped(p)
		if err == nil && !bytes.Equal(w.encode(), p) {
			t.Errorf("decoded %x, encoded %x", p, w.encode())
		}
	})
}

func FuzzSplitKey(f *testing.F) {
	f.Add(make([]byte, stretch.Size+rawAuthSize+halfSize))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, p []byte) {
		n := len(p)
		k, err := splitKey(secret.New(bytes.Clone(p)))
		if err == nil && n != 0 && (checkAuth(k.auth.Reveal()) != nil || k.half.Len() != halfSize) {
			t.Errorf("split %x", p)
		}
	})
}

const (
	goldenPIN         = "020022000b726f6f7420726f6f7420726f6f7420726f6f7420726f6f7420726f6f7420726f004e0008000b000000120020fe2546f5f3594e7519a770a670611b7b91f62dff392668d7bbfa2800d4938ef700100020000000000000000000000000000000000000000000000000000000000000000000647072697661746520707269766174652070726976617465207072697661746520707269766174652070726976617465207072697661746520707269766174652070726976617465207072697661746520707269766174652070726976617465207072697600270101800002000b6e616d65206e616d65206e616d65206e616d65206e616d65206e616d65206e61010203040506070800190000000200004c000173616c742073616c742073616c74207300000035d19036718c8d23c89b21fbfba1e97e86ca2bf03ec2bb35ddffd6714c8fbbdf3269848a3fd413909c176bf157064564164bbf0d6a99"
	goldenNoPIN       = "020022000b726f6f7420726f6f7420726f6f7420726f6f7420726f6f7420726f6f7420726f004e0008000b000004120020fe2546f5f3594e7519a770a670611b7b91f62dff392668d7bbfa2800d4938ef700100020000000000000000000000000000000000000000000000000000000000000000000647072697661746520707269766174652070726976617465207072697661746520707269766174652070726976617465207072697661746520707269766174652070726976617465207072697661746520707269766174652070726976617465207072697600270101800002000b6e616d65206e616d65206e616d65206e616d65206e616d65206e616d65206e610102030405060708000000206175746820617574682061757468206175746820617574682061757468206175003534582a604be4b252e393083af868b42bbf8f1ae55ba6c57db4658be568df9335583dea40b4596388a30956372d90756b132ffa003e"
	goldenFingerprint = "1a64 022e e233 e851 7496 0206 6f1e f4ce"
)
