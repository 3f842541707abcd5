package vault_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

// format1 is a vault as version 0.1 has written it, under vaulttest.Passphrase.
func format1(t testing.TB) []byte {
	t.Helper()
	f, err := os.Open("testdata/format1.vault.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMigration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault")
	old := format1(t)
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	v := reopenWith(t, path, vaulttest.Sealer)
	if kept := copyOf(t, path+vault.MigratedSuffix); !bytes.Equal(kept, old) {
		t.Error("the old file was not kept as it was")
	}
	view(t, v, func(tx *vault.Tx) error {
		tok, err := tx.Token(numbered(3))
		if err != nil {
			return err
		}
		if tok.Status != vault.Limbo || tok.Owner != "bob" || tok.Counter != 20 || tok.Generation != 3 || !tok.Emulated {
			t.Errorf("token %+v", tok)
		}
		for i := range 3 {
			s, err := tx.Seed(numbered(i+1), i+1)
			if want := "1234567890123456789" + string(rune('a'+i)); err != nil || string(s.Reveal()) != want {
				t.Errorf("seed %d: %v", i+1, err)
			}
			c, err := tx.AccessCode(numbered(i + 1))
			if err != nil || !bytes.Equal(c.Reveal(), []byte{1, 2, 3, 4, 5, byte(i)}) {
				t.Errorf("access code %d: %v", i+1, err)
			}
		}
		job, found, err := tx.JobFor(numbered(3))
		if err != nil || !found || job.Step != 3 || job.Officer != "olga" {
			t.Errorf("job %+v, %v", job, err)
		}
		changes, err := tx.ChangesFrom(0, 0)
		if len(changes) != 2 || changes[0].Kind != vault.Unassign || changes[1].User != "alice" {
			t.Errorf("changes %+v", changes)
		}
		cut, err1 := tx.CutOffOf(changes[0].User)
		list, err2 := tx.CutOffsFrom(0, 0)
		if cut != changes[0].Seq || len(list) != 1 || list[0].Seq != cut {
			t.Errorf("the cut-off is not in the index: %d, %+v", cut, list)
		}
		return errors.Join(err, err1, err2)
	})
	// What was there counts as seen, and numbers go on.
	refused(t, v, "been here before", func(tx *vault.Tx) error {
		return tx.SetSeed(numbered(1), 2, secret.New([]byte("1234567890123456789c")))
	})
	update(t, v, func(tx *vault.Tx) error {
		c, err := tx.Enqueue(vault.Change{Kind: vault.Disable, Token: numbered(1)})
		if c.Seq != 3 {
			t.Errorf("the next change has number %d", c.Seq)
		}
		return err
	})
}

// A migration that finds damage changes nothing, and one that has been done is not done again.
func TestMigrationRefusesDamage(t *testing.T) {
	old := format1(t)
	at := bytes.Index(old, []byte(`"owner":"alice"`))
	if at < 0 {
		t.Fatal("there is nothing to damage")
	}
	bad := bytes.Clone(old)
	bad[at+10] = 'm'
	path := filepath.Join(t.TempDir(), "vault")
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := openWith(path, vaulttest.Sealer)
	wantState(t, err, vault.StateCorrupt, "tokens")
	if !bytes.Equal(copyOf(t, path), bad) {
		t.Error("the file was changed")
	}
	if err := os.WriteFile(path+vault.MigratedSuffix, []byte("somebody else's"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openWith(path, vaulttest.Sealer); !errors.Is(err, os.ErrExist) {
		t.Errorf("the copy would replace another file: %v", err)
	}
}
