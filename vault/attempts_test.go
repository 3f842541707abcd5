package vault_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"tokendesk/vault"
	"tokendesk/vault/vaulttest"
)

func TestAttempts(t *testing.T) {
	v := vaulttest.New(t)
	when := time.Now()
	attempts := func(v *vault.Vault, key string, want int) {
		t.Helper()
		view(t, v, func(tx *vault.Tx) error {
			a, err := tx.Attempts(key)
			if a.Failures != want || want > 0 && !a.Last.Equal(when) {
				t.Errorf("%s: %+v, want %d", key, a, want)
			}
			return err
		})
	}
	key := vault.TokenAttempts(alice)
	update(t, v, func(tx *vault.Tx) error {
		return errors.Join(put(tx, alice, []byte("s")), tx.PutAttempts(key, vault.Attempts{Failures: 2, Last: when}),
			tx.PutAttempts("identify/1000", vault.Attempts{Failures: 7, Last: when}))
	})
	attempts(v, key, 2)
	attempts(v, "identify/1", 0)
	attempts(v, "", 0)
	update(t, v, func(tx *vault.Tx) error {
		return errors.Join(tx.PutAttempts("identify/1000", vault.Attempts{}), tx.PutAttempts("identify/9", vault.Attempts{}))
	})
	attempts(v, "identify/1000", 0)
	update(t, v, func(tx *vault.Tx) error {
		return tx.PutAttempts("identify/1000", vault.Attempts{Failures: 8, Last: when})
	})
	if err := errors.Join(v.Check(), v.Rotate(officer, nil), v.Check()); err != nil {
		t.Fatal(err)
	}
	attempts(v, key, 2)
	attempts(v, "identify/1000", 8)
	// A later token of the name begins with none.
	update(t, v, func(tx *vault.Tx) error { return tx.Bury(vault.Tombstone{ID: alice}) })
	attempts(v, key, 0)
	attempts(v, "identify/1000", 8)
	for what, put := range map[string]struct {
		key string
		a   vault.Attempts
	}{
		"their key":       {"", vault.Attempts{Failures: 1, Last: when}},
		"more than 256":   {strings.Repeat("a", 257), vault.Attempts{Failures: 1, Last: when}},
		"control":         {"a\n", vault.Attempts{Failures: 1, Last: when}},
		"UTF-8":           {"a\xff", vault.Attempts{Failures: 1, Last: when}},
		"no -1 failures":  {"a", vault.Attempts{Failures: -1, Last: when}},
		"one has no time": {"a", vault.Attempts{Failures: 1}},
	} {
		refused(t, v, what, func(tx *vault.Tx) error { return tx.PutAttempts(put.key, put.a) })
	}
}

// Failures are counted on disk, and by no epoch of their own: guessing does not wear the TPM.
func TestAttemptsAreLight(t *testing.T) {
	v := vaulttest.New(t)
	epoch := func() uint64 { return v.Condition().Epoch }
	before := epoch()
	update(t, v, func(tx *vault.Tx) error { return tx.PutAttempts("a", vault.Attempts{Failures: 1, Last: time.Now()}) })
	if got := epoch(); got != before {
		t.Errorf("the epoch went from %d to %d", before, got)
	}
	update(t, v, func(tx *vault.Tx) error { return tx.PutAttempts("a", vault.Attempts{}) })
	view(t, v, func(tx *vault.Tx) error {
		a, err := tx.Attempts("a")
		if a.Failures != 0 {
			t.Errorf("%+v", a)
		}
		return err
	})
}
