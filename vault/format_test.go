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

func newCoder(t testing.TB, version uint32) *coder {
	t.Helper()
	dek := secret.Random(keySize)
	defer dek.Wipe()
	r := newKeyring("test", version, dek)
	t.Cleanup(r.wipe)
	return &coder{keyring: r}
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

// A later version's schema is named once it is known to be real, and is damage otherwise.
func TestNewerSchema(t *testing.T) {
	c := newCoder(t, 1)
	key, body := []byte("k"), []byte("{}")
	later := c.start(7, len(body))
	later[0] = schema + 1
	c.context(kindRecord, "b", key, later[:prefixSize])
	later = append(later, body...)
	later = c.record.Seal(later, later[prefixSize:bodyAt], nil, append(c.aad, body...))
	_, err := c.decodeRecord("b", key, later)
	if state, ok := err.(*StateError); !ok || state.State != StateNewerFormat {
		t.Errorf("got %v", err)
	}
	later[len(later)-1] ^= 1
	if _, err := c.decodeRecord("b", key, later); err != errUnauthentic {
		t.Errorf("got %v", err)
	}
}

// Every byte of a value and all that it is bound to matter.
func TestValuesAreBound(t *testing.T) {
	c, other := newCoder(t, 1), newCoder(t, 2)
	key := []byte("k")
	rec, sec := c.encodeRecord("b", key, 3, []byte("{}")), c.encodeSecret("b", key, 3, secret.New([]byte("s")))
	if s, err := c.decodeSecret("b", key, sec); err != nil || string(s.Reveal()) != "s" {
		t.Fatal(err)
	}
	if body, err := c.decodeRecord("b", key, rec); err != nil || string(body) != "{}" {
		t.Fatal(err)
	}
	refused := func(what string, c *coder, bucket, key string, rec, sec []byte) {
		t.Helper()
		if _, err := c.decodeRecord(bucket, []byte(key), rec); err == nil {
			t.Errorf("%s: a record passed", what)
		}
		if _, err := c.decodeSecret(bucket, []byte(key), sec); err == nil {
			t.Errorf("%s: a secret opened", what)
		}
	}
	refused("another bucket", c, "c", "k", rec, sec)
	refused("another key", c, "b", "l", rec, sec)
	refused("another vault", other, "b", "k", rec, sec)
	refused("each other", c, "b", "k", sec, rec)
	for i := range min(len(rec), len(sec)) {
		r, s := bytes.Clone(rec), bytes.Clone(sec)
		r[i] ^= 1
		s[i] ^= 1
		refused("a flipped bit", c, "b", "k", r, s)
		refused("cut short", c, "b", "k", rec[:i], sec[:i])
	}
}

// The sum does not depend on the order, and notices whatever a term is made of.
func TestSum(t *testing.T) {
	c := newCoder(t, 1)
	s := c.summer()
	one, two := c.encodeRecord("b", []byte("1"), 1, []byte("{}")), c.encodeRecord("b", []byte("2"), 2, []byte("{}"))
	var x, y sum
	x.add(s.term("b", []byte("1"), one))
	x.add(s.term("b", []byte("2"), two))
	y.add(s.term("b", []byte("2"), two))
	y.add(s.term("b", []byte("1"), one))
	if x != y {
		t.Error("the order matters")
	}
	y.sub(s.term("b", []byte("1"), one))
	y.sub(s.term("b", []byte("2"), two))
	if y != (sum{}) {
		t.Errorf("what was taken out is left: %v", y)
	}
	seen := map[sum]bool{}
	older := c.encodeRecord("b", []byte("1"), 1, []byte("{}"))
	for _, term := range []sum{
		s.term("b", []byte("1"), one), s.term("b", []byte("2"), two), s.term("b", []byte("1"), older),
		s.term("b", []byte("1"), nil), s.term("b", []byte("2"), nil), s.term("c", []byte("1"), nil), s.term("b", []byte("1"), []byte("v")),
		s.term("b1", nil, nil), s.term("", []byte("b1"), nil), s.term("b", []byte("1\x80"), nil),
	} {
		if seen[term] {
			t.Error("two entries have one term")
		}
		seen[term] = true
	}
}

func FuzzDecodeLedger(f *testing.F) {
	c := newCoder(f, 1)
	good, err := (&ledger{Epoch: 7, Counts: map[string]int{"a": 1}}).encode(c.keyring)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:nonceSize])
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := decodeLedger(c.keyring, b); err == nil && !bytes.Equal(b, good) {
			t.Error("another ledger authenticates")
		}
	})
}

func FuzzDecodeHeader(f *testing.F) {
	root, dek := secret.Random(keySize), secret.Random(keySize)
	h := &header{ID: "test", Trail: "test", Sealer: "tpm", Level: LevelTPM, Created: time.Unix(0, 0), Seals: [][]byte{[]byte("s")}}
	h.wrap(root, 1, dek, secret.Secret{})
	good, err := h.encode(root)
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
		if _, _, err := got.unwrap(secret.New(make([]byte, keySize))); err == nil {
			t.Error("unwrapped without the secret")
		}
		if authenticate(b, root) == nil && !bytes.Equal(b, good) {
			t.Error("another header authenticates")
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	c := newCoder(f, 2)
	key := []byte("yk-1/otp1")
	good := c.encodeRecord(bucketTokens, key, 9, []byte(`{"id":"yk-1/otp1"}`))
	f.Add(good)
	f.Add(good[:prefixSize])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := c.decodeRecord(bucketTokens, key, b); err == nil && !bytes.Equal(b, good) {
			t.Error("another record authenticates")
		}
	})
}

func FuzzDecodeSecret(f *testing.F) {
	c := newCoder(f, 2)
	key := seedKey("yk-1/otp1", 1)
	good := c.encodeSecret(bucketSeeds, key, 9, secret.Random(20))
	f.Add(good)
	f.Add(good[:prefixSize+4])
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := c.decodeSecret(bucketSeeds, key, b); err == nil && !bytes.Equal(b, good) {
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

// checkPages is the page check without the keys.
func checkPages(file []byte) error {
	l, err := readLayout(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return err
	}
	return l.verify(func() entry { return func(string, []byte, []byte) error { return nil } })
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
	if err := checkPages(whole); err != nil {
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
		if checkPages(b) != nil {
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
