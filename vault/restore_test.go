package vault_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

// another is a place for a vault on a chip of its own.
func another(t testing.TB) (*vault.Vault, *vaulttest.Chip) {
	t.Helper()
	chip := vaulttest.NewChip()
	v := vault.At(filepath.Join(t.TempDir(), "vault"), chip.Open)
	tidy(t, v)
	return v, chip
}

// nothingLeft checks that neither a file nor a counter came of what has failed.
func nothingLeft(t testing.TB, v *vault.Vault, chip *vaulttest.Chip) {
	t.Helper()
	n, _ := chip.Counters()
	if left := names(t, filepath.Dir(v.Path())); len(left) > 0 || n > 0 {
		t.Errorf("left behind: files %q, %d counters", left, n)
	}
}

// kept renders what a restored vault has in common with the one that was lost.
func kept(t testing.TB, v *vault.Vault) string {
	t.Helper()
	all, err := contents(v)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(all, "\n"), "\n")
	return strings.ReplaceAll(strings.Join(lines[:len(lines)-1], "\n"), "Stale:true", "Stale:false")
}

// withIdentity makes v's recipient that of an identity, and returns its file.
func withIdentity(t testing.TB, v *vault.Vault, recipient fmt.Stringer, identity fmt.Stringer) secret.Secret {
	t.Helper()
	if err := v.Rotate(officer, []string{recipient.String()}); err != nil {
		t.Fatal(err)
	}
	return secret.New([]byte("# made by a test\n" + identity.String() + "\n"))
}

