package vault

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"tokendesk/vault/secret"
)

func newKeyring(t testing.TB, versions ...uint32) *keyring {
	t.Helper()
	r := &keyring{vault: "test", keys: map[uint32]purposes{}}
	for _, n := range versions {
		r.add(n, secret.Random(keySize))
	}
	t.Cleanup(r.wipe)
	return r
}

func TestFrameTellsListsApart(t *testing.T) {
	seen := map[string]bool{}
	for _, parts := range [][]any{{"ab", "c"}, {"a", "bc"}, {"abc"}, {"abc", ""}, {"", "abc"}, {[]byte{0, 0, 0, 1}, "abc", ""}} {
		f := string(frame(parts...))
		if seen[f] {
			t.Errorf("%q is framed like another list", parts)
		}
		seen[f] = true
	}
}

func TestOldDataKeysStillOpen(t *testing.T) {
	r := newKeyring(t, 1)
	key := []byte("k")
	rec := r.encodeRecord("b", key, []byte("{}"))
	sec, err := r.encodeSecret("b", key, secret.New([]byte("s")))
	if err != nil {
		t.Fatal(err)
	}
	r.add(2, secret.Random(keySize))
	if _, err := r.decodeRecord("b", key, rec); err != nil {
		t.Error(err)
	}
	if s, err := r.decodeSecret("b", key, sec); err != nil || string(s.Reveal()) != "s" {
		t.Error(err)
	}
	if v, err := splitValue(r.encodeRecord("b", key, []byte("{}"))); err != nil || v.dek != 2 {
		t.Errorf("a new record is under key %d, %v", v.dek, err)
	}
	// The version is bound: a value does not pass for one under another key.
	rec[4] = 2
	if _, err := r.decodeRecord("b", key, rec); err == nil {
		t.Error("a record passed under another data key")
	}
}

// A later version's schema is named once it is known to be real, and is damage otherwise.
func TestNewerSchema(t *testing.T) {
	r := newKeyring(t, 1)
	v := value{schema: schema + 1, dek: 1}
	body := []byte("{}")
	real := append([]byte{v.schema, 0, 0, 0, 1}, append(mac(r.keys[1].record, r.context("record", "b", []byte("k"), v), body), body...)...)
	_, err := r.decodeRecord("b", []byte("k"), real)
	if state, ok := err.(*StateError); !ok || state.State != StateNewerFormat {
		t.Errorf("got %v", err)
	}
	real[len(real)-1] ^= 1
	if _, err := r.decodeRecord("b", []byte("k"), real); err != errUnauthentic {
		t.Errorf("got %v", err)
	}
}

func TestWipedKeyringOpensNothing(t *testing.T) {
	r := newKeyring(t, 1)
	kept := r.keys[1]
	rec := r.encodeRecord("b", []byte("k"), []byte("{}"))
	r.wipe()
	if !kept.header.IsZero() || !kept.record.IsZero() || !kept.secret.IsZero() {
		t.Error("a key is left")
	}
	if _, err := r.decodeRecord("b", []byte("k"), rec); err == nil {
		t.Error("a record opened")
	}
}

func FuzzDecodeHeader(f *testing.F) {
	r := newKeyring(f, 1)
	h := &header{ID: "test", Sealer: "tpm", Level: LevelTPM, Created: time.Unix(0, 0), Sealed: []byte("s")}
	if err := h.wrap(h.kek(secret.Random(32)), 1, secret.Random(32)); err != nil {
		f.Fatal(err)
	}
	good, err := encodeHeader(h, r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:jsonAt])
	f.Add(good[:macAt])
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeHeader(b)
		if err != nil {
			if _, ok := err.(*StateError); !ok {
				t.Errorf("not a named state: %v", err)
			}
			return
		}
		if got.validate() != nil {
			t.Error("let nonsense through")
		}
		if _, err := got.unwrap(secret.New(make([]byte, keySize))); err == nil {
			t.Error("unwrapped without the secret")
		}
		if authenticate(b, r) == nil && !bytes.Equal(b, good) {
			t.Error("another header authenticates")
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	r := newKeyring(f, 1, 2)
	key := []byte("yk-1/otp1")
	good := r.encodeRecord(bucketTokens, key, []byte(`{"id":"yk-1/otp1"}`))
	f.Add(good)
	f.Add(good[:prefixSize])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := r.decodeRecord(bucketTokens, key, b); err == nil && !bytes.Equal(b, good) {
			t.Error("another record authenticates")
		}
	})
}

func FuzzDecodeSecret(f *testing.F) {
	r := newKeyring(f, 1, 2)
	key := seedKey("yk-1/otp1", 1)
	good, err := r.encodeSecret(bucketSeeds, key, secret.Random(20))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:prefixSize+4])
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := r.decodeSecret(bucketSeeds, key, b); err == nil && !bytes.Equal(b, good) {
			t.Error("another secret opens")
		}
	})
}

func FuzzParseSeedKey(f *testing.F) {
	f.Add(seedKey("yk-1/otp1", 1))
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, k []byte) {
		if id, g, err := parseSeedKey(k); err == nil && !bytes.Equal(seedKey(id, g), k) {
			t.Errorf("%q is read as seed %d of %s", k, g, id)
		}
	})
}

// What the page check lets through, bbolt reads without a panic.
func FuzzCheckPages(f *testing.F) {
	path := filepath.Join(f.TempDir(), "seed")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: pageSize})
	if err != nil {
		f.Fatal(err)
	}
	for i := range byte(40) {
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte{'a' + i%3})
			if err != nil {
				return err
			}
			return b.Put([]byte{i + 1}, bytes.Repeat([]byte{i}, int(i)*20))
		})
		if err != nil {
			f.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	if err := checkPages(bytes.NewReader(whole), int64(len(whole))); err != nil {
		f.Fatalf("a sound file is refused: %v", err)
	}
	f.Add(uint32(0), []byte{})
	for page := 0; page < len(whole); page += pageSize {
		f.Add(uint32(page+8), []byte{0xFF, 0xFF, 0xFF, 0xFF})
		f.Add(uint32(page+16), []byte{0xFF, 0xFF, 0xFF, 0x7F, 0xFF})
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		b := bytes.Clone(whole)
		copy(b[int(at)%len(b):], patch)
		if checkPages(bytes.NewReader(b), int64(len(b))) != nil {
			return
		}
		file, err := os.CreateTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(file.Name())
		if _, err := file.Write(b); err != nil {
			t.Fatal(err)
		}
		db, err := bbolt.Open(file.Name(), 0o600, options(file))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		err = db.Update(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(_ []byte, bucket *bbolt.Bucket) error {
				if err := bucket.ForEach(func(_, _ []byte) error { return nil }); err != nil {
					return err
				}
				return bucket.Put([]byte("new"), make([]byte, 5000))
			})
		})
		if err != nil {
			t.Error(err)
		}
	})
}
