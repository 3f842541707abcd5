package vault_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/stretch"
	"tokendesk/vault/tpmseal"
	"tokendesk/vault/vaulttest"
)

// A desk is a board with a software TPM that can be switched off and on, and cleared.
type desk struct {
	t      *testing.T
	dir    string
	device string
	stop   func() error
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	dir, err := os.MkdirTemp("", "td") // t.TempDir is too long for a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	b := &desk{t: t, dir: dir}
	b.on()
	t.Cleanup(func() {
		b.off()
		os.RemoveAll(dir)
	})
	return b
}

func (b *desk) on() {
	b.t.Helper()
	var err error
	if b.device, b.stop, err = vaulttest.StartSWTPMProcess(b.dir); err != nil {
		b.t.Fatal(err)
	}
}

func (b *desk) off() {
	b.t.Helper()
	if err := b.stop(); err != nil {
		b.t.Error(err)
	}
}

// replace puts another TPM into the board.
func (b *desk) replace() {
	b.t.Helper()
	b.off()
	for _, f := range []string{"tpm2-00.permall", "tpm2-00.volatilestate"} {
		if err := os.Remove(filepath.Join(b.dir, f)); err != nil && !errors.Is(err, os.ErrNotExist) {
			b.t.Fatal(err)
		}
	}
	b.on()
}

func (b *desk) open() (vault.Sealer, error) {
	return tpmseal.OpenWith(b.device, tpmseal.Options{Stretch: stretch.Minimum()})
}

// vault makes a vault on the board, with alice's token in it.
func (b *desk) vault(code string) *vault.Vault {
	b.t.Helper()
	v := vault.At(filepath.Join(b.t.TempDir(), "vault"), b.open)
	if err := errors.Join(v.Init(vaulttest.Setup(pin(code))), v.Unlock(pin(code))); err != nil {
		b.t.Fatal(err)
	}
	vaulttest.CheckAtEnd(b.t, v)
	update(b.t, v, func(tx *vault.Tx) error { return put(tx, alice, []byte("s")) })
	return v
}

func hasAlice(t *testing.T, v *vault.Vault) {
	t.Helper()
	view(t, v, func(tx *vault.Tx) error { _, err := tx.Seed(alice, 1); return err })
}

func TestOnATPM(t *testing.T) {
	for name, code := range map[string]string{"PIN": "4711", "unattended": ""} {
		t.Run(name, func(t *testing.T) {
			b := newDesk(t)
			v := b.vault(code)
			c := v.Condition()
			if c.Level != vault.LevelEmulated || !c.Anchored || c.Writes == 0 || c.PIN != (code != "") {
				t.Errorf("%+v", c)
			}
			old := copyOf(t, v.Path())
			for _, op := range []func() error{
				func() error { return v.Update(func(tx *vault.Tx) error { return tx.DeleteToken(alice) }) },
				func() error { return v.Rotate(officer, nil) },
				v.Check,
				v.Lock,
				func() error { b.off(); b.on(); return nil },
				func() error { return v.Unlock(pin(code)) },
				func() error { return v.Update(func(tx *vault.Tx) error { return put(tx, bob, []byte("t")) }) },
				func() error { return v.ChangePIN(pin(code), pin(code+"0"), officer) },
				v.Lock,
			} {
				if err := op(); err != nil {
					t.Fatal(err)
				}
			}
			if code != "" {
				wantState(t, v.Unlock(secret.Secret{}), vault.StateLocked, "vault unlock")
			}
			latest := copyOf(t, v.Path())
			if err := os.WriteFile(v.Path(), old, 0o600); err != nil {
				t.Fatal(err)
			}
			wantState(t, v.Unlock(pin(code)), vault.StateRollback, "before the last rotation")
			if err := os.WriteFile(v.Path(), latest, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := v.Unlock(pin(code + "0")); err != nil {
				t.Fatal(err)
			}
			view(t, v, func(tx *vault.Tx) error { _, err := tx.Seed(bob, 1); return err })
		})
	}
}

// A TPM that goes away in the middle of work holds the work back, and it goes on when the TPM is back.
func TestTPMGoesAwayAndComesBack(t *testing.T) {
	b := newDesk(t)
	v := b.vault("")
	b.off()
	err := v.Update(func(tx *vault.Tx) error { return put(tx, bob, []byte("t")) })
	if !errors.Is(err, vault.ErrUnanchored) {
		t.Fatalf("got %v", err)
	}
	wantState(t, err, vault.StateTPMAbsent, "waits for the TPM")
	b.on()
	view(t, v, func(tx *vault.Tx) error { _, err := tx.Seed(bob, 1); return err })
}

func TestOtherTPMIsNamed(t *testing.T) {
	b := newDesk(t)
	v := b.vault("")
	if err := v.Lock(); err != nil {
		t.Fatal(err)
	}
	elsewhere := newDesk(t)
	copied := vault.At(v.Path(), elsewhere.open)
	wantState(t, copied.Unlock(secret.Secret{}), vault.StateTPMChanged, "another storage root key")
	b.off()
	wantState(t, v.Unlock(secret.Secret{}), vault.StateTPMAbsent, "start")
	b.on()
	if err := v.Unlock(secret.Secret{}); err != nil {
		t.Fatal(err)
	}
	hasAlice(t, v)
	if err := v.Lock(); err != nil {
		t.Fatal(err)
	}
	b.replace()
	wantState(t, v.Unlock(secret.Secret{}), vault.StateTPMChanged, "another storage root key")
}
