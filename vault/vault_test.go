package vault_test

import (
	"bytes"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/passseal"
	"tokendesk/vault/secret"
	"tokendesk/vault/stretch"
	"tokendesk/vault/vaulttest"
)

const alice, bob device.TokenID = "yk-1001/otp2", "yk-1002/otp2"

func wantState(t *testing.T, err error, want vault.State, text string) {
	t.Helper()
	var state *vault.StateError
	if !errors.As(err, &state) {
		t.Fatalf("got %v, want state %s", err, want)
	}
	if state.State != want || state.Cure == "" || !strings.Contains(err.Error(), text) {
		t.Fatalf("got state %s (%v), want %s with %q", state.State, err, want, text)
	}
}

func update(t testing.TB, v *vault.Vault, fn func(*vault.Tx) error) {
	t.Helper()
	if err := v.Update(fn); err != nil {
		t.Fatal(err)
	}
}

func view(t testing.TB, v *vault.Vault, fn func(*vault.Tx) error) {
	t.Helper()
	if err := v.View(fn); err != nil {
		t.Fatal(err)
	}
}

// put is a token with its first seed and an access code.
func put(tx *vault.Tx, id device.TokenID, seed []byte) error {
	return errors.Join(
		tx.SetSeed(id, 1, secret.New(bytes.Clone(seed))),
		tx.SetAccessCode(id, secret.New([]byte("access"))),
		tx.PutToken(vault.Token{ID: id, Status: vault.Active, Digits: 6, Generation: 1, Owner: "user of " + string(id)}),
	)
}

// gone is a token that was deleted.
const gone device.TokenID = "yk-9001/otp1"

