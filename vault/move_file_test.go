package vault_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

// What is written before the commit opens nowhere: the key is not in it.
func TestMoveFileOpensOnlyAfterTheCommit(t *testing.T) {
	v, chip := stocked(t, "")
	to := newBoard(t)
	dir := t.TempDir()
	var early []byte
	chip.Fail = func(call string) (error, bool) {
		if call == "increment" && early == nil { // the commit is done, and the counter is about to follow
			for _, name := range names(t, dir) {
				early = copyOf(t, filepath.Join(dir, name))
			}
		}
		return nil, false
	}
	file := filepath.Join(dir, "move")
	if err := moveOut(v, file, to); err != nil {
		t.Fatal(err)
	}
	if whole := copyOf(t, file); len(early) != len(whole) || !bytes.Equal(early[4096:], whole[4096:]) {
		t.Errorf("%d bytes were written before, of %d", len(early), len(whole))
	}
	if err := os.WriteFile(file, early, 0o600); err != nil {
		t.Fatal(err)
	}
	n := to.vault(t)
	if err := n.MoveIn(file, vault.Setup{}); err == nil || !strings.Contains(err.Error(), "never finished") {
		t.Errorf("got %v", err)
	}
	nothingLeft(t, n, to.Chip)
}

func TestMoveInRefuses(t *testing.T) {
	v, _ := stocked(t, "")
	to := newBoard(t)
	file := filepath.Join(t.TempDir(), "move")
	if err := moveOut(v, file, to); err != nil {
		t.Fatal(err)
	}
	wrong := newBoard(t)
	n := wrong.vault(t)
	wantState(t, n.MoveIn(file, vault.Setup{}), vault.StateTPMChanged, "another TPM")
	nothingLeft(t, n, wrong.Chip)
	noTPM := vault.At(filepath.Join(t.TempDir(), "vault"), vaulttest.Sealer)
	if err := noTPM.MoveIn(file, vault.Setup{}); err == nil || !strings.Contains(err.Error(), "no TPM") {
		t.Errorf("without a TPM: %v", err)
	}
	whole := copyOf(t, file)
	later := bytes.Clone(whole)
	later[11] = 2
	long := bytes.Clone(whole)
	long[12] = 1
	for name, c := range map[string]struct {
		content []byte
		want    string
	}{
		"garbage":         {[]byte("garbage"), "too short"},
		"another file":    {bytes.Repeat([]byte("garbage"), 1000), "no move file"},
		"a later version": {later, "install the version that wrote it"},
		"a long key":      {long, "head is damaged"},
		"cut short":       {whole[:len(whole)-5], "damaged or cut short"},
		"only a head":     {whole[:4096], "damaged"},
	} {
		if err := os.WriteFile(file, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		n := to.vault(t)
		if err := n.MoveIn(file, vault.Setup{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		nothingLeft(t, n, to.Chip)
	}
}

func TestFlippedMoveFiles(t *testing.T) {
	v, _ := stocked(t, "")
	to := newBoard(t)
	file := filepath.Join(t.TempDir(), "move")
	if err := moveOut(v, file, to); err != nil {
		t.Fatal(err)
	}
	whole := copyOf(t, file)
	refused := func(content []byte) bool {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		n := vault.At(filepath.Join(t.TempDir(), "vault"), to.open)
		err := n.MoveIn(file, vault.Setup{})
		nothingLeft(t, n, to.Chip)
		return err != nil
	}
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 800 {
		bad, at := bytes.Clone(whole), r.IntN(len(whole))
		if i%2 == 0 {
			at %= 4096 + 512
		}
		bad[at] ^= 1 << r.IntN(8)
		if !refused(bad) {
			t.Errorf("byte %d does not matter", at)
		}
	}
	for range 150 {
		if n := r.IntN(len(whole)); !refused(whole[:n]) {
			t.Errorf("taken in although cut to %d bytes", n)
		}
	}
}

// spy is a board that notes what it seals.
type spy struct {
	*board
	sealed []byte
}

func (s *spy) Seal(plain, key secret.Secret, at vault.Mark) ([]byte, error) {
	s.sealed = bytes.Clone(plain.Reveal())
	return s.board.Seal(plain, key, at)
}

func TestBackupAndMoveShowNoSecret(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	at := func(name string) string { return filepath.Join(dir, name) }
	from := &spy{board: newBoard(t)}
	code, seed, access := "a PIN of some length", []byte("a seed of 20 bytes.."), []byte("access")
	v := vault.At(at("old"), func() (vault.Sealer, error) { return from, nil })
	if err := errors.Join(v.Init(vaulttest.Setup(pin(code))), v.Unlock(pin(code))); err != nil {
		t.Fatal(err)
	}
	update(t, v, func(tx *vault.Tx) error { return put(tx, alice, seed) })
	b := backup(t, v, dir)
	identity, _ := vaulttest.Identity()
	search := map[string][]byte{"PIN": []byte(code), "seed": seed, "access code": access, "root secret": from.sealed, "identity": identity.Reveal()[:70]}
	to := &spy{board: newBoard(t)}
	wrap := func(parent []byte, s secret.Secret) ([]byte, error) {
		search["throw-away identity"] = bytes.Clone(s.Reveal())
		return wrapFor(parent, s)
	}
	parent, _ := to.Parent()
	if err := v.MoveOut(at("move"), parent, to.fingerprint(), wrap, officer); err != nil {
		t.Fatal(err)
	}
	n := vault.At(at("new"), func() (vault.Sealer, error) { return to, nil })
	if err := n.MoveIn(at("move"), vault.Setup{PIN: pin(code)}); err != nil {
		t.Fatal(err)
	}
	r, _ := another(t)
	if err := r.Restore(b.Path(), identity, vault.Setup{PIN: pin(code)}); err != nil {
		t.Fatal(err)
	}
	search["new root secret"] = to.sealed
	for name, s := range search {
		if len(s) < 6 {
			t.Fatalf("the %s is %q", name, s)
		}
	}
	searchFor(t, search, dir, filepath.Dir(r.Path()))
	if got := names(t, dir); len(got) < 4 {
		t.Errorf("searched only %q", got)
	}
}

func FuzzMoveIn(f *testing.F) {
	id, err := age.ParseX25519Identity(fuzzIdentity)
	if err != nil {
		f.Fatal(err)
	}
	to := &board{vaulttest.NewChip(), id}
	v := fuzzVault(f)
	file := filepath.Join(f.TempDir(), "move")
	if err := moveOut(v, file, to); err != nil {
		f.Fatal(err)
	}
	whole := copyOf(f, file)
	f.Add(whole)
	f.Add(whole[:5000])
	f.Add(make([]byte, 5000))
	f.Fuzz(func(t *testing.T, content []byte) {
		file := filepath.Join(t.TempDir(), "move")
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		here := &board{vaulttest.NewChip(), id}
		n := here.vault(t)
		if err := n.MoveIn(file, vault.Setup{}); err != nil {
			nothingLeft(t, n, here.Chip)
			return
		}
		if err := errors.Join(n.Unlock(secret.Secret{}), n.Check()); err != nil {
			t.Error(err)
		}
	})
}
