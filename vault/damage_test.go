package vault_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/vaulttest"
)

// raw changes a vault's file behind its back.
func raw(t *testing.T, path string, fn func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(fn), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// contents renders all that a vault gives out, or the first error.
func contents(v *vault.Vault) (out string, err error) {
	err = v.View(func(tx *vault.Tx) error {
		tokens, err := tx.Tokens(vault.Filter{})
		if err != nil {
			return err
		}
		for _, tok := range tokens {
			out += fmt.Sprintf("%+v\n", tok)
			gens, err := tx.Generations(tok.ID)
			if err != nil {
				return err
			}
			for _, g := range gens {
				s, err := tx.Seed(tok.ID, g)
				if err != nil {
					return err
				}
				out += fmt.Sprintf("seed %d %x\n", g, s.Reveal())
			}
			s, err := tx.AccessCode(tok.ID)
			if err != nil && !errors.Is(err, vault.ErrNotFound) {
				return err
			}
			out += fmt.Sprintf("code %x\n", s.Reveal())
		}
		jobs, err := tx.Jobs()
		if err != nil {
			return err
		}
		changes, err := tx.Changes()
		out += fmt.Sprintf("%+v\n%+v\n", jobs, changes)
		return err
	})
	return out, err
}

// named reports whether err is one of the named states.
func named(err error) bool {
	var state *vault.StateError
	return errors.As(err, &state) && state.Cure != ""
}

// Whatever byte is flipped: a named state, or everything is right and goes on working.
func TestFlippedBytes(t *testing.T) {
	path := filled(t, 8)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	v, err := vault.Open(path, vaulttest.Sealer(t))
	if err != nil {
		t.Fatal(err)
	}
	want, err := contents(v)
	if err := errors.Join(err, v.Close()); err != nil {
		t.Fatal(err)
	}
	refused, positions := 0, damageAt(whole)
	file := filepath.Join(t.TempDir(), "vault")
	for _, at := range positions {
		bad := bytes.Clone(whole)
		bad[at] ^= 1 << (at % 8)
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if outcome := openDamaged(t, file, want); outcome == nil {
			continue
		} else if refused++; !named(outcome) {
			t.Errorf("byte %d: %v", at, outcome)
		}
	}
	t.Logf("%d of %d flips were refused", refused, len(positions))
	if refused < len(positions)/2 {
		t.Errorf("only %d of %d flips were noticed", refused, len(positions))
	}
}

// damageAt chooses the header of each page and the start of its element table, and places spread over all that is
// not empty.
func damageAt(whole []byte) (positions []int) {
	for page := 0; page < len(whole); page += 4096 {
		if bytes.Count(whole[page:page+4096], []byte{0}) == 4096 {
			continue
		}
		for _, at := range []int{0, 7, 8, 9, 10, 11, 12, 15, 16, 20, 24, 28, 30, 32, 40, 48, 56, 64, 72, 79} {
			positions = append(positions, page+at)
		}
	}
	var filled []int
	for at, b := range whole {
		if b != 0 {
			filled = append(filled, at)
		}
	}
	for i := 0; i < len(filled); i += max(1, len(filled)/200) {
		positions = append(positions, filled[i])
	}
	return positions
}

// openDamaged returns the error with which a vault is refused. It fails the test for wrong contents.
func openDamaged(t *testing.T, file, want string) error {
	v, err := vault.Open(file, vaulttest.Sealer(t))
	if err != nil {
		return err
	}
	defer func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}()
	got, err := contents(v)
	if err != nil {
		return err
	}
	if err := v.Check(); err != nil {
		return err
	}
	if got != want {
		t.Errorf("%s: wrong contents were given out", file)
	}
	if err := v.Update(func(tx *vault.Tx) error { return put(tx, "yk-7/otp1", []byte("new")) }); err != nil {
		return err
	}
	return v.Check()
}