// filled makes a vault with some of everything, closes it and returns its file.
func filled(t testing.TB, tokens int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vault")
	v := created(t, path)
	update(t, v, func(tx *vault.Tx) error {
		for i := range tokens {
			id, gone := device.SlotToken(device.YubiKeyID(device.Serial(1001+i)), 2), device.SlotToken(device.YubiKeyID(device.Serial(9001+i)), 1)
			_, err := tx.Enqueue(vault.Change{Kind: vault.Put, Token: id, Generation: 1})
			err = errors.Join(put(tx, id, []byte("seed of "+id)), err,
				tx.PutJob(&vault.Job{Kind: "enroll", Token: id, Params: []byte(`{"digits":6}`)}), tx.Audit(vault.Done(officer.Officer, "enroll", id, "")))
			err = errors.Join(err, put(tx, gone, []byte("seed of "+gone)), tx.Bury(vault.Tombstone{ID: gone, Officer: "olga", Reason: "scrapped"}),
				tx.PutApproval(&vault.Approval{Action: "delete", Object: string(id), Request: []byte(`{"action":"delete"}`), Expires: time.Now().Add(time.Hour)}),
				custody(tx, id, gone))
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err := v.Check(); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// custody leaves a record of each kind that outlives what it tells of: another token than id came in its place.
func custody(tx *vault.Tx, id, old device.TokenID) error {
	return errors.Join(
		tx.Audit(vault.Done(officer.Officer, "reissue", id, "bob")),
		tx.PutHandover(&vault.Handover{Kind: vault.Replaced, Token: id, Old: old, From: "alice", To: "bob", Proof: vault.Proof{Codes: 2, Generation: 1}}),
		tx.PutLeaver(vault.Leaver{User: "leaver of " + string(id), Deadline: time.Now().Add(time.Hour), Items: []vault.LeaverItem{{Token: id, State: vault.Open}}}),
		tx.PutNotice(&vault.Notice{Kind: "reissued", User: "alice", Token: id}),
		tx.PutAttempts(vault.TokenAttempts(id), vault.Attempts{Failures: 4, Last: time.Now()}),
		putCard(tx, device.PIVToken(old.Device()), 1), tx.Bury(vault.Tombstone{ID: device.PIVToken(old.Device()), Officer: "olga"}),
		tx.PutCertificate(&vault.Certificate{Token: device.PIVToken(old.Device()), Slot: "9a", DER: []byte("certificate of " + old), RevokeDue: time.Now()}),
	)
}

// created makes a vault and opens it.
func created(t testing.TB, path string) *vault.Vault {
	t.Helper()
	v, err := create(path)
	if err == nil {
		err = v.Unlock(secret.Secret{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// create makes a vault, and leaves it locked.
func create(path string) (*vault.Vault, error) {
	v := vault.At(path, software)
	return v, v.Init(vaulttest.Setup(secret.Secret{}))
}

// software has no counters: copies of a file open side by side.
var software = vaulttest.Board.Software

// open opens a vault that create or vaulttest has made.
func open(path string) (*vault.Vault, error) { return openWith(path, vaulttest.Board.Open) }

func openWith(path string, sealer func() (vault.Sealer, error)) (*vault.Vault, error) {
	v := vault.At(path, sealer)
	return v, v.Unlock(secret.Secret{})
}

func reopen(t testing.TB, path string) *vault.Vault {
	t.Helper()
	return reopenWith(t, path, vaulttest.Board.Open)
}

func reopenWith(t testing.TB, path string, sealer func() (vault.Sealer, error)) *vault.Vault {
	t.Helper()
	v, err := openWith(path, sealer)
	if err != nil {
		t.Fatal(err)
	}
	vaulttest.CheckAtEnd(t, v)
	return v
}

func TestCreateAndReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault")
	v := created(t, path)
	id := v.ID()
	update(t, v, func(tx *vault.Tx) error { return put(tx, alice, []byte("0123456789")) })
	if err := errors.Join(v.Close(), v.Close()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %o", info.Mode().Perm())
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside the vault there is something else: %v %v", entries, err)
	}
	v = reopen(t, path)
	if v.ID() != id || v.Level() != vault.LevelEmulated || v.Path() != path {
		t.Errorf("ID %s (was %s), level %s, path %s", v.ID(), id, v.Level(), v.Path())
	}
	view(t, v, func(tx *vault.Tx) error {
		s, err := tx.Seed(alice, 1)
		if string(s.Reveal()) != "0123456789" {
			t.Error("the seed came back different")
		}
		return err
	})
	if err := v.Update(func(tx *vault.Tx) error { return put(tx, bob, []byte("x")) }); err != nil {
		t.Error(err)
	}
}

func TestCreateRefusesWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("nowhere", link); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{file, dir, link} {
		if _, err := create(p); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v", p, err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "precious" {
		t.Errorf("the file is now %q, %v", got, err)
	}
}

func TestOpenNamesItsState(t *testing.T) {
	path := filled(t, 1)
	dir := filepath.Dir(path)
	write := func(name string, content []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	other := func() (vault.Sealer, error) { return passseal.Fixed(secret.New([]byte("wrong")), stretch.Minimum()) }
	passphrase := filepath.Join(dir, "passphrase")
	if err := vault.At(passphrase, vaulttest.Sealer).Init(vaulttest.Setup(secret.Secret{})); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		path   string
		sealer func() (vault.Sealer, error)
		want   vault.State
		text   string
	}{
		{"absent", filepath.Join(dir, "absent"), other, vault.StateAbsent, "absent"},
		{"passphrase", passphrase, other, vault.StateWrongPassphrase, "does not open"},
		{"empty", write("empty", nil), other, vault.StateCorrupt, "damaged"},
		{"text", write("text", []byte("hello")), other, vault.StateCorrupt, "damaged"},
		{"noise", write("noise", bytes.Repeat([]byte("noise"), 10000)), other, vault.StateCorrupt, "not that of a vault"},
		{"directory", dir, other, vault.StateCorrupt, "directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := openWith(c.path, c.sealer)
			wantState(t, err, c.want, c.text)
		})
	}
	if info, err := os.Stat(filepath.Join(dir, "empty")); err != nil || info.Size() != 0 {
		t.Error("opening an empty file has made something of it")
	}
	if _, err := os.Stat(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("opening has created a file")
	}
}

func TestOpenRefusesAFileThatOthersCanReach(t *testing.T) {
	path := filled(t, 1)
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := open(path)
		wantState(t, err, vault.StatePermission, "chmod 600 "+path)
	}
}

// asNobody runs fn without the rights of root, which file modes do not stop.
func asNobody(t *testing.T, fn func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if os.Geteuid() == 0 {
		if err := unix.Setfsuid(65534); err != nil {
			t.Fatal(err)
		}
		defer unix.Setfsuid(0)
	}
	fn()
}

func TestNoPermission(t *testing.T) {
	path := filled(t, 1)
	dir := filepath.Dir(path)
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		_, err := open(path)
		wantState(t, err, vault.StatePermission, path)
	})
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o700)
	asNobody(t, func() {
		_, err := open(path)
		wantState(t, err, vault.StatePermission, path)
		// It may be there and unreadable: then nothing is created.
		_, err = create(path)
		wantState(t, err, vault.StatePermission, dir)
	})
}

func TestSecondOpenIsInUse(t *testing.T) {
	v := vaulttest.New(t)
	_, err := open(v.Path())
	wantState(t, err, vault.StateInUse, v.Path())
}

func TestFileShowsNoSecret(t *testing.T) {
	v := vaulttest.New(t)
	seed, code := secret.Random(20), secret.Random(6)
	for _, id := range []device.TokenID{alice} {
		update(t, v, func(tx *vault.Tx) error {
			_, err := tx.Enqueue(vault.Change{Kind: vault.Put, Token: id, Generation: 1})
			return errors.Join(err, tx.SetSeed(id, 1, seed), tx.SetAccessCode(id, code),
				tx.PutToken(vault.Token{ID: id, Status: vault.Active, Generation: 1}))
		})
	}
	file, err := os.ReadFile(v.Path())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(file, []byte(alice)) {
		t.Fatal("the inventory is not readable in the file, so the search proves nothing")
	}
	lower := bytes.ToLower(file)
	for name, s := range map[string]secret.Secret{"seed": seed, "access code": code} {
		p := s.Reveal()
		if bytes.Contains(file, p) || bytes.Contains(lower, []byte(hex.EncodeToString(p))) {
			t.Errorf("the file shows a %s, raw or in hex", name)
		}
		// Encodings of a part depend on what came before it: all alignments are looked for.
		for i := range 5 {
			if i+6 > len(p) {
				break
			}
			part := p[i:]
			b64 := base64.RawStdEncoding.EncodeToString(part[:len(part)/3*3])
			b32 := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(part[:len(part)/5*5])
			if bytes.Contains(file, []byte(b64)) || bytes.Contains(lower, bytes.ToLower([]byte(b32))) {
				t.Errorf("the file shows a %s in base64 or base32", name)
			}
		}
	}
	if bytes.Contains(file, []byte(vaulttest.Passphrase)) {
		t.Error("the file shows the passphrase")
	}
}

func TestErrorRollsBack(t *testing.T) {
	v := vaulttest.New(t)
	stop := errors.New("stop")
	err := v.Update(func(tx *vault.Tx) error { return errors.Join(put(tx, alice, []byte("s")), stop) })
	if !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	func() {
		defer func() {
			if p := recover(); p != "bug" {
				t.Errorf("the caller's panic became %v", p)
			}
		}()
		v.Update(func(tx *vault.Tx) error { put(tx, alice, []byte("s")); panic("bug") })
	}()
	view(t, v, func(tx *vault.Tx) error {
		if _, err := tx.Token(alice); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("the token is there: %v", err)
		}
		if _, err := tx.Seed(alice, 1); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("the seed is there: %v", err)
		}
		if err := put(tx, alice, []byte("s")); err == nil {
			t.Error("a view can write")
		}
		return nil
	})
	update(t, v, func(tx *vault.Tx) error { return put(tx, alice, []byte("s")) })
}

