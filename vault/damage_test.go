package vault_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/secret"
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
		tokens, _, err := tx.Tokens(vault.Filter{})
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
		changes, err := tx.ChangesFrom(0, 0)
		approvals, aerr := tx.Approvals()
		buried, _, gerr := tx.Tombstone(gone)
		history, herr := tx.History(alice, 0, 0)
		leavers, lerr := tx.Leavers()
		notices, nerr := tx.Notices(0, 0)
		given, terr := tx.HandoversOf(gone, 0, 0)
		failed, ferr := tx.Attempts(vault.TokenAttempts(alice))
		theirs, uerr := tx.HandoversOfUser("bob", 0, 0)
		due, derr := tx.CertificatesDue()
		puk, perr := tx.PIVSecret(device.PIVToken(gone.Device()), 1, vault.PUK)
		out += fmt.Sprintf("%+v %x\n", due, puk.Reveal())
		if errors.Is(perr, vault.ErrNotFound) {
			perr = nil
		}
		out += fmt.Sprintf("%+v\n%+v\n%+v\n%+v %+v %+v %+v\n%+v %+v %+v\n", jobs, buried, history, leavers, given, theirs, failed, changes, approvals, notices) // see kept
		return errors.Join(err, aerr, gerr, herr, lerr, nerr, terr, uerr, ferr, derr, perr)
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
	path := filled(t, 20)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	v, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := contents(v)
	if err := errors.Join(err, v.Close()); err != nil {
		t.Fatal(err)
	}
	all := damageAt(whole)
	const sample = 4 // one in so many; another one every time
	first := rand.IntN(sample)
	refused, positions := 0, all[:0]
	for i := first; i < len(all); i += sample {
		positions = append(positions, all[i])
	}
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
		for at := range 80 { // header and the start of the element table, or of the meta page's fields
			positions = append(positions, page+at)
		}
	}
	headers := len(positions)
	var filled []int
	for at, b := range whole {
		if b != 0 {
			filled = append(filled, at)
		}
	}
	for i := 0; i < len(filled); i += max(1, len(filled)/headers) {
		positions = append(positions, filled[i])
	}
	return positions
}

// openDamaged returns the error with which a vault is refused. It fails the test for wrong contents.
func openDamaged(t *testing.T, file, want string) error {
	v, err := open(file)
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
		_, err := open(file)
		wantState(t, err, vault.StateCorrupt, "")
	}
}

