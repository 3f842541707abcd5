package passseal

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/stretch"
)

func word(s string) secret.Secret { return secret.New([]byte(s)) }

func cheap(t testing.TB) *Sealer {
	t.Helper()
	s, err := NewWithParams(stretch.Minimum())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func key(t testing.TB, s *Sealer, passphrase string, blob []byte) secret.Secret {
	t.Helper()
	k, err := s.Key(word(passphrase), blob)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sealed(t testing.TB, s *Sealer, passphrase string, plain secret.Secret) []byte {
	t.Helper()
	blob, err := s.Seal(plain, key(t, s, passphrase, nil), vault.Mark{})
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

func state(err error) vault.State {
	var s *vault.StateError
	if errors.As(err, &s) && s.Cure != "" {
		return s.State
	}
	return ""
}

func TestSealUnseal(t *testing.T) {
	plain := secret.Random(32)
	s := cheap(t)
	blob := sealed(t, s, "one", plain)
	if bytes.Contains(blob, plain.Reveal()) {
		t.Error("the blob shows the secret")
	}
	got, err := s.Unseal(blob, key(t, s, "one", blob))
	if err != nil || !got.Equal(plain) {
		t.Fatalf("unseal: %v", err)
	}
	// The costs come from the blob: another sealer's own do not matter.
	if got, err := New().Unseal(blob, key(t, New(), "one", blob)); err != nil || !got.Equal(plain) {
		t.Fatalf("unseal with other costs: %v", err)
	}
	if _, err := s.Unseal(blob, key(t, s, "two", blob)); state(err) != vault.StateWrongPassphrase {
		t.Errorf("another passphrase: %v", err)
	}
	if _, err := s.Unseal(blob, key(t, s, "one", nil)); state(err) != vault.StateWrongPassphrase {
		t.Errorf("a key of another salt: %v", err)
	}
	if s.Level() != vault.LevelPassphrase || s.Kind() != "passphrase" {
		t.Errorf("level %s, kind %s", s.Level(), s.Kind())
	}
}

// This blob was written before the sealer took keys: format 1 opens for ever.
func TestOldBlobOpens(t *testing.T) {
	blob, err := hex.DecodeString("010000000200004c00015f9f8b93c2fa1454f140649588e94d03b58e8e4aea9248fccdc25f86e7447e0514007f6674458d066d2195addd52be26b29e6a6f41b3de100e835f9df11113b27370bbdbec51fc34f4b179c7")
	if err != nil {
		t.Fatal(err)
	}
	s := cheap(t)
	got, err := s.Unseal(blob, key(t, s, "old passphrase", blob))
	if err != nil || string(got.Reveal()) != "0123456789abcdef0123456789abcdef" {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
	if again := sealed(t, s, "x", got); len(again) != len(blob) || again[0] != blob[0] {
		t.Errorf("a new blob has version %d and %d bytes, the old one %d and %d", again[0], len(again), blob[0], len(blob))
	}
}

func TestKeyIsNotThePassphrase(t *testing.T) {
	k := key(t, cheap(t), "correct horse battery", nil)
	if bytes.Contains(k.Reveal(), []byte("correct")) {
		t.Error("the key carries the passphrase")
	}
	if k.Equal(key(t, cheap(t), "correct horse battery", nil)) {
		t.Error("two fresh keys are the same")
	}
}

func TestEmptyPassphraseIsRefused(t *testing.T) {
	s := cheap(t)
	if _, err := s.Key(secret.Secret{}, nil); state(err) != vault.StateWrongPassphrase {
		t.Error(err)
	}
	if _, err := s.Seal(secret.Random(32), secret.Secret{}, vault.Mark{}); state(err) != vault.StateWrongPassphrase {
		t.Error(err)
	}
	if _, err := s.Unseal(sealed(t, s, "x", secret.Random(32)), secret.Random(9)); state(err) != vault.StateWrongPassphrase {
		t.Error(err)
	}
	if _, err := Fixed(secret.Secret{}, stretch.Minimum()); state(err) != vault.StateWrongPassphrase {
		t.Error(err)
	}
}

func TestSealRefusesWhatItCannotKeep(t *testing.T) {
	s := cheap(t)
	k := key(t, s, "x", nil)
	for _, m := range []vault.Mark{{Counter: []byte("counter")}, {Value: 1}} {
		if _, err := s.Seal(secret.Random(32), k, m); err == nil || !strings.Contains(err.Error(), "no counter") {
			t.Errorf("%+v: %v", m, err)
		}
	}
	for _, n := range []int{0, maxBlob} {
		if _, err := s.Seal(secret.Random(n), k, vault.Mark{}); err == nil {
			t.Errorf("sealed %d bytes", n)
		}
	}
}

func TestCostsAreBounded(t *testing.T) {
	if _, err := NewWithParams(stretch.Params{}); err == nil {
		t.Error("accepted no costs at all")
	}
	s := cheap(t)
	blob := sealed(t, s, "x", secret.Random(32))
	for _, memory := range []uint32{0, 8, 1 << 31} {
		hostile := bytes.Clone(blob)
		binary.BigEndian.PutUint32(hostile[5:], memory)
		if _, err := s.Key(word("x"), hostile); state(err) != vault.StateCorrupt {
			t.Errorf("%d KiB: %v", memory, err)
		}
	}
}

func TestAlteredBlobIsRefused(t *testing.T) {
	s := cheap(t)
	blob := sealed(t, s, "x", secret.Random(32))
	k := key(t, s, "x", blob)
	for i := range blob {
		bad := bytes.Clone(blob)
		bad[i] ^= 1
		if _, err := s.Unseal(bad, k); state(err) == "" {
			t.Errorf("byte %d: %v", i, err)
		}
	}
}

func TestClosedSealerHasNoPassphrase(t *testing.T) {
	s, err := Fixed(word("one"), stretch.Minimum())
	if err != nil {
		t.Fatal(err)
	}
	lent := s.passphrase.Reveal()
	k, err := s.Key(secret.Secret{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := s.Seal(secret.Random(32), k, vault.Mark{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(lent, make([]byte, len(lent))) {
		t.Error("the passphrase is still in memory")
	}
	if _, err := s.Key(secret.Secret{}, nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("key: %v", err)
	}
	if _, err := s.Seal(secret.Random(32), k, vault.Mark{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("seal: %v", err)
	}
	if _, err := s.Unseal(blob, k); !errors.Is(err, os.ErrClosed) {
		t.Errorf("unseal: %v", err)
	}
}

func TestFromFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for content, want := range map[string]string{"secret\n": "secret", "secret": "secret", "a b\n\n": "a b\n", "\tx ": "\tx "} {
		s, err := FromFile(write("good", content, 0o600))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(s.passphrase.Reveal()); got != want {
			t.Errorf("%q gives %q", content, got)
		}
	}
	for name, p := range map[string]string{
		"empty":        write("empty", "", 0o600),
		"only newline": write("newline", "\n", 0o600),
		"too long":     write("long", strings.Repeat("x", 5000), 0o600),
		"absent":       filepath.Join(dir, "absent"),
		"directory":    dir,
	} {
		if _, err := FromFile(p); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620} {
		p := write("open", "secret", 0o600)
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
		_, err := FromFile(p)
		if state(err) != vault.StatePermission || !strings.Contains(err.Error(), "chmod 600 "+p) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

// A vault that was made with its passphrase in a file opens with the passphrase typed, and the other way round.
func TestFixedAndTypedAreOneKind(t *testing.T) {
	fixed, err := Fixed(word("one"), stretch.Minimum())
	if err != nil {
		t.Fatal(err)
	}
	if fixed.Level() != vault.LevelKeyFile || fixed.Kind() != cheap(t).Kind() {
		t.Errorf("level %s, kind %s", fixed.Level(), fixed.Kind())
	}
	if _, err := fixed.Key(word("one"), nil); state(err) != vault.StateWrongPassphrase {
		t.Errorf("a passphrase beside the file's: %v", err)
	}
	plain := secret.Random(32)
	blob := sealed(t, cheap(t), "one", plain)
	k, err := fixed.Key(secret.Secret{}, blob)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := fixed.Unseal(blob, k); err != nil || !got.Equal(plain) {
		t.Errorf("unseal: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	blob := sealed(f, cheap(f), "x", secret.Random(32))
	f.Add(blob)
	f.Add(blob[:sealedAt])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parse(b); err == nil && (r.Validate() != nil || !bytes.Equal(r.Encode(), b[1:sealedAt])) {
			t.Errorf("let through %+v", r)
		}
	})
}
