package vault_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/passseal"
	"tokendesk/vault/secret"
	"tokendesk/vault/stretch"
	"tokendesk/vault/tpmseal"
	"tokendesk/vault/vaulttest"
)

// board is a chip that can take in vaults: what is wrapped for it is an age file.
type board struct {
	*vaulttest.Chip
	id *age.X25519Identity
}

func newBoard(t testing.TB) *board {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return &board{vaulttest.NewChip(), id}
}

func (b *board) open() (vault.Sealer, error) { return b, nil }

func (b *board) Parent() ([]byte, error) { return []byte(b.id.Recipient().String()), nil }

func (b *board) fingerprint() string { return b.id.Recipient().String()[4:12] }

func wrapFor(parent []byte, s secret.Secret) ([]byte, error) {
	to, err := age.ParseX25519Recipient(string(parent))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(s.Reveal())
	err = errors.Join(err, w.Close())
	return out.Bytes(), err
}

func (b *board) Unwrap(blob []byte) (secret.Secret, error) {
	r, err := age.Decrypt(bytes.NewReader(blob), b.id)
	if err != nil {
		return secret.Secret{}, &vault.StateError{State: vault.StateTPMChanged, Err: errors.New("it was wrapped for another TPM"), Cure: "take it there"}
	}
	text, err := io.ReadAll(r)
	return secret.New(text), err
}

func (b *board) vault(t testing.TB) *vault.Vault {
	t.Helper()
	v := vault.At(filepath.Join(t.TempDir(), "vault"), b.open)
	tidy(t, v)
	return v
}

func moveOut(v *vault.Vault, file string, to *board) error {
	parent, err := to.Parent()
	if err != nil {
		return err
	}
	return v.MoveOut(file, parent, to.fingerprint(), wrapFor, officer)
}

func again(v *vault.Vault, code, file string, to *board) error {
	parent, err := to.Parent()
	if err != nil {
		return err
	}
	return v.MoveOutAgain(pin(code), file, parent, to.fingerprint(), wrapFor, officer)
}

