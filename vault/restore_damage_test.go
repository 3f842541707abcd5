package vault_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"filippo.io/age"

	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

// Every bit matters, or nothing does: a restored vault has the very records, or there is none.
func TestFlippedBackups(t *testing.T) {
	v, _ := stocked(t, "")
	identity, _ := vaulttest.Identity()
	whole := copyOf(t, backup(t, v, t.TempDir()).Path())
	want := kept(t, v)
	if err := v.Lock(); err != nil {
		t.Fatal(err)
	}
	bare := copyOf(t, v.Path())
	file := filepath.Join(t.TempDir(), "bad")
	r := rand.New(rand.NewPCG(1, 2))
	try := func(content []byte) (refused bool) {
		t.Helper()
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		chip := vaulttest.NewChip()
		v := vault.At(filepath.Join(t.TempDir(), "vault"), chip.Open)
		if err := v.Restore(file, identity, vault.Setup{}); err != nil {
			nothingLeft(t, v, chip)
			return true
		}
		if err := v.Unlock(secret.Secret{}); err != nil {
			t.Fatal(err)
		}
		if got := kept(t, v); got != want {
			t.Errorf("other records came back:\n%s", got)
		}
		if err := errors.Join(v.Check(), v.Close()); err != nil {
			t.Error(err)
		}
		return false
	}
	for i := range 900 {
		content, isBare := whole, i%6 == 5
		if isBare {
			content = bare
		}
		bad, at := bytes.Clone(content), r.IntN(len(content))
		if i%4 < 2 {
			at %= 4096 // where headers are
		}
		bad[at] ^= 1 << r.IntN(8)
		if !try(bad) && !isBare {
			t.Errorf("byte %d of an encrypted backup does not matter", at)
		}
	}
	for i := range 120 {
		if n := r.IntN(len(whole)); !try(whole[:n]) {
			t.Errorf("restored although cut to %d bytes", n)
		}
		if i%10 == 0 { // bbolt's file ends in what has no meaning
			try(bare[:r.IntN(len(bare))])
		}
	}
}

// forms are how a secret could show.
func forms(s []byte) [][]byte {
	return [][]byte{s, []byte(hex.EncodeToString(s)), []byte(base64.StdEncoding.EncodeToString(s)), []byte(base64.RawURLEncoding.EncodeToString(s))}
}

// searchFor looks for secrets in all files below the directories.
func searchFor(t testing.TB, secrets map[string][]byte, dirs ...string) {
	t.Helper()
	files := 0
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			files++
			content := copyOf(t, path)
			for name, s := range secrets {
				for _, form := range forms(s) {
					if bytes.Contains(content, form) {
						t.Errorf("%s shows the %s", path, name)
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files == 0 {
		t.Fatal("there was nothing to search")
	}
}

// A fixed identity, so that what a fuzzer has found stays openable. It protects nothing.
const fuzzIdentity = "AGE-SECRET-KEY-14S54A9D4SP05UVJLQDTPCFS82RDADAXV973UQ39QSSEU0TFCWJQQQNZ2W9"

func fuzzVault(f *testing.F) *vault.Vault {
	id, err := age.ParseX25519Identity(fuzzIdentity)
	if err != nil {
		f.Fatal(err)
	}
	v, _ := stocked(f, "")
	if err := v.Rotate(officer, []string{id.Recipient().String()}); err != nil {
		f.Fatal(err)
	}
	return v
}

func FuzzRestore(f *testing.F) {
	v := fuzzVault(f)
	whole := copyOf(f, backup(f, v, f.TempDir()).Path())
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add(copyOf(f, v.Path()))
	f.Add([]byte("age-encryption.org/v1\n-> X25519 a\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		file := filepath.Join(t.TempDir(), "backup")
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		chip := vaulttest.NewChip()
		v := vault.At(filepath.Join(t.TempDir(), "vault"), chip.Open)
		if err := v.Restore(file, secret.New([]byte(fuzzIdentity)), vault.Setup{}); err != nil {
			nothingLeft(t, v, chip)
			return
		}
		if err := errors.Join(v.Unlock(secret.Secret{}), v.Check(), v.Close()); err != nil {
			t.Error(err)
		}
	})
}
