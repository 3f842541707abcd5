package vault

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"tokendesk/device"
)

const (
	bucketMeta   = "meta"
	bucketTokens = "tokens"
	bucketSeeds  = "seeds"
	bucketCodes  = "codes" // access codes
	bucketJobs   = "jobs"
	bucketOutbox = "outbox"
	keyHeader    = "header"
	keySequence  = "sequence"
)

var buckets = []string{bucketMeta, bucketTokens, bucketSeeds, bucketCodes, bucketJobs, bucketOutbox}

var errTxDone = errors.New("the transaction is over")

// Tx is a transaction. It is used by one goroutine, and not after the function that got it has returned.
type Tx struct {
	v       *Vault
	bolt    *bbolt.Tx
	done    bool
	touched map[device.TokenID]bool // whose references settle checks
}

func (tx *Tx) rollback() {
	if tx.done {
		return
	}
	tx.done = true
	tx.v.guard(tx.bolt.Rollback) // after damage there is nothing to roll back
}

func (tx *Tx) commit() error {
	tx.done = true
	if err := tx.v.guard(tx.bolt.Commit); err != nil {
		return writeError(tx.v.path, err)
	}
	return nil
}

// with runs fn on a bucket.
func (tx *Tx) with(bucket string, fn func(*bbolt.Bucket) error) error {
	if tx.done {
		return errTxDone
	}
	return tx.v.guard(func() error { return fn(tx.bolt.Bucket([]byte(bucket))) })
}

// get returns a copy of a stored value, or nil.
func (tx *Tx) get(bucket string, key []byte) (val []byte, err error) {
	err = tx.with(bucket, func(b *bbolt.Bucket) error {
		if got := b.Get(key); got != nil {
			val = append(make([]byte, 0, len(got)), got...)
		}
		return nil
	})
	return val, err
}

func (tx *Tx) put(bucket string, key, val []byte) error {
	return tx.with(bucket, func(b *bbolt.Bucket) error { return b.Put(key, val) })
}

func (tx *Tx) delete(bucket string, key []byte) error {
	return tx.with(bucket, func(b *bbolt.Bucket) error { return b.Delete(key) })
}

type pair struct{ key, val []byte }

// scan calls fn with copies of all pairs whose key has the prefix and is greater than after, in order. fn returns false to
// stop, and may change the bucket: the next pair is looked up afresh.
func (tx *Tx) scan(bucket string, prefix, after []byte, fn func(pair) (bool, error)) error {
	next := prefix
	if string(after) >= string(prefix) && after != nil {
		next = append(append([]byte(nil), after...), 0) // the least key greater than after
	}
	for {
		var p pair
		err := tx.with(bucket, func(b *bbolt.Bucket) error {
			k, v := b.Cursor().Seek(next)
			if k != nil && len(k) >= len(prefix) && string(k[:len(prefix)]) == string(prefix) {
				p = pair{append([]byte(nil), k...), append([]byte{}, v...)}
			}
			return nil
		})
		if err != nil || p.key == nil {
			return err
		}
		if more, err := fn(p); err != nil || !more {
			return err
		}
		next = append(p.key, 0)
	}
}

// open decodes the record at a key into out.
func (tx *Tx) open(bucket string, key, val []byte, out any) error {
	body, err := tx.v.keys.decodeRecord(bucket, key, val)
	if err == nil {
		err = json.Unmarshal(body, out)
	}
	if err != nil {
		return tx.refuse(bucket, key, err)
	}
	return nil
}

// refuse names the record that an error is about.
func (tx *Tx) refuse(bucket string, key []byte, err error) error {
	var state *StateError
	if errors.As(err, &state) {
		return err
	}
	return corrupt("%s: the entry %q in %s was changed behind the vault's back: %w", tx.v.path, key, bucket, err)
}

// load reads a record; ok is false if there is none.
func (tx *Tx) load(bucket string, key []byte, out any) (ok bool, err error) {
	val, err := tx.get(bucket, key)
	if val == nil || err != nil {
		return false, err
	}
	return true, tx.open(bucket, key, val, out)
}

// store writes a record.
func (tx *Tx) store(bucket string, key []byte, rec any) error {
	body, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("cannot store an entry in %s: %w", bucket, err)
	}
	return tx.put(bucket, key, tx.v.keys.encodeRecord(bucket, key, body))
}

func (tx *Tx) touch(id device.TokenID) {
	if tx.touched == nil {
		tx.touched = map[device.TokenID]bool{}
	}
	tx.touched[id] = true
}

// sequence holds the last numbers given out. Numbers are never used again.
type sequence struct {
	Job    uint64 `json:"job"`
	Change uint64 `json:"change"`
}

// number gives out the next number for a bucket. It must be above all that are there, or order would be lost.
func (tx *Tx) number(bucket string, of func(*sequence) *uint64) (uint64, error) {
	var s sequence
	if _, err := tx.load(bucketMeta, []byte(keySequence), &s); err != nil {
		return 0, err
	}
	n := of(&s)
	*n++
	err := tx.with(bucket, func(b *bbolt.Bucket) error {
		if last, _ := b.Cursor().Last(); last != nil && string(last) >= string(numberKey(*n)) {
			return tx.refuse(bucket, last, errors.New("its number was never given out"))
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return *n, tx.store(bucketMeta, []byte(keySequence), s)
}

func numberKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
