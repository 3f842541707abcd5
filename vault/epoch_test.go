package vault_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

var officer = audit.Act{Officer: audit.Officer{UID: 1000, Name: "olga"}}

func pin(s string) secret.Secret { return secret.New([]byte(s)) }

// onChip makes a vault on a chip of its own, and opens it.
func onChip(t testing.TB, code string) (*vault.Vault, *vaulttest.Chip) {
	t.Helper()
	chip := vaulttest.NewChip()
	v := vault.At(filepath.Join(t.TempDir(), "vault"), chip.Open)
	if err := v.Init(vaulttest.Setup(pin(code))); err != nil {
		t.Fatal(err)
	}
	if err := v.Unlock(pin(code)); err != nil {
		t.Fatal(err)
	}
	vaulttest.CheckAtEnd(t, v)
	return v, chip
}

func copyOf(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func epoch(v *vault.Vault) uint64 { return v.Condition().Epoch }

func TestOlderFileIsRefused(t *testing.T) {
	v, _ := onChip(t, "")
	update(t, v, func(tx *vault.Tx) error { return put(tx, alice, []byte("s")) })
	old := copyOf(t, v.Path())
	update(t, v, func(tx *vault.Tx) error { return put(tx, bob, []byte("t")) })
	if err := v.Lock(); err != nil {
		t.Fatal(err)
	}
	latest := copyOf(t, v.Path())
	if err := os.WriteFile(v.Path(), old, 0o600); err != nil {
		t.Fatal(err)
	}
	wantState(t, v.Unlock(secret.Secret{}), vault.StateRollback, "restored copy")
	wantState(t, v.View(func(*vault.Tx) error { return nil }), vault.StateRollback, "epoch")
	if err := os.WriteFile(v.Path(), latest, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := v.Unlock(secret.Secret{}); err != nil {
		t.Fatal(err)
	}
}

// Counter moves share an epoch; whatever has an effect outside has one of its own; what changes nothing has none.
func TestEpochsAreSpent(t *testing.T) {
	v, _ := onChip(t, "")
	update(t, v, func(tx *vault.Tx) error { return put(tx, alice, []byte("s")) })
	at := epoch(v)
	for range 5 {
		update(t, v, func(tx *vault.Tx) error {
			tok, err := tx.Token(alice)
			tok.Counter++
			_, qerr := tx.Enqueue(vault.Change{Kind: vault.Advance, Token: alice, Generation: 1})
			return errors.Join(err, tx.PutToken(tok), qerr)
		})
	}
	update(t, v, func(tx *vault.Tx) error { _, err := tx.Token(alice); return err })
	if e := epoch(v); e != at {
		t.Errorf("counter moves took %d epochs", e-at)
	}
	old := copyOf(t, v.Path())
	if err := v.Lock(); err != nil { // the end of the day gives them one together
		t.Fatal(err)
	}
	latest := copyOf(t, v.Path())
	if err := os.WriteFile(v.Path(), old, 0o600); err != nil {
		t.Fatal(err)
	}
	wantState(t, v.Unlock(secret.Secret{}), vault.StateRollback, "restored copy")
	if err := os.WriteFile(v.Path(), latest, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := v.Unlock(secret.Secret{}); err != nil {
		t.Fatal(err)
	}
	if e := epoch(v); e != at+1 {
		t.Errorf("five counter moves took %d epochs", e-at)
	}
	update(t, v, func(tx *vault.Tx) error {
		_, err := tx.Enqueue(vault.Change{Kind: vault.Unassign, Token: alice})
		return err
	})
	if e := epoch(v); e != at+2 {
		t.Errorf("a cut-off took %d epochs", e-at-1)
	}
}

var errGone = errors.New("gone")

// A TPM that fails after the commit holds the change back: nobody sees it until the counter has followed.
func TestNothingIsSeenBeforeTheCounterFollows(t *testing.T) {
	for name, effect := range map[string]bool{"not raised": false, "raised, answer lost": true} {
		t.Run(name, func(t *testing.T) {
			v, chip := onChip(t, "")
			broken := true
			chip.Fail = func(call string) (error, bool) {
				switch {
				case broken && call == "increment":
					return errGone, effect
				case broken && call == "count":
					return errGone, false
				}
				return nil, false
			}
			err := v.Update(func(tx *vault.Tx) error { return put(tx, alice, []byte("s")) })
			if !errors.Is(err, vault.ErrUnanchored) || !errors.Is(err, errGone) {
				t.Fatalf("got %v", err)
			}
			see := func() error { return v.View(func(tx *vault.Tx) error { _, err := tx.Token(alice); return err }) }
			if err := see(); !errors.Is(err, vault.ErrUnanchored) {
				t.Errorf("seen although the counter has not followed: %v", err)
			}
			if err := v.Update(func(tx *vault.Tx) error { return put(tx, bob, []byte("t")) }); !errors.Is(err, vault.ErrUnanchored) {
				t.Errorf("changed although the counter has not followed: %v", err)
			}
			broken = false
			if err := see(); err != nil {
				t.Errorf("with the chip back: %v", err)
			}
			if err := v.Lock(); err != nil {
				t.Fatal(err)
			}
			if err := v.Unlock(secret.Secret{}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A crash between commit and counter leaves a file that is one step ahead: it is rolled forward by itself.
func TestCrashWindowRollsForward(t *testing.T) {
	v, chip := onChip(t, "")
	chip.Fail = func(call string) (error, bool) { return map[string]error{"increment": errGone}[call], false }
	if err := v.Update(func(tx *vault.Tx) error { return put(tx, alice, []byte("s")) }); !errors.Is(err, vault.ErrUnanchored) {
		t.Fatal(err)
	}
	ahead := copyOf(t, v.Path())
	chip.Fail = nil
	if err := v.Lock(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(v.Path(), ahead, 0o600); err != nil {
		t.Fatal(err)
	}
	_, before := chip.Counters()
	if err := v.Unlock(secret.Secret{}); err != nil {
		t.Fatal(err)
	}
	if _, after := chip.Counters(); after != before+1 {
		t.Errorf("the counter went from %d to %d", before, after)
	}
	view(t, v, func(tx *vault.Tx) error { _, err := tx.Token(alice); return err })
}

func TestLostCounterIsNamed(t *testing.T) {
	v, chip := onChip(t, "")
	if err := v.Lock(); err != nil {
		t.Fatal(err)
	}
	chip.Clear()
	err := v.Unlock(secret.Secret{})
	var state *vault.StateError
	if !errors.As(err, &state) || state.State != vault.StateCounterLost {
		t.Errorf("got %v", err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestPIN(t *testing.T) {
	v, _ := onChip(t, "one two")
	update(t, v, func(tx *vault.Tx) error { return put(tx, alice, []byte("s")) })
	before := copyOf(t, v.Path())
	wantState(t, v.ChangePIN(pin("wrong"), pin("three"), officer), vault.StateWrongPIN, "(3 left)")
	if err := v.ChangePIN(pin("one two"), pin("three"), officer); err != nil {
		t.Fatal(err)
	}
	if err := v.Lock(); err != nil {
		t.Fatal(err)
	}
	wantState(t, v.View(func(*vault.Tx) error { return nil }), vault.StateLocked, "vault unlock")
	wantState(t, v.Unlock(secret.Secret{}), vault.StateLocked, "vault unlock")
	wantState(t, v.Unlock(pin("one two")), vault.StateWrongPIN, "does not open")
	if err := v.Unlock(pin("three")); err != nil {
		t.Fatal(err)
	}
	view(t, v, func(tx *vault.Tx) error { _, err := tx.Seed(alice, 1); return err })
	if err := v.Lock(); err != nil {
		t.Fatal(err)
	}
	// The old PIN does not even open the old file.
	latest := copyOf(t, v.Path())
	if err := os.WriteFile(v.Path(), before, 0o600); err != nil {
		t.Fatal(err)
	}
	wantState(t, v.Unlock(pin("one two")), vault.StateRollback, "before the last rotation")
	if err := os.WriteFile(v.Path(), latest, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := v.Unlock(pin("three")); err != nil {
		t.Fatal(err)
	}
	// A PIN can be taken off and put on: all keys change with it.
	for _, step := range [][2]string{{"three", ""}, {"", "four"}} {
		if err := v.ChangePIN(pin(step[0]), pin(step[1]), officer); err != nil {
			t.Fatal(err)
		}
		if c := v.Condition(); c.PIN != (step[1] != "") {
			t.Errorf("after %q: PIN %v", step, c.PIN)
		}
		view(t, v, func(tx *vault.Tx) error { _, err := tx.Seed(alice, 1); return err })
		if err := v.Lock(); err != nil {
			t.Fatal(err)
		}
		if err := v.Unlock(pin(step[1])); err != nil {
			t.Fatal(err)
		}
	}
}

// After a rotation nothing of an older file opens, neither by itself nor with what the new one leads to.
func TestRotationShreds(t *testing.T) {
	v, chip := onChip(t, "")
	update(t, v, func(tx *vault.Tx) error { return errors.Join(put(tx, alice, []byte("s")), put(tx, bob, []byte("t"))) })
	update(t, v, func(tx *vault.Tx) error { return tx.DeleteToken(alice) })
	if v.Condition().Shred.IsZero() {
		t.Error("a destroyed seed is not noted")
	}
	old, id := copyOf(t, v.Path()), v.ID()
	if err := v.Rotate(officer, nil); err != nil {
		t.Fatal(err)
	}
	c := v.Condition()
	if !c.Shred.IsZero() || c.ID != id || c.State != vault.StateOpen {
		t.Errorf("after a rotation: %+v", c)
	}
	now := copyOf(t, v.Path())
	if bytes.Contains(now, []byte(alice+"\x00")) {
		t.Error("the new file still has the key of a deleted seed")
	}
	view(t, v, func(tx *vault.Tx) error { _, err := tx.Seed(bob, 1); return err })
	if err := v.Check(); err != nil {
		t.Error(err)
	}
	update(t, v, func(tx *vault.Tx) error { return put(tx, "yk-7/otp1", []byte("u")) })
	if err := v.Lock(); err != nil {
		t.Fatal(err)
	}
	elsewhere := vault.At(filepath.Join(t.TempDir(), "vault"), chip.Open)
	if err := os.WriteFile(elsewhere.Path(), old, 0o600); err != nil {
		t.Fatal(err)
	}
	wantState(t, elsewhere.Unlock(secret.Secret{}), vault.StateRollback, "before the last rotation")
	if err := v.Unlock(secret.Secret{}); err != nil {
		t.Fatal(err)
	}
	// What was seen stays seen.
	refused(t, v, "been here before", func(tx *vault.Tx) error { return put(tx, "yk-9/otp1", []byte("s")) })
	view(t, v, func(tx *vault.Tx) error {
		var actions []string
		err := tx.Acts(1, func(e audit.Entry) (bool, error) { actions = append(actions, e.Action); return true, nil })
		if len(actions) != 2 || actions[0] != "vault init" || actions[1] != "vault rotate" {
			t.Errorf("the trail is %q", actions)
		}
		return err
	})
}

// Readers see one state while the file is rewritten beneath them.
func TestReadersOutliveARotation(t *testing.T) {
	v, _ := onChip(t, "")
	update(t, v, func(tx *vault.Tx) error { return put(tx, alice, []byte("s")) })
	inside, leave, rotated := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	read := make(chan error, 1)
	go func() {
		read <- v.View(func(tx *vault.Tx) error {
			close(inside)
			<-leave
			_, err := tx.Seed(alice, 1)
			return err
		})
	}()
	<-inside
	go func() { rotated <- v.Rotate(officer, nil) }()
	close(leave)
	if err := errors.Join(<-read, <-rotated); err != nil {
		t.Fatal(err)
	}
	view(t, v, func(tx *vault.Tx) error { _, err := tx.Seed(alice, 1); return err })
}

func TestPeekShowsWhatWaits(t *testing.T) {
	v, _ := onChip(t, "pin")
	update(t, v, func(tx *vault.Tx) error {
		_, err := tx.Enqueue(vault.Change{Kind: vault.Unassign, Token: alice, User: "alice"})
		return errors.Join(put(tx, alice, []byte("s")), err, tx.PutJob(&vault.Job{Kind: "reissue", Token: alice}))
	})
	if err := v.Lock(); err != nil {
		t.Fatal(err)
	}
	w, err := v.Peek()
	if err != nil {
		t.Fatal(err)
	}
	if len(w.Changes) != 1 || w.Changes[0].User != "alice" || len(w.Jobs) != 1 || w.Jobs[0].Token != device.TokenID(alice) || w.Tokens != 1 || !w.PIN || w.ID == "" {
		t.Errorf("what waits: %+v", w)
	}
	if err := v.Unlock(pin("pin")); err != nil {
		t.Fatal(err)
	}
}

// A head is signed while others change the vault.
func TestHeadWhileOthersWrite(t *testing.T) {
	v, _ := onChip(t, "")
	update(t, v, func(tx *vault.Tx) error { return put(tx, alice, []byte("s")) })
	ended := make(chan error)
	go func() {
		var err error
		for range 20 {
			err = errors.Join(err, v.Update(func(tx *vault.Tx) error {
				_, err := tx.Enqueue(vault.Change{Kind: vault.Unassign, Token: alice})
				return err
			}))
		}
		ended <- err
	}()
	for {
		view(t, v, func(tx *vault.Tx) error {
			h, err := tx.Head()
			if err == nil && h.Counter != h.Epoch {
				t.Errorf("the head is of epoch %d, and counter %d", h.Epoch, h.Counter)
			}
			return err
		})
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			return
		default:
		}
	}
}