// Pages that vanish under an open vault make the kernel send a signal, not an error.
func TestFileCutShortWhileOpen(t *testing.T) {
	path := filled(t, 8)
	v, err := open(path)
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
	_, err = open(path) // and not in-use
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
		"tombstone to other":   {"tombstones", "yk-9001/otp1", "tombstones", "yk-9002/otp1"},
		"tombstone to token":   {"tombstones", "yk-9001/otp1", "tokens", "yk-9001/otp1"},
		"approval to other":    {"approvals", "\x00\x00\x00\x00\x00\x00\x00\x01", "approvals", "\x00\x00\x00\x00\x00\x00\x00\x02"},
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

// Each of these is genuine, and from another moment than the rest of the file.
func TestOlderPartsAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault")
	v := created(t, path)
	counted := func(n uint64) {
		update(t, v, func(tx *vault.Tx) error {
			tok, err := tx.Token(alice)
			tok.Counter = n
			_, qerr := tx.Enqueue(vault.Change{Kind: vault.Advance, Token: alice, Generation: 1})
			return errors.Join(err, tx.PutToken(tok), qerr)
		})
	}
	update(t, v, func(tx *vault.Tx) error { return put(tx, alice, []byte("s")) })
	for n := range uint64(40) { // so that it has some pages
		counted(n)
	}
	if err := v.Lock(); err != nil {
		t.Fatal(err)
	}
	older := copyOf(t, path)
	values := map[string][]byte{}
	raw(t, path, func(tx *bbolt.Tx) error {
		for _, at := range [][2]string{{"tokens", string(alice)}, {"meta", "header"}, {"meta", "ledger"}} {
			values[at[0]+"/"+at[1]] = bytes.Clone(tx.Bucket([]byte(at[0])).Get([]byte(at[1])))
		}
		return nil
	})
	if err := v.Unlock(secret.Secret{}); err != nil {
		t.Fatal(err)
	}
	counted(99)
	if err := v.ChangePIN(secret.Secret{}, pin("1"), officer); err != nil {
		t.Fatal(err)
	}
	if err := v.ChangePIN(pin("1"), secret.Secret{}, officer); err != nil {
		t.Fatal(err)
	}
	counted(100)
	want, err := contents(v)
	if err := errors.Join(err, v.Close()); err != nil {
		t.Fatal(err)
	}
	latest := copyOf(t, path)
	file := filepath.Join(t.TempDir(), "vault")
	for at, old := range values {
		if err := os.WriteFile(file, latest, 0o600); err != nil {
			t.Fatal(err)
		}
		raw(t, file, func(tx *bbolt.Tx) error {
			bucket, key, _ := strings.Cut(at, "/")
			return tx.Bucket([]byte(bucket)).Put([]byte(key), old)
		})
		if err := openDamaged(t, file, want); !named(err) {
			t.Errorf("with an older %s: %v", at, err)
		}
	}
	pages, refused := 0, 0
	for at := 0; at+4096 <= min(len(older), len(latest)); at += 4096 {
		if bytes.Equal(older[at:at+4096], latest[at:at+4096]) {
			continue
		}
		pages++
		mixed := bytes.Clone(latest)
		copy(mixed[at:], older[at:at+4096])
		if err := os.WriteFile(file, mixed, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := openDamaged(t, file, want); named(err) {
			refused++
		} else if err != nil {
			t.Errorf("with an older page %d: %v", at/4096, err)
		}
	}
	t.Logf("%d of %d older pages were refused", refused, pages)
	if refused < 3 {
		t.Errorf("only %d of %d older pages were refused", refused, pages)
	}
}

// refusesRecords: the whole file is verified before anything of it is used.
func refusesRecords(t *testing.T, path string) {
	t.Helper()
	_, err := open(path)
	wantState(t, err, vault.StateCorrupt, "behind the vault's back")
}

func TestWhatIsMissingOrTooMuchIsRefused(t *testing.T) {
	const latest = "entries that are not its latest ones"
	drop := func(bucket, key string) func(*bbolt.Tx) error {
		return func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucket)).Delete([]byte(key)) }
	}
	put := func(bucket, key string, val []byte) func(*bbolt.Tx) error {
		return func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucket)).Put([]byte(key), val) }
	}
	for name, c := range map[string]struct {
		text string
		fn   func(*bbolt.Tx) error
	}{
		"token gone":         {latest, drop("tokens", string(alice))},
		"seed gone":          {latest, drop("seeds", string(alice)+"\x00\x00\x00\x00\x01")},
		"change gone":        {latest, drop("outbox", "\x00\x00\x00\x00\x00\x00\x00\x01")},
		"act gone":           {latest, drop("audit", "\x00\x00\x00\x00\x00\x00\x00\x01")},
		"ledger gone":        {"ledger", drop("meta", "ledger")},
		"header gone":        {"not that of a vault", drop("meta", "header")},
		"bucket gone":        {"it has no seen", func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("seen")) }},
		"tombstones gone":    {latest, func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("tombstones")) }},
		"approvals gone":     {latest, func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("approvals")) }},
		"unknown bucket":     {"unknown bucket", func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("more")); return err }},
		"unknown entry":      {"unknown entry", put("meta", "more", []byte("x"))},
		"empty record":       {"too short", put("jobs", "more", nil)},
		"not a seed's key":   {"behind", put("seeds", "more", []byte("some value"))},
		"index entry":        {latest, put("index", "more", nil)},
		"index with a value": {"has a value", put("index", "more", []byte("x"))},
	} {
		t.Run(name, func(t *testing.T) {
			path := filled(t, 2)
			raw(t, path, c.fn)
			_, err := open(path)
			wantState(t, err, vault.StateCorrupt, c.text)
		})
	}
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
		"level up":      {vault.StateCorrupt, "was edited", replace(`"level":"emulated"`, `"level":"tpm"`)},
		"mode":          {vault.StateLocked, "unlock", replace(`"pin":false`, `"pin":true`)},
		"sealer":        {vault.StateWrongSealer, "sealed by passphrase", replace(`"sealer":"tpm"`, `"sealer":"passphrase"`)},
		"ID":            {vault.StateCorrupt, "was edited", replace(`"id":"`, `"id":"X`)},
		"creation":      {vault.StateCorrupt, "does not authenticate", replace(`"created":"2`, `"created":"1`)},
		"key version":   {vault.StateCorrupt, "does not unwrap", replace(`"version":1`, `"version":2`)},
		"recipients":    {vault.StateCorrupt, "does not authenticate", replace(`"recipients":["age1`, `"recipients":["age2`)},
		"no key":        {vault.StateCorrupt, "start at 1", replace(`"version":1`, `"version":0`)},
		"HMAC":          {vault.StateCorrupt, "does not authenticate", func(h []byte) []byte { h[macAt] ^= 1; return h }},
		"no JSON":       {vault.StateCorrupt, "unreadable", func(h []byte) []byte { return h[:len(h)-1] }},
		"format later":  {vault.StateNewerFormat, "up to 2", func(h []byte) []byte { binary.BigEndian.PutUint32(h[8:], 3); return h }},
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
			_, err := open(path)
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
		h[bytes.Index(h, []byte(`"seals":["`))+60] ^= 1
		return meta.Put([]byte("header"), h)
	})
	_, err := open(path)
	wantState(t, err, vault.StateCorrupt, "the header is damaged")
}

func TestOtherBoltFileIsNoVault(t *testing.T) {
	path := filepath.Join(t.TempDir(), "other")
	raw(t, path, func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("tokens")); return err })
	_, err := open(path)
	wantState(t, err, vault.StateCorrupt, "is not a vault")
}
