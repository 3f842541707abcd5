package vault_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

// stocked is a vault on a chip with tokens, a job and changes of several kinds.
func stocked(t testing.TB, code string) (*vault.Vault, *vaulttest.Chip) {
	t.Helper()
	chip := vaulttest.NewChip()
	v := vault.At(filepath.Join(t.TempDir(), "vault"), chip.Open)
	if err := errors.Join(v.Init(vaulttest.Setup(pin(code))), v.Unlock(pin(code))); err != nil {
		t.Fatal(err)
	}
	tidy(t, v)
	update(t, v, func(tx *vault.Tx) error {
		var errs []error
		for _, id := range []device.TokenID{alice, bob} {
			errs = append(errs, put(tx, id, []byte("seed of "+id)))
		}
		for _, k := range []vault.ChangeKind{vault.Put, vault.Assign, vault.Disable, vault.Unassign, vault.Advance} {
			_, err := tx.Enqueue(vault.Change{Kind: k, Token: alice, Generation: 1, User: "alice"})
			errs = append(errs, err)
		}
		errs = append(errs, tx.PutJob(&vault.Job{Kind: "enroll", Token: bob, Params: []byte(`{"digits":6}`)}), tx.Audit(audit.Act{Action: "fill", Object: string(alice), Outcome: "done"}),
			put(tx, gone, []byte("seed of "+gone)), tx.Bury(vault.Tombstone{ID: gone, Officer: "olga", Reason: "scrapped"}),
			tx.PutApproval(&vault.Approval{Action: "delete", Object: string(alice), Expires: time.Now().Add(time.Hour)}), custody(tx, alice, gone))
		return errors.Join(errs...)
	})
	return v, chip
}