func TestRestore(t *testing.T) {
	for _, kind := range []string{"x25519", "hybrid", "bare file"} {
		t.Run(kind, func(t *testing.T) {
			v, _ := stocked(t, "1234")
			var identity secret.Secret
			if kind == "hybrid" {
				id, err := age.GenerateHybridIdentity()
				if err != nil {
					t.Fatal(err)
				}
				identity = withIdentity(t, v, id.Recipient(), id)
			} else {
				id, err := age.GenerateX25519Identity()
				if err != nil {
					t.Fatal(err)
				}
				identity = withIdentity(t, v, id.Recipient(), id)
			}
			first := backup(t, v, t.TempDir())
			file := backup(t, v, t.TempDir()).Path()
			want, id, key := kept(t, v), v.ID(), v.Condition().AuditKey
			if err := v.Lock(); err != nil {
				t.Fatal(err)
			}
			if kind == "bare file" {
				file = v.Path()
			}
			r, chip := another(t)
			if err := r.Restore(file, identity, vault.Setup{PIN: pin("9876"), By: officer.Officer}); err != nil {
				t.Fatal(err)
			}
			wantState(t, r.Unlock(pin("1234")), vault.StateWrongPIN, "")
			if err := errors.Join(r.Unlock(pin("9876")), r.Check()); err != nil {
				t.Fatal(err)
			}
			if n, _ := chip.Counters(); n != 2 || len(names(t, filepath.Dir(r.Path()))) != 1 {
				t.Errorf("%d counters, files %q", n, names(t, filepath.Dir(r.Path())))
			}
			if got := kept(t, r); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if r.ID() == id || r.Condition().AuditKey != key {
				t.Errorf("ID %s (was %s), audit key %v (was %v)", r.ID(), id, r.Condition().AuditKey, key)
			}
			last := lastAct(t, r)
			if last.Action != "vault restore" || last.Object != r.ID() || last.Officer != officer.Officer ||
				!strings.Contains(last.Reason, id) || !strings.Contains(last.Reason, filepath.Base(file)) {
				t.Errorf("the last act is %+v", last)
			}
			if list := backups(t, r); len(list) == 0 || list[len(list)-1].Name != first.Name {
				t.Errorf("on record are %+v", list)
			}
			checkStale(t, r)
			// It can be backed up and restored in its turn.
			again, _ := another(t)
			if err := again.Restore(backup(t, r, t.TempDir()).Path(), identity, vault.Setup{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// checkStale checks that nothing of a restored vault is used unseen.
func checkStale(t *testing.T, v *vault.Vault) {
	t.Helper()
	view(t, v, func(tx *vault.Tx) error {
		a, err1 := tx.Token(alice)
		b, err2 := tx.Token(bob)
		if !a.Stale || !b.Stale || tx.Counts().Stale != 2 {
			t.Errorf("stale: %v, %v, %d counted", a.Stale, b.Stale, tx.Counts().Stale)
		}
		if n := tx.Counts(); n.Approvals != 0 || n.Notices != 0 || n.Leavers != 1 {
			t.Errorf("of a backup with one each: %d orders wait for a second officer, %d notices wait, there are %d leavers", n.Approvals, n.Notices, n.Leavers)
		}
		if given, err := tx.HandoversOf(alice, 0, 0); err != nil || len(given) != 1 || given[0].To != "bob" {
			t.Errorf("%+v, %v", given, err)
		}
		changes, err := tx.ChangesFrom(0, 0)
		for _, c := range changes {
			if c.Parked == c.Kind.CutOff() || c.Parked != strings.Contains(c.Problem, "restored from a backup of 20") {
				t.Errorf("%+v", c)
			}
		}
		if n := tx.Counts(); len(changes) != 5 || n.Parked != 3 || n.CutOffs != 2 {
			t.Errorf("%d changes, counted %+v", len(changes), n)
		}
		return errors.Join(err1, err2, err)
	})
}

func TestRestoreTakesOtherRecipients(t *testing.T) {
	v, _ := stocked(t, "")
	file := backup(t, v, t.TempDir()).Path()
	old, _ := vaulttest.Identity()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	r, chip := another(t)
	setup := vault.Setup{Recipients: []string{id.Recipient().String()}}
	if err := r.Restore(file, old, setup); err == nil || !strings.Contains(err.Error(), "trial restore") {
		t.Errorf("without a trial restore: %v", err)
	}
	nothingLeft(t, r, chip)
	setup.Identity = secret.New([]byte(id.String()))
	if err := r.Restore(file, old, setup); err != nil {
		t.Fatal(err)
	}
	if err := r.Unlock(secret.Secret{}); err != nil {
		t.Fatal(err)
	}
	if got := r.Condition().Recipients; len(got) != 1 || got[0] != id.Recipient().String() {
		t.Errorf("recipients %q", got)
	}
}

func TestRestoreRefuses(t *testing.T) {
	if !alone(t) {
		return
	}
	v, _ := stocked(t, "")
	identity, _ := vaulttest.Identity()
	file := backup(t, v, t.TempDir()).Path()
	whole := copyOf(t, file)
	stranger, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	_, recipient := vaulttest.Identity()
	sealed := func(content []byte) []byte {
		to, err := age.ParseX25519Recipient(recipient)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		w, err := age.Encrypt(&out, to)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Write(content)
		if err := errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	plain := decrypted(t, file, identity)
	later := bytes.Clone(plain)
	at := bytes.Index(later, []byte("tdvault\x00"))
	binary.BigEndian.PutUint32(later[at+8:], 99)
	for _, c := range []struct {
		name     string
		content  []byte
		identity secret.Secret
		want     string
	}{
		{"another identity", whole, secret.New([]byte(stranger.String())), "this identity does not open it"},
		{"no identity", whole, secret.New([]byte("hello")), "not an age identity file"},
		{"garbage", []byte("garbage"), identity, "neither a backup nor a vault"},
		{"nothing", nil, identity, "neither a backup nor a vault"},
		{"an age file of somebody else's", sealed([]byte("a love letter")), identity, "damaged"},
		{"cut short", whole[:len(whole)-1], identity, "damaged or cut short"},
		{"too long", append(bytes.Clone(whole), 0), identity, "damaged"},
		{"a later format", sealed(later), identity, "install the version that wrote it"},
		{"a later bare format", later, identity, "install the version that wrote it"},
		{"a vault without recipients", format1(t), identity, "format 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := filepath.Join(t.TempDir(), "bad")
			if err := os.WriteFile(bad, c.content, 0o600); err != nil {
				t.Fatal(err)
			}
			r, chip := another(t)
			err := r.Restore(bad, c.identity.Clone(), vault.Setup{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			nothingLeft(t, r, chip)
		})
	}
	r, chip := another(t)
	if err := r.Restore(filepath.Join(t.TempDir(), "absent"), identity, vault.Setup{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, odd := range []string{fifo, t.TempDir(), "/dev/zero"} {
		if err := r.Restore(odd, identity, vault.Setup{}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %v", odd, err)
		}
	}
	withFileLimit(t, 16<<10, func() {
		if err := r.Restore(file, identity, vault.Setup{}); !errors.Is(err, unix.EFBIG) || !strings.Contains(err.Error(), "make room") {
			t.Errorf("a full disk: %v", err)
		}
	})
	withFileLimit(t, uint64(len(plain)), func() { // room for the first copy, not for the second
		if err := r.Restore(file, identity, vault.Setup{}); !errors.Is(err, unix.EFBIG) {
			t.Errorf("a disk that gets full: %v", err)
		}
	})
	nothingLeft(t, r, chip)
	huge := filepath.Join(t.TempDir(), "huge")
	if err := errors.Join(os.WriteFile(huge, whole, 0o600), os.Truncate(huge, 1<<45)); err == nil {
		if err := r.Restore(huge, identity, vault.Setup{}); err == nil || !strings.Contains(err.Error(), "more than any vault") {
			t.Errorf("an absurd size: %v", err)
		}
	}
	if err := errors.Join(os.WriteFile(huge, whole, 0o600), os.Truncate(huge, 99<<30)); err != nil {
		t.Fatal(err)
	}
	if err := r.Restore(huge, identity, vault.Setup{}); err == nil {
		t.Error("a huge file was restored")
	}
	nothingLeft(t, r, chip)
}

func TestRestoreNeverWritesOverAnything(t *testing.T) {
	v, _ := stocked(t, "")
	identity, _ := vaulttest.Identity()
	file := backup(t, v, t.TempDir()).Path()
	if err := v.Restore(file, identity, vault.Setup{}); err == nil {
		t.Error("over an open vault")
	}
	if err := v.Lock(); err != nil {
		t.Fatal(err)
	}
	before := copyOf(t, v.Path())
	if err := v.Restore(file, identity, vault.Setup{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a vault: %v", err)
	}
	if !bytes.Equal(copyOf(t, v.Path()), before) {
		t.Error("the vault has changed")
	}
}

// Whatever the TPM fails at: no vault and no counter, or one that opens.
func TestRestoreSurvivesTheTPM(t *testing.T) {
	v, _ := stocked(t, "")
	identity, _ := vaulttest.Identity()
	file := backup(t, v, t.TempDir()).Path()
	for _, call := range []string{"new counter", "seal", "second counter"} {
		r, chip := another(t)
		n := 0
		chip.Fail = func(name string) (error, bool) {
			if name == "new counter" {
				n++
			}
			if name == call || call == "second counter" && n == 2 && name == "new counter" {
				return errors.New("no answer"), false
			}
			return nil, false
		}
		if err := r.Restore(file, identity, vault.Setup{}); err == nil || !strings.Contains(err.Error(), "no answer") {
			t.Errorf("%s: %v", call, err)
		}
		nothingLeft(t, r, chip)
	}
}

func TestBackupOfAMigratedVaultNeedsARecipient(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault")
	if err := os.WriteFile(path, format1(t), 0o600); err != nil {
		t.Fatal(err)
	}
	v := vault.At(path, vaulttest.Sealer)
	tidy(t, v)
	if err := v.Unlock(secret.Secret{}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := v.Backup(dir, officer); err == nil || !strings.Contains(err.Error(), "tokendesk vault rotate --recipient") || len(names(t, dir)) != 0 {
		t.Errorf("got %v, and %q is left", err, names(t, dir))
	}
	_, recipient := vaulttest.Identity()
	if err := v.Rotate(officer, []string{recipient}); err != nil {
		t.Fatal(err)
	}
	backup(t, v, dir)
}
