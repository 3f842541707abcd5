package vault_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"tokendesk/vault/vaulttest"
)

// Whatever is wrong with a vault of format 1: it is refused by name and left as it was, or opens with the same contents.
func FuzzMigrate(f *testing.F) {
	whole := format1(f)
	f.Add(uint32(0), []byte{})
	for _, text := range []string{`"keys":[`, `"sealed":"`, `"id":"`, `"owner":"alice"`, "tdvault"} {
		at := bytes.Index(whole, []byte(text))
		if at < 0 {
			f.Fatalf("there is no %s", text)
		}
		f.Add(uint32(at), []byte("x"))
		f.Add(uint32(at+len(text)), []byte{0, 0xFF})
	}
	dir := f.TempDir()
	file := filepath.Join(dir, "vault")
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		f.Fatal(err)
	}
	v, err := openWith(file, vaulttest.Sealer)
	if err != nil {
		f.Fatal(err)
	}
	want, err := contents(v)
	if err != nil {
		f.Fatal(err)
	}
	if err := v.Close(); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		b := bytes.Clone(whole)
		copy(b[int(at)%len(b):], patch)
		path := filepath.Join(t.TempDir(), "vault")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := openWith(path, vaulttest.Sealer)
		if err != nil {
			if !named(err) {
				t.Errorf("not a named state: %v", err)
			}
			if after := copyOf(t, path); !bytes.Equal(after, b) {
				t.Error("a vault that was refused was changed")
			}
			return
		}
		defer v.Close()
		if got, err := contents(v); err != nil || got != want {
			t.Errorf("wrong contents were given out: %v", err)
		}
	})
}
