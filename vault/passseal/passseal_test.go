package passseal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tokendesk/vault"
	"tokendesk/vault/secret"
)

func cheap(t testing.TB, passphrase string) *Sealer {
	t.Helper()
	s, err := NewWithParams(secret.New([]byte(passphrase)), MinimumParams())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func state(err error) vault.State {
	var s *vault.StateError
	if errors.As(err, &s) {
		return s.State
	}
	return ""
}

func TestSealUnseal(t *testing.T) {
	plain := secret.Random(32)
	blob, err := cheap(t, "one").Seal(plain)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(blob, plain.Reveal()) {
		t.Error("the blob shows the secret")
	}
	got, err := cheap(t, "one").Unseal(blob)
	if err != nil || !got.Equal(plain) {
		t.Fatalf("unseal: %v", err)
	}
	// The costs come from the blob: another sealer's own do not matter.
	if got, err := New(secret.New([]byte("one"))).Unseal(blob); err != nil || !got.Equal(plain) {
		t.Fatalf("unseal with other costs: %v", err)
	}
	if _, err := cheap(t, "two").Unseal(blob); state(err) != vault.StateWrongPassphrase {
		t.Errorf("another passphrase: %v", err)
	}
}

func TestEmptyPassphraseIsRefused(t *testing.T) {
	if _, err := New(secret.Secret{}).Seal(secret.Random(32)); state(err) != vault.StateWrongPassphrase {
		t.Error(err)
	}
}

func TestParamsAreBounded(t *testing.T) {
	low := MinimumParams()
	for _, p := range []Params{
		{},
		{low.Time - 1, low.Memory, low.Threads}, {low.Time, low.Memory - 1, low.Threads}, {low.Time, low.Memory, low.Threads - 1},
		{maximum.Time + 1, low.Memory, low.Threads}, {low.Time, maximum.Memory + 1, low.Threads}, {low.Time, low.Memory, maximum.Threads + 1},
	} {
		if _, err := NewWithParams(secret.Random(8), p); err == nil {
			t.Errorf("accepted %+v", p)
		}
	}
	blob, err := cheap(t, "x").Seal(secret.Random(32))
	if err != nil {
		t.Fatal(err)
	}
	for _, memory := range []uint32{0, 8, 1 << 31} {
		hostile := bytes.Clone(blob)
		binary.BigEndian.PutUint32(hostile[5:], memory)
		if _, err := cheap(t, "x").Unseal(hostile); state(err) != vault.StateCorrupt {
			t.Errorf("%d KiB: %v", memory, err)
		}
	}
}

func TestAlteredBlobIsRefused(t *testing.T) {
	s := cheap(t, "x")
	blob, err := s.Seal(secret.Random(32))
	if err != nil {
		t.Fatal(err)
	}
	// The costs' own bytes would be tried with up to a gigabyte; TestParamsAreBounded has them.
	for _, i := range []int{0, saltAt, sealedAt, sealedAt + 12, len(blob) - 1} {
		bad := bytes.Clone(blob)
		bad[i] ^= 1
		if _, err := s.Unseal(bad); state(err) == "" {
			t.Errorf("byte %d: %v", i, err)
		}
	}
}

func TestClosedSealerHasNoPassphrase(t *testing.T) {
	s := cheap(t, "one")
	lent := s.passphrase.Reveal()
	blob, err := s.Seal(secret.Random(32))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(lent, make([]byte, len(lent))) {
		t.Error("the passphrase is still in memory")
	}
	if _, err := s.Unseal(blob); err == nil {
		t.Error("a closed sealer unseals")
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

func FuzzParse(f *testing.F) {
	blob, err := cheap(f, "x").Seal(secret.Random(32))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(blob)
	f.Add(blob[:sealedAt])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parse(b); err == nil && p.validate() != nil {
			t.Errorf("let through %+v", p)
		}
	})
}