func TestMove(t *testing.T) {
	v, _ := stocked(t, "1234")
	to := newBoard(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "move")
	want, err := contents(v)
	if err != nil {
		t.Fatal(err)
	}
	id, key := v.ID(), v.Condition().AuditKey
	if err := moveOut(v, file, to); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 || len(names(t, dir)) != 1 || len(names(t, filepath.Dir(v.Path()))) != 1 {
		t.Errorf("%v, %v, %q, %q", info, err, names(t, dir), names(t, filepath.Dir(v.Path())))
	}
	wantState(t, v.View(func(*vault.Tx) error { return nil }), vault.StateMoved, to.fingerprint())
	wantState(t, v.Unlock(pin("1234")), vault.StateMoved, to.fingerprint())
	n := to.vault(t)
	if err := n.MoveIn(file, vault.Setup{PIN: pin("9876"), By: officer.Officer}); err != nil {
		t.Fatal(err)
	}
	if err := n.MoveIn(file, vault.Setup{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a vault: %v", err)
	}
	if err := errors.Join(n.Unlock(pin("9876")), n.Check()); err != nil {
		t.Fatal(err)
	}
	if got, err := contents(n); got != want || err != nil {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
	if n.ID() != id || n.Condition().AuditKey != key {
		t.Errorf("ID %s, was %s", n.ID(), id)
	}
	var acts []string
	view(t, n, func(tx *vault.Tx) error {
		err := tx.ExportAudit(io.Discard, 1)
		return errors.Join(err, tx.Acts(tx.Trail().Seq-1, func(e audit.Entry) (bool, error) { acts = append(acts, e.Action); return true, nil }))
	})
	if fmt.Sprint(acts) != "[vault move out vault move in]" {
		t.Errorf("the trail ends in %q", acts)
	}
	if left, _ := to.Counters(); left != 2 {
		t.Errorf("%d counters", left)
	}
	// It goes on: a change, a rotation, a backup.
	update(t, n, func(tx *vault.Tx) error { return tx.SetSeed(bob, 2, secret.New([]byte("next"))) })
	if err := n.Rotate(officer, nil); err != nil {
		t.Error(err)
	}
	backup(t, n, t.TempDir())
}

func TestMoveIsTakenBack(t *testing.T) {
	v, _ := stocked(t, "1234")
	to := newBoard(t)
	if err := v.CancelMove(pin("1234"), officer); err == nil {
		t.Error("took back what never was")
	}
	want, err := contents(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := moveOut(v, filepath.Join(t.TempDir(), "move"), to); err != nil {
		t.Fatal(err)
	}
	wantState(t, v.CancelMove(pin("0000"), officer), vault.StateWrongPIN, "")
	wantState(t, v.CancelMove(secret.Secret{}, officer), vault.StateLocked, "")
	wantState(t, v.Unlock(pin("1234")), vault.StateMoved, "")
	if err := errors.Join(v.CancelMove(pin("1234"), officer), v.Unlock(pin("1234")), v.Check()); err != nil {
		t.Fatal(err)
	}
	if got, err := contents(v); got != want || err != nil {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
	if last := lastAct(t, v); last.Action != "vault move cancel" {
		t.Errorf("the last act is %+v", last)
	}
}

func TestMoveOutAgain(t *testing.T) {
	v, _ := stocked(t, "1234")
	to, other := newBoard(t), newBoard(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "move")
	if err := again(v, "1234", file, to); err == nil {
		t.Error("went on with what never was")
	}
	want, err := contents(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := moveOut(v, file, to); err != nil {
		t.Fatal(err)
	}
	if err := again(v, "1234", file, to); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := again(v, "1234", file, other); err == nil || !strings.Contains(err.Error(), to.fingerprint()) {
		t.Errorf("to another board: %v", err)
	}
	var key secret.Secret
	parent, _ := to.Parent()
	noting := func(parent []byte, s secret.Secret) ([]byte, error) {
		key = s.Clone()
		return wrapFor(parent, s)
	}
	if err := v.MoveOutAgain(pin("1234"), file, parent, to.fingerprint(), noting, officer); err != nil {
		t.Fatal(err)
	}
	if inner := payload(t, file, key); !bytes.Contains(inner, []byte("tdvault\x00")) || bytes.Contains(inner, []byte(`"moved":`)) {
		t.Error("what the file carries is marked as moved")
	}
	wantState(t, v.Unlock(pin("1234")), vault.StateMoved, "")
	n := to.vault(t)
	if err := errors.Join(n.MoveIn(file, vault.Setup{}), n.Unlock(secret.Secret{}), n.Check()); err != nil {
		t.Fatal(err)
	}
	if got, err := contents(n); got != want || err != nil {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
}

// payload is what a move file carries, as age itself sees it.
func payload(t testing.TB, file string, identity secret.Secret) []byte {
	t.Helper()
	rest := filepath.Join(t.TempDir(), "payload")
	if err := os.WriteFile(rest, copyOf(t, file)[4096:], 0o600); err != nil {
		t.Fatal(err)
	}
	return decrypted(t, rest, identity)
}

// An older file of the old board is refused there once the move file opens elsewhere.
func TestMovedVaultDoesNotComeBack(t *testing.T) {
	v, _ := stocked(t, "")
	old := copyOf(t, v.Path())
	if err := moveOut(v, filepath.Join(t.TempDir(), "move"), newBoard(t)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(v.Path(), old, 0o600); err != nil {
		t.Fatal(err)
	}
	wantState(t, v.Unlock(secret.Secret{}), vault.StateRollback, "")
}

func TestMoveOutThatFails(t *testing.T) {
	if !alone(t) {
		return
	}
	v, chip := stocked(t, "1234")
	to := newBoard(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "move")
	parent, _ := to.Parent()
	before, want := epoch(v), lastAct(t, v)
	refuse := func(blob []byte, err error) func([]byte, secret.Secret) ([]byte, error) {
		return func([]byte, secret.Secret) ([]byte, error) { return blob, err }
	}
	for _, err := range []error{
		v.MoveOut(file, parent, "f", refuse(nil, errors.New("no such TPM")), officer),
		v.MoveOut(file, parent, "f", refuse(nil, nil), officer),
		v.MoveOut(file, parent, "f", refuse(make([]byte, 5000), nil), officer),
		v.MoveOut(file, parent, "", wrapFor, officer),
		v.MoveOut(filepath.Join(dir, "absent", "move"), parent, "f", wrapFor, officer),
		v.MoveOut(v.Path(), parent, "f", wrapFor, officer),
	} {
		if err == nil {
			t.Error("moved")
		}
	}
	withFileLimit(t, 12<<10, func() {
		if err := moveOut(v, file, to); !errors.Is(err, unix.EFBIG) || !strings.Contains(err.Error(), "make room") {
			t.Errorf("a full disk: %v", err)
		}
	})
	if len(names(t, dir)) != 0 || len(names(t, filepath.Dir(v.Path()))) != 1 || epoch(v) != before || lastAct(t, v) != want {
		t.Errorf("left %q and %q, epoch %d (was %d), last act %+v", names(t, dir), names(t, filepath.Dir(v.Path())), epoch(v), before, lastAct(t, v))
	}
	// The mark is committed, and the TPM does not follow: nothing opens the file yet, nor the vault. Both can be mended.
	chip.Fail = func(call string) (error, bool) { return errors.New("no answer"), call == "never" }
	err := moveOut(v, file, to)
	if wantState(t, err, vault.StateMoved, "no answer"); !errors.Is(err, vault.ErrUnanchored) || len(names(t, dir)) != 0 {
		t.Errorf("%v, and %q is left", err, names(t, dir))
	}
	chip.Fail = nil
	wantState(t, v.Unlock(pin("1234")), vault.StateMoved, "")
	if err := again(v, "1234", file, to); err != nil {
		t.Fatal(err)
	}
	n := to.vault(t)
	if err := errors.Join(n.MoveIn(file, vault.Setup{}), n.Unlock(secret.Secret{}), n.Check()); err != nil {
		t.Error(err)
	}
}

// onSWTPM is a board with a software TPM.
func onSWTPM(t testing.TB, device string) *tpmseal.TPM {
	t.Helper()
	tpm, err := tpmseal.OpenWith(device, tpmseal.Options{Stretch: stretch.Minimum()})
	if err != nil {
		t.Fatal(err)
	}
	return tpm
}

// From a board to another one, and back to a third by its backup, with all the real parts.
func TestMoveAndRestoreOnSoftwareTPMs(t *testing.T) {
	first, second := vaulttest.StartSWTPM(t), vaulttest.StartSWTPM(t)
	on := func(device string) *vault.Vault {
		v := vault.At(filepath.Join(t.TempDir(), "vault"), func() (vault.Sealer, error) {
			return tpmseal.OpenWith(device, tpmseal.Options{Stretch: stretch.Minimum()})
		})
		tidy(t, v)
		return v
	}
	v := on(first)
	if err := errors.Join(v.Init(vaulttest.Setup(pin("1234"))), v.Unlock(pin("1234"))); err != nil {
		t.Fatal(err)
	}
	update(t, v, func(tx *vault.Tx) error { return put(tx, alice, []byte("0123456789")) })
	want, err := contents(v)
	if err != nil {
		t.Fatal(err)
	}
	id := v.ID()
	tpm := onSWTPM(t, second)
	parent, err := tpm.Parent()
	if err := errors.Join(err, tpm.Close()); err != nil {
		t.Fatal(err)
	}
	fingerprint, err := tpmseal.Fingerprint(parent)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "move")
	b := backup(t, v, dir)
	if err := v.MoveOut(file, parent, fingerprint, tpmseal.Wrap, officer); err != nil {
		t.Fatal(err)
	}
	wantState(t, v.Unlock(pin("1234")), vault.StateMoved, fingerprint)
	wantState(t, on(first).MoveIn(file, vault.Setup{}), vault.StateTPMChanged, "")
	n := on(second)
	if err := errors.Join(n.MoveIn(file, vault.Setup{PIN: pin("9876")}), n.Unlock(pin("9876"))); err != nil {
		t.Fatal(err)
	}
	if got, err := contents(n); got != want || err != nil || n.ID() != id {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
	identity, _ := vaulttest.Identity()
	r := on(first)
	if err := errors.Join(r.Restore(b.Path(), identity, vault.Setup{PIN: pin("5555")}), r.Unlock(pin("5555"))); err != nil {
		t.Fatal(err)
	}
	if got := kept(t, r); !strings.Contains(got, fmt.Sprintf("%x", "0123456789")) || r.ID() == id {
		t.Errorf("restored as %s: %s", r.ID(), got)
	}
}

func TestMoveFromPassphrase(t *testing.T) {
	v := vault.At(filepath.Join(t.TempDir(), "vault"), func() (vault.Sealer, error) { return passseal.NewWithParams(stretch.Minimum()) })
	tidy(t, v)
	if err := errors.Join(v.Init(vaulttest.Setup(pin("a passphrase"))), v.Unlock(pin("a passphrase"))); err != nil {
		t.Fatal(err)
	}
	update(t, v, func(tx *vault.Tx) error { return put(tx, alice, []byte("s")) })
	to := newBoard(t)
	file := filepath.Join(t.TempDir(), "move")
	if err := moveOut(v, file, to); err != nil {
		t.Fatal(err)
	}
	n := to.vault(t)
	if err := errors.Join(n.MoveIn(file, vault.Setup{}), n.Unlock(secret.Secret{}), n.Check()); err != nil {
		t.Fatal(err)
	}
	if n.Level() != vault.LevelEmulated || !n.Condition().Anchored {
		t.Errorf("%+v", n.Condition())
	}
}