// tidy closes a vault when the test ends, and checks it if it is open then.
func tidy(t testing.TB, v *vault.Vault) {
	t.Cleanup(func() {
		if v.Condition().State == vault.StateOpen {
			if err := v.Check(); err != nil {
				t.Errorf("the vault fails its check: %v", err)
			}
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
}

func backup(t testing.TB, v *vault.Vault, dir string) vault.Backup {
	t.Helper()
	b, err := v.Backup(dir, officer)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func backups(t testing.TB, v *vault.Vault) (list []vault.Backup) {
	t.Helper()
	view(t, v, func(tx *vault.Tx) (err error) { list, err = tx.Backups(); return err })
	return list
}

// names are those of the files in a directory.
func names(t testing.TB, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// decrypted is what an age file holds, as age itself sees it.
func decrypted(t testing.TB, path string, identity secret.Secret) []byte {
	t.Helper()
	ids, err := age.ParseIdentities(bytes.NewReader(identity.Reveal()))
	if err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(bytes.NewReader(copyOf(t, path)), ids...)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := out.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestBackupIsRecorded(t *testing.T) {
	v, _ := stocked(t, "1234")
	dir, before := t.TempDir(), epoch(v)
	b := backup(t, v, dir)
	want := fmt.Sprintf(`^tokendesk-%s-\d{8}T\d{6}\.\d{3}Z-e%d\.age$`, v.ID()[:8], before)
	if !regexp.MustCompile(want).MatchString(b.Name) || b.Dir != dir || !slices.Equal(names(t, dir), []string{b.Name}) {
		t.Errorf("%+v, and %s holds %q", b, dir, names(t, dir))
	}
	if info, err := os.Stat(b.Path()); err != nil || info.Mode() != 0o600 || info.Size() != b.Size {
		t.Errorf("%v, %v", info, err)
	}
	if !b.There() || vault.VerifyBackupFile(b) != nil {
		t.Error("the backup does not verify")
	}
	if list := backups(t, v); len(list) != 1 || list[0] != b {
		t.Errorf("%+v is on record", list)
	}
	if left := names(t, filepath.Dir(v.Path())); len(left) != 1 {
		t.Errorf("beside the vault: %q", left)
	}
	if last := lastAct(t, v); last.Action != "vault backup" || last.Object != b.Path() || last.Officer != officer.Officer {
		t.Errorf("the last act is %+v", last)
	}
	if epoch(v) != before+1 {
		t.Error("an older vault that knows nothing of the backup can be put back")
	}
	whole := copyOf(t, b.Path())
	whole[len(whole)/2] ^= 1
	if err := os.WriteFile(b.Path(), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if !b.There() || vault.VerifyBackupFile(b) == nil {
		t.Error("a flipped bit goes unnoticed")
	}
	if err := os.Remove(b.Path()); err != nil {
		t.Fatal(err)
	}
	if err := vault.VerifyBackupFile(b); b.There() || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

// A backup that is on record before the TPM has answered gets its name from the next one.
func TestBackupWaitsForTheTPM(t *testing.T) {
	v, chip := onChip(t, "")
	dir := t.TempDir()
	chip.Fail = func(call string) (error, bool) { return map[string]error{"increment": errGone}[call], false }
	if _, err := v.Backup(dir, officer); !errors.Is(err, vault.ErrUnanchored) {
		t.Fatalf("got %v", err)
	}
	if found := names(t, dir); len(found) != 1 || !strings.HasSuffix(found[0], ".new") {
		t.Errorf("before the TPM has answered, there is %q", found)
	}
	chip.Fail = nil
	backup(t, v, dir)
	list := backups(t, v)
	if len(list) != 2 || len(names(t, dir)) != 2 {
		t.Errorf("on record are %+v, and there is %q", list, names(t, dir))
	}
	for _, b := range list {
		if err := vault.VerifyBackupFile(b); err != nil {
			t.Error(err)
		}
	}
}

func lastAct(t testing.TB, v *vault.Vault) (last audit.Entry) {
	t.Helper()
	view(t, v, func(tx *vault.Tx) error {
		return tx.Acts(tx.Trail().Seq, func(e audit.Entry) (bool, error) { last = e; return true, nil })
	})
	return last
}

// What was deleted stays in the file's free pages until it is rotated. It is in no backup made after.
func TestBackupHoldsNothingDeleted(t *testing.T) {
	v, _ := stocked(t, "")
	var sealed []byte
	sealedSeed := func(file []byte) (val []byte) {
		path := filepath.Join(t.TempDir(), "copy")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		raw(t, path, func(tx *bbolt.Tx) error {
			val = bytes.Clone(tx.Bucket([]byte("seeds")).Get([]byte(string(bob) + "\x00\x00\x00\x00\x02")))
			return nil
		})
		return val
	}
	update(t, v, func(tx *vault.Tx) error { return tx.SetSeed(bob, 2, secret.New([]byte("another seed"))) })
	if sealed = sealedSeed(copyOf(t, v.Path())); len(sealed) == 0 {
		t.Fatal("there is no seed to look for")
	}
	identity, _ := vaulttest.Identity()
	first := backup(t, v, t.TempDir())
	if !bytes.Contains(decrypted(t, first.Path(), identity), sealed) {
		t.Error("the backup lacks the seed that was there")
	}
	update(t, v, func(tx *vault.Tx) error { return tx.DeleteSeed(bob, 2) })
	if !bytes.Contains(copyOf(t, v.Path()), sealed) {
		t.Fatal("the file holds no old pages, so the search proves nothing")
	}
	second := backup(t, v, t.TempDir())
	if bytes.Contains(decrypted(t, second.Path(), identity), sealed) {
		t.Error("the backup holds a seed that was deleted")
	}
	if list := backups(t, v); len(list) != 2 || list[0].Since != 0 || list[1].Since != 1 {
		t.Errorf("destroyed since: %+v", list)
	}
	if err := v.Rotate(officer, nil); err != nil {
		t.Fatal(err)
	}
	if list := backups(t, v); len(list) != 2 || list[1].Since != 1 {
		t.Errorf("after a rotation: %+v", list)
	}
}

func TestBackupWhileOthersWork(t *testing.T) {
	v, _ := stocked(t, "")
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		defer close(done)
		for i := range 10_000 {
			select {
			case <-stop:
				return
			default:
			}
			err := v.Update(func(tx *vault.Tx) error {
				tok, err := tx.Token(alice)
				tok.Counter++
				err = errors.Join(err, tx.PutToken(tok), tx.SetSeed(bob, 2+i, secret.Random(20)))
				if i > 0 {
					err = errors.Join(err, tx.DeleteSeed(bob, 1+i))
				}
				return err
			})
			if err != nil {
				done <- err
				return
			}
		}
	}()
	identity, _ := vaulttest.Identity()
	for range 5 {
		b := backup(t, v, t.TempDir())
		r := vault.At(filepath.Join(t.TempDir(), "vault"), vaulttest.NewChip().Open)
		if err := r.Restore(b.Path(), identity, vault.Setup{}); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(r.Unlock(secret.Secret{}), r.Check(), r.Close()); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Locking does not wait for a backup.
func TestLockEndsABackup(t *testing.T) {
	v, _ := stocked(t, "")
	update(t, v, func(tx *vault.Tx) error {
		var err error
		for i := range 20_000 {
			err = errors.Join(err, tx.PutToken(vault.Token{ID: device.SlotToken(device.YubiKeyID(device.Serial(10_000+i)), 1), Status: vault.Pending}))
		}
		return err
	})
	dir := t.TempDir()
	for range 20 { // it may just have been about to end
		done := make(chan error)
		go func() {
			_, err := v.Backup(dir, officer)
			done <- err
		}()
		for len(names(t, dir)) == 0 { // until it writes
			select {
			case err := <-done:
				t.Fatal(err)
			default:
				runtime.Gosched()
			}
		}
		if err := v.Lock(); err != nil {
			t.Fatal(err)
		}
		err := <-done
		wantState(t, err, vault.StateLocked, "")
		if len(names(t, dir)) != 0 || len(names(t, filepath.Dir(v.Path()))) != 1 {
			t.Errorf("left %q and %q", names(t, dir), names(t, filepath.Dir(v.Path())))
		}
		if strings.Contains(err.Error(), "is being locked") {
			return
		}
		if err := v.Unlock(secret.Secret{}); err != nil {
			t.Fatal(err)
		}
	}
	t.Error("a lock has waited for 20 backups")
}

func TestBackupThatFailsLeavesNothing(t *testing.T) {
	if !alone(t) {
		return
	}
	v, _ := stocked(t, "")
	dir := t.TempDir()
	before := lastAct(t, v)
	if _, err := v.Backup(filepath.Join(dir, "absent"), officer); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("into nowhere: %v", err)
	}
	withFileLimit(t, 8<<10, func() {
		if _, err := v.Backup(dir, officer); !errors.Is(err, unix.EFBIG) || !strings.Contains(err.Error(), "make room") {
			t.Errorf("a full disk: %v", err)
		}
	})
	if err := v.Lock(); err != nil {
		t.Fatal(err)
	}
	_, err := v.Backup(dir, officer)
	wantState(t, err, vault.StateLocked, "locked")
	if err := v.Unlock(secret.Secret{}); err != nil {
		t.Fatal(err)
	}
	if now := lastAct(t, v); now != before || len(backups(t, v)) != 0 || len(names(t, dir)) != 0 || len(names(t, filepath.Dir(v.Path()))) != 1 {
		t.Errorf("left: %+v, %q, %q", backups(t, v), names(t, dir), names(t, filepath.Dir(v.Path())))
	}
	backup(t, v, dir)
}

// A crash leaves a file without its name. If it is the recorded backup, the next one names it; otherwise it goes.
func TestBackupSettlesWhatACrashLeft(t *testing.T) {
	v, _ := stocked(t, "")
	dir := t.TempDir()
	b := backup(t, v, dir)
	if err := os.Rename(b.Path(), filepath.Join(dir, "."+b.Name+".new")); err != nil {
		t.Fatal(err)
	}
	prefix := strings.Join(strings.Split(b.Name, "-")[:2], "-")
	for _, stale := range []string{"." + prefix + "-20260101T000000.000Z-e1.age.new", ".tokendesk-OTHERONE-20260101T000000.000Z-e1.age.new"} {
		if err := os.WriteFile(filepath.Join(dir, stale), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	next := backup(t, v, dir)
	want := []string{".tokendesk-OTHERONE-20260101T000000.000Z-e1.age.new", b.Name, next.Name}
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if err := vault.VerifyBackupFile(b); err != nil {
		t.Error(err)
	}
}

func TestPruneBackups(t *testing.T) {
	v, _ := stocked(t, "")
	dir, other := t.TempDir(), t.TempDir()
	elsewhere := backup(t, v, other)
	var made []vault.Backup
	for range 6 {
		made = append(made, backup(t, v, dir))
	}
	foreign := filepath.Join(dir, made[0].Name[:len(made[0].Name)-4]+"0.age")
	if err := os.WriteFile(foreign, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(made[3].Path()); err != nil { // somebody has taken it away
		t.Fatal(err)
	}
	if err := os.WriteFile(made[0].Path(), []byte("replaced"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := v.PruneBackups(dir, 0, officer); err == nil {
		t.Error("kept none")
	}
	removed, err := v.PruneBackups(dir, 2, officer)
	if err == nil || !strings.Contains(err.Error(), made[0].Name) {
		t.Errorf("a replaced file goes unreported: %v", err)
	}
	if len(removed) != 2 || removed[0].Seq != made[2].Seq || removed[1].Seq != made[1].Seq {
		t.Errorf("removed %+v", removed)
	}
	want := []string{filepath.Base(foreign), made[0].Name, made[4].Name, made[5].Name}
	slices.Sort(want)
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("left %q, want %q", got, want)
	}
	var left []uint64
	for _, b := range backups(t, v) {
		left = append(left, b.Seq)
	}
	if !slices.Equal(left, []uint64{made[5].Seq, made[4].Seq, made[3].Seq, made[0].Seq, elsewhere.Seq}) {
		t.Errorf("on record: %v", left)
	}
	if last := lastAct(t, v); last.Action != "vault prune backup" || last.Object != made[1].Path() {
		t.Errorf("the last act is %+v", last)
	}
}