func TestTruncatedFile(t *testing.T) {
	path := filled(t, 8)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := len(whole)
	for ; used > 4096 && bytes.Count(whole[used-4096:used], []byte{0}) == 4096; used -= 4096 {
	}
	file := filepath.Join(t.TempDir(), "vault")
	for _, n := range []int{0, 1, 16, 80, 4095, 4096, 4097, 8191, 8192, 12288, used / 2, used - 4096, used - 1} {
		if err := os.WriteFile(file, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := vault.Open(file, vaulttest.Sealer(t))
		wantState(t, err, vault.StateCorrupt, "")
	}
}

// Pages that vanish under an open vault make the kernel send a signal, not an error.
func TestFileCutShortWhileOpen(t *testing.T) {
	path := filled(t, 8)
	v, err := vault.Open(path, vaulttest.Sealer(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 8192); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err = contents(v)
		wantState(t, err, vault.StateCorrupt, path)
		err = v.Update(func(tx *vault.Tx) error { return put(tx, alice, []byte("x")) })
		wantState(t, err, vault.StateCorrupt, path)
		wantState(t, v.Check(), vault.StateCorrupt, path)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	_, err = vault.Open(path, vaulttest.Sealer(t)) // and not in-use
	wantState(t, err, vault.StateCorrupt, path)
}

func TestSplicedRecordsAreRefused(t *testing.T) {
	seed := func(id device.TokenID, g byte) string { return string(id) + "\x00\x00\x00\x00" + string(g) }
	foreign := filled(t, 2)
	for name, c := range map[string]struct{ fromBucket, from, toBucket, to string }{
		"token to token":       {"tokens", string(alice), "tokens", string(bob)},
		"seed to seed":         {"seeds", seed(alice, 1), "seeds", seed(bob, 1)},
		"seed to generation":   {"seeds", seed(alice, 1), "seeds", seed(alice, 2)},
		"seed to access code":  {"seeds", seed(alice, 1), "codes", string(alice)},
		"access code to other": {"codes", string(alice), "codes", string(bob)},
		"job to job":           {"jobs", "\x00\x00\x00\x00\x00\x00\x00\x01", "jobs", "\x00\x00\x00\x00\x00\x00\x00\x02"},
		"job to change":        {"jobs", "\x00\x00\x00\x00\x00\x00\x00\x01", "outbox", "\x00\x00\x00\x00\x00\x00\x00\x01"},
		"change to later":      {"outbox", "\x00\x00\x00\x00\x00\x00\x00\x01", "outbox", "\x00\x00\x00\x00\x00\x00\x00\x09"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filled(t, 2)
			raw(t, path, func(tx *bbolt.Tx) error {
				val := bytes.Clone(tx.Bucket([]byte(c.fromBucket)).Get([]byte(c.from)))
				if val == nil {
					return errors.New("there is nothing to splice")
				}
				return tx.Bucket([]byte(c.toBucket)).Put([]byte(c.to), val)
			})
			refusesRecords(t, path)
		})
	}
	t.Run("from another vault", func(t *testing.T) {
		var val []byte
		raw(t, foreign, func(tx *bbolt.Tx) error {
			val = bytes.Clone(tx.Bucket([]byte("tokens")).Get([]byte(alice)))
			return nil
		})
		path := filled(t, 2)
		raw(t, path, func(tx *bbolt.Tx) error { return tx.Bucket([]byte("tokens")).Put([]byte(alice), val) })
		refusesRecords(t, path)
	})
	t.Run("edited", func(t *testing.T) {
		path := filled(t, 2)
		raw(t, path, func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("tokens"))
			return b.Put([]byte(alice), bytes.Replace(b.Get([]byte(alice)), []byte("user of "), []byte("owner:  "), 1))
		})
		refusesRecords(t, path)
	})
}

func refusesRecords(t *testing.T, path string) {
	t.Helper()
	v, err := vault.Open(path, vaulttest.Sealer(t))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	_, err = contents(v)
	wantState(t, err, vault.StateCorrupt, "behind the vault's back")
	wantState(t, v.Check(), vault.StateCorrupt, "behind the vault's back")
}

func TestCheckFindsWhatIsMissingOrTooMuch(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		fn   func(*bbolt.Tx) error
	}{
		"token gone": {"does not exist", func(tx *bbolt.Tx) error { return tx.Bucket([]byte("tokens")).Delete([]byte(alice)) }},
		"seed gone": {"seed 1 of yk-1001/otp2 is missing", func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("seeds")).Delete([]byte(alice + "\x00\x00\x00\x00\x01"))
		}},
		"numbers gone":     {"never given out", func(tx *bbolt.Tx) error { return tx.Bucket([]byte("meta")).Delete([]byte("sequence")) }},
		"unknown bucket":   {"unknown bucket", func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("more")); return err }},
		"unknown entry":    {"unknown entry", func(tx *bbolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("more"), []byte("x")) }},
		"empty record":     {"too short", func(tx *bbolt.Tx) error { return tx.Bucket([]byte("jobs")).Put([]byte("more"), nil) }},
		"not a seed's key": {"behind", func(tx *bbolt.Tx) error { return tx.Bucket([]byte("seeds")).Put([]byte("more"), []byte("some value")) }},
	} {
		t.Run(name, func(t *testing.T) {
			path := filled(t, 2)
			raw(t, path, c.fn)
			v, err := vault.Open(path, vaulttest.Sealer(t))
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			wantState(t, v.Check(), vault.StateCorrupt, c.text)
		})
	}
}

