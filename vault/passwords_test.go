package vault_test

import (
	"errors"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

const applet device.TokenID = "yk-1001/oath"

func setPassword(keeper device.TokenID, s string) func(*vault.Tx) error {
	return func(tx *vault.Tx) error { return tx.SetPassword(keeper, secret.New([]byte(s))) }
}

// wantPassword checks which password an application has; empty: none.
func wantPassword(t *testing.T, v *vault.Vault, want string) {
	t.Helper()
	view(t, v, func(tx *vault.Tx) error {
		s, err := tx.Password(applet)
		defer s.Wipe()
		if errors.Is(err, vault.ErrNotFound) != (want == "") || err == nil && string(s.Reveal()) != want {
			t.Errorf("the password is %d bytes, %v; want %q", s.Len(), err, want)
		}
		return nil
	})
}

func TestPasswords(t *testing.T) {
	v := vaulttest.New(t)
	wantPassword(t, v, "")
	update(t, v, setPassword(applet, "first"))
	wantPassword(t, v, "first")
	before := v.Condition().Shred
	update(t, v, setPassword(applet, "second"))
	wantPassword(t, v, "second")
	if v.Condition().Shred.Equal(before) {
		t.Error("nothing says that older pages hold a password")
	}
	for _, keeper := range []device.TokenID{"yk-1001/otp2", "yk-1001/oath:alice", "yk-1001", "yk-1001/hotp", "fob-1", "nk-1/hotp"} {
		refused(t, v, "no application with a password", setPassword(keeper, "x"))
	}
	refused(t, v, "not 1 to 128", setPassword(applet, ""))
	refused(t, v, "not 1 to 128", func(tx *vault.Tx) error { return tx.SetPassword(applet, secret.Random(129)) })
	if err := errors.Join(v.Check(), v.Rotate(officer, nil), v.Check()); err != nil {
		t.Fatal(err)
	}
	wantPassword(t, v, "second") // with no token of that device
	for range 2 {
		update(t, v, func(tx *vault.Tx) error { return tx.DeletePassword(applet) })
	}
	wantPassword(t, v, "")
}

func TestPasswordsInVaultOfAnEarlierVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault")
	v := created(t, path)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	raw(t, path, func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("passwords")) })
	v, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	wantPassword(t, v, "")
	update(t, v, setPassword(applet, "first"))
	if err := errors.Join(v.Check(), v.Close()); err != nil {
		t.Error(err)
	}
}