func TestTransactionEndsWithItsFunction(t *testing.T) {
	v := vaulttest.New(t)
	var kept *vault.Tx
	update(t, v, func(tx *vault.Tx) error { kept = tx; return nil })
	if err := kept.PutToken(vault.Token{ID: alice, Status: vault.Pending}); err == nil {
		t.Error("wrote after the transaction")
	}
	if err := v.Check(); err != nil {
		t.Errorf("late use has been taken for damage: %v", err)
	}
}

func TestCloseWaitsAndEndsUse(t *testing.T) {
	v := vaulttest.New(t)
	inside, leave, closed := make(chan struct{}), make(chan struct{}), make(chan error)
	var wg sync.WaitGroup
	wg.Go(func() {
		err := v.Update(func(tx *vault.Tx) error {
			close(inside)
			<-leave
			return put(tx, alice, []byte("s"))
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-inside
	go func() { closed <- v.Close() }()
	select {
	case <-closed:
		t.Error("Close did not wait for the transaction")
	default:
	}
	close(leave)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	wg.Wait()
	nothing := func(*vault.Tx) error { return nil }
	for name, err := range map[string]error{"view": v.View(nothing), "update": v.Update(nothing), "check": v.Check()} {
		if !errors.Is(err, vault.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	view(t, reopen(t, v.Path()), func(tx *vault.Tx) error { _, err := tx.Token(alice); return err })
}

func TestConcurrentTransactions(t *testing.T) {
	v := vaulttest.New(t)
	update(t, v, func(tx *vault.Tx) error { return put(tx, alice, []byte("s")) })
	const workers, rounds = 4, 10
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range rounds {
				err := v.Update(func(tx *vault.Tx) error {
					tok, err := tx.Token(alice)
					tok.Counter++
					return errors.Join(err, tx.PutToken(tok))
				})
				err = errors.Join(err, v.View(func(tx *vault.Tx) error {
					_, _, err := tx.Tokens(vault.Filter{})
					s, serr := tx.Seed(alice, 1)
					s.Wipe()
					return errors.Join(err, serr)
				}))
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	view(t, v, func(tx *vault.Tx) error {
		tok, err := tx.Token(alice)
		if tok.Counter != workers*rounds {
			t.Errorf("counter %d", tok.Counter)
		}
		return err
	})
}
