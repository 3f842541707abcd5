package keeper_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tokendesk/cmd/internal/keeper"
	"tokendesk/provision"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

var alice = audit.Officer{UID: 1000, Name: "alice"}

func pin(text string) secret.Secret { return secret.New([]byte(text)) }

// made is a keeper of a vault that was made and is locked. open may be nil.
func made(t *testing.T, number string, open func() (vault.Sealer, error)) *keeper.Keeper {
	t.Helper()
	board := vaulttest.NewChip()
	path := filepath.Join(t.TempDir(), "vault")
	if err := vault.At(path, board.Open).Init(vaulttest.Setup(pin(number))); err != nil {
		t.Fatal(err)
	}
	if open == nil {
		open = board.Open
	}
	k := &keeper.Keeper{Vault: vault.At(path, open), Log: slog.New(slog.NewTextHandler(io.Discard, nil)), ShredAfter: time.Hour}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

func acts(t *testing.T, k *keeper.Keeper) (all []audit.Entry) {
	t.Helper()
	err := k.Vault.View(func(tx *vault.Tx) error {
		return tx.Acts(1, func(e audit.Entry) (bool, error) { all = append(all, e); return true, nil })
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func run(t *testing.T, k *keeper.Keeper) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { k.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
}

func TestRefusedPINsAreOnRecordOnceItIsOpen(t *testing.T) {
	k := made(t, "1234", nil)
	opened := 0
	k.Opened = func() { opened++ }
	if err := k.Open(); err == nil || k.IsOpen() {
		t.Fatal("it opens without its PIN")
	}
	for range 150 {
		if err := k.Unlock(pin("4321"), alice); err == nil {
			t.Fatal("it opens with a wrong PIN")
		}
	}
	if err := k.Unlock(pin("1234"), alice); err != nil || opened != 1 {
		t.Fatalf("%v, opened %d times", err, opened)
	}
	all := acts(t, k)
	if n := len(all); n != 1+100+1+1 {
		t.Fatalf("%d acts: %+v", n, all)
	}
	if a := all[1]; a.Officer != alice || a.Action != "vault unlock" || a.Outcome != "vault" || !strings.HasPrefix(a.Reason, "at 20") || strings.Contains(a.Reason, "4321") {
		t.Errorf("a refused PIN is recorded as %+v", a)
	}
	if a := all[101]; a.Outcome != "dropped" || !strings.HasPrefix(a.Reason, "50 acts") {
		t.Errorf("what was too much is recorded as %+v", a)
	}
	if a := all[102]; a.Officer != alice || a.Outcome != "done" {
		t.Errorf("the opening is recorded as %+v", a)
	}
}

// What passes by itself is waited for; the cause is on record once.
func TestVaultIsOpenedOnceTheTPMIsThere(t *testing.T) {
	board := vaulttest.NewChip()
	path := filepath.Join(t.TempDir(), "vault")
	if err := vault.At(path, board.Open).Init(vaulttest.Setup(secret.Secret{})); err != nil {
		t.Fatal(err)
	}
	attempts := 0
	k := &keeper.Keeper{Log: slog.New(slog.DiscardHandler), Vault: vault.At(path, func() (vault.Sealer, error) {
		if attempts++; attempts < 3 {
			return nil, &vault.StateError{State: vault.StateTPMAbsent, Err: errors.New("no TPM"), Cure: "wait"}
		}
		return board.Open()
	})}
	opened := make(chan struct{})
	k.Opened = func() { close(opened) }
	if err := k.Open(); err == nil || k.Problem() == nil {
		t.Fatal("it opens without a TPM")
	}
	run(t, k)
	<-opened
	if k.Close() != nil || attempts != 3 {
		t.Errorf("%d attempts", attempts)
	}
}

func TestLockIsNotUndone(t *testing.T) {
	k := made(t, "", nil)
	if err := k.Open(); err != nil {
		t.Fatal(err)
	}
	run(t, k)
	if err := k.Lock(t.Context(), alice, false); err != nil || k.IsOpen() {
		t.Fatal(err)
	}
	for range 100 {
		k.Nudge()
	}
	if k.IsOpen() {
		t.Error("it was opened again by itself")
	}
	if err := k.Unlock(secret.Secret{}, alice); err != nil {
		t.Fatal(err)
	}
	if a := acts(t, k); a[len(a)-2].Action != "vault lock" || a[len(a)-2].Officer != alice {
		t.Errorf("the lock is recorded as %+v", a)
	}
}

func TestWorkKeepsTheVaultOpen(t *testing.T) {
	k := made(t, "", nil)
	if err := k.Open(); err != nil {
		t.Fatal(err)
	}
	ctx, end, err := k.Works.Begin(t.Context(), "enroll of yk-1/otp2 by alice")
	if err != nil {
		t.Fatal(err)
	}
	refused := (*provision.RefusedError)(nil)
	if err := k.Lock(t.Context(), alice, false); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "enroll of yk-1/otp2 by alice") || !k.IsOpen() {
		t.Fatalf("locking under work: %v", err)
	}
	if err := k.Replace(t.Context(), func() error { panic("replaced under work") }); !errors.As(err, &refused) {
		t.Fatalf("replacing under work: %v", err)
	}
	began := make(chan error, 1)
	go func() {
		<-ctx.Done()
		go func() { // waits until the vault is locked
			_, end, err := k.Works.Begin(t.Context(), "another")
			end()
			if k.IsOpen() {
				err = errors.New("work began before the vault was locked")
			}
			began <- err
		}()
		if !k.IsOpen() {
			t.Error("the vault was locked before its work had ended")
		}
		end()
	}()
	if err := k.Lock(t.Context(), alice, true); err != nil || k.IsOpen() {
		t.Fatalf("locking by force: %v", err)
	}
	if err := <-began; err != nil {
		t.Error(err)
	}
}

func TestOneAttemptAtATime(t *testing.T) {
	k := made(t, "", nil)
	err := k.Replace(t.Context(), func() error { return k.Unlock(secret.Secret{}, alice) })
	if refused := (*provision.RefusedError)(nil); !errors.As(err, &refused) || k.IsOpen() {
		t.Errorf("a second attempt at the same time: %v", err)
	}
}

// A backup is due at once where there is none; what cannot be written is on record and shown.
func TestBackups(t *testing.T) {
	k := made(t, "", nil)
	dir := filepath.Join(t.TempDir(), "later")
	k.Backups = keeper.Schedule{Dir: dir, Every: time.Hour, Keep: 2}
	if err := k.Open(); err != nil {
		t.Fatal(err)
	}
	run(t, k)
	await(t, "a failure on record", func() bool {
		all := acts(t, k)
		return all[len(all)-1].Action == "vault backup" && all[len(all)-1].Officer.UID == audit.DeskUID
	})
	await(t, "its reason shown", func() bool { return strings.Contains(k.Overdue(), "none was made yet; ") })
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	await(t, "a backup", func() bool { return k.Overdue() == "" })
	for range 3 {
		if _, err := k.Backup(alice); err != nil {
			t.Fatal(err)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 2 {
		t.Errorf("%d files are left: %v", len(files), err)
	}
}

func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for tick := time.NewTicker(5 * time.Millisecond); !so(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: this did not come to be", what)
		}
	}
}

// A head is shipped with the first act, when the vault is locked, and at the end; not with every act.
func TestHeads(t *testing.T) {
	k := made(t, "", nil)
	var journal bytes.Buffer
	k.Heads.Journal, k.Heads.File = &journal, filepath.Join(t.TempDir(), "heads")
	if err := k.Open(); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		k.Record(audit.Act{Officer: alice, Action: "look", Outcome: "refused"})
	}
	if err := k.Lock(t.Context(), alice, false); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(k.Heads.File)
	if err != nil || string(file) != journal.String() || k.Heads.Problem() != nil {
		t.Errorf("the file says %q, the journal %q: %v, %v", file, &journal, err, k.Heads.Problem())
	}
	h, err := audit.ParseHead(string(file))
	if err != nil || strings.Count(string(file), "\n") != 1 || h.Seq != 1+1+5+1 || h.Verify(h.Key) != nil {
		t.Errorf("%+v, %v", h, err)
	}
}