// With its numbers gone, the vault must not number a job as another that is there.
func TestNumbersAreNotGivenTwice(t *testing.T) {
	path := filled(t, 2)
	raw(t, path, func(tx *bbolt.Tx) error { return tx.Bucket([]byte("meta")).Delete([]byte("sequence")) })
	v, err := vault.Open(path, vaulttest.Sealer(t))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	err = v.Update(func(tx *vault.Tx) error {
		_, err := tx.Enqueue(vault.Change{Kind: vault.Disable, Token: alice})
		return err
	})
	wantState(t, err, vault.StateCorrupt, "never given out")
}

func TestEditedHeaderIsRefused(t *testing.T) {
	const digestAt, macAt = 12, 12 + sha256.Size
	replace := func(old, new string) func([]byte) []byte {
		return func(h []byte) []byte { return bytes.Replace(h, []byte(old), []byte(new), 1) }
	}
	for name, c := range map[string]struct {
		want vault.State
		text string
		edit func([]byte) []byte
	}{
		"level up":      {vault.StateCorrupt, "was edited", replace(`"level":"passphrase"`, `"level":"tpm"`)},
		"sealer":        {vault.StateWrongSealer, "sealed by tpm", replace(`"sealer":"passphrase"`, `"sealer":"tpm"`)},
		"ID":            {vault.StateCorrupt, "was edited", replace(`"id":"`, `"id":"X`)},
		"creation":      {vault.StateCorrupt, "does not authenticate", replace(`"created":"2`, `"created":"1`)},
		"key version":   {vault.StateCorrupt, "does not unwrap", replace(`"version":1`, `"version":2`)},
		"no keys":       {vault.StateCorrupt, "0 data keys", func(h []byte) []byte { return append(h[:bytes.Index(h, []byte(`"keys"`))], `"keys":[]}`...) }},
		"HMAC":          {vault.StateCorrupt, "does not authenticate", func(h []byte) []byte { h[macAt] ^= 1; return h }},
		"no JSON":       {vault.StateCorrupt, "unreadable", func(h []byte) []byte { return h[:len(h)-1] }},
		"format later":  {vault.StateNewerFormat, "up to 1", func(h []byte) []byte { binary.BigEndian.PutUint32(h[8:], 2); return h }},
		"format before": {vault.StateCorrupt, "format 0", func(h []byte) []byte { binary.BigEndian.PutUint32(h[8:], 0); return h }},
		"magic":         {vault.StateCorrupt, "not that of a vault", func(h []byte) []byte { h[0] ^= 1; return h }},
		"short":         {vault.StateCorrupt, "not that of a vault", func(h []byte) []byte { return h[:10] }},
	} {
		t.Run(name, func(t *testing.T) {
			path := filled(t, 1)
			raw(t, path, func(tx *bbolt.Tx) error {
				meta := tx.Bucket([]byte("meta"))
				was := meta.Get([]byte("header"))
				h := c.edit(bytes.Clone(was))
				if bytes.Equal(h, was) {
					return errors.New("nothing was edited")
				}
				if len(h) > macAt { // the plain digest stops nobody who edits on purpose
					sum := sha256.Sum256(h[macAt:])
					copy(h[digestAt:], sum[:])
				}
				return meta.Put([]byte("header"), h)
			})
			_, err := vault.Open(path, vaulttest.Sealer(t))
			wantState(t, err, c.want, c.text)
		})
	}
}

// Damage that is no edit shows as such, and not as a wrong passphrase.
func TestDamagedHeaderIsNotAWrongPassphrase(t *testing.T) {
	path := filled(t, 1)
	raw(t, path, func(tx *bbolt.Tx) error {
		meta := tx.Bucket([]byte("meta"))
		h := bytes.Clone(meta.Get([]byte("header")))
		h[bytes.Index(h, []byte(`"sealed":"`))+60] ^= 1
		return meta.Put([]byte("header"), h)
	})
	_, err := vault.Open(path, vaulttest.Sealer(t))
	wantState(t, err, vault.StateCorrupt, "the header is damaged")
}

func TestOtherBoltFileIsNoVault(t *testing.T) {
	path := filepath.Join(t.TempDir(), "other")
	raw(t, path, func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("tokens")); return err })
	_, err := vault.Open(path, vaulttest.Sealer(t))
	wantState(t, err, vault.StateCorrupt, "is not a vault")
}
