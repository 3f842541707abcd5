package vault

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"time"

	"go.etcd.io/bbolt"

	"tokendesk/device"
	"tokendesk/vault/audit"
)

const (
	bucketMeta   = "meta"
	bucketTokens = "tokens"
	bucketSeeds  = "seeds"
	bucketCodes  = "codes" // access codes
	bucketJobs   = "jobs"
	bucketOutbox = "outbox"
	bucketIndex  = "index"  // see index.go
	bucketAudit  = "audit"  // see audit.go
	bucketSeen   = "seen"   // fingerprints of every seed ever held, see sentinel.go
	bucketBackup = "backup" // what backups were made
	bucketSystem = "system" // the vault's own secrets

	bucketTombstones = "tombstones" // what is left of deleted tokens
	bucketApprovals  = "approvals"  // orders that wait for a second officer
	bucketHandovers  = "handovers"  // which token was given to whom
	bucketLeavers    = "leavers"    // whose tokens are to come back
	bucketNotices    = "notices"    // mail that is not sent yet
	bucketAttempts   = "attempts"   // what has failed in a row
	bucketPIV        = "piv"        // secrets of PIV applications

	bucketCertificates = "certificates" // of their keys
	bucketPasswords    = "passwords"    // that applications of devices want

	keyHeader = "header"
	keyLedger = "ledger"
)

var buckets = []string{
	bucketMeta, bucketTokens, bucketSeeds, bucketCodes, bucketJobs, bucketOutbox, bucketIndex, bucketAudit, bucketSeen, bucketBackup, bucketSystem,
	bucketTombstones, bucketApprovals, bucketHandovers, bucketLeavers, bucketNotices, bucketAttempts,
	bucketPIV, bucketCertificates, bucketPasswords,
}

// lateBuckets are missing in vaults that an earlier version has made: see upgrade.
var lateBuckets = map[string]bool{
	bucketTombstones: true, bucketApprovals: true, bucketHandovers: true, bucketLeavers: true, bucketNotices: true,
	bucketAttempts: true, bucketPIV: true, bucketCertificates: true, bucketPasswords: true,
}

// secretBuckets hold sealed values; index entries have none; all others are records.
var secretBuckets = map[string]bool{bucketSeeds: true, bucketCodes: true, bucketSystem: true, bucketPIV: true, bucketPasswords: true}

var (
	errTxDone   = errors.New("the transaction is over")
	errReadOnly = errors.New("the transaction only reads")
)

// Tx is a transaction. It is used by one goroutine, and not after the function that got it has returned.
type Tx struct {
	s       *session
	bolt    *bbolt.Tx
	coder   *coder
	summer  *summer // nil in a transaction that only reads
	ledger  *ledger
	counter uint64 // the session's, when it began
	weight  weight
	done    bool
	buckets map[string]*entries       // those that were used
	touched map[device.TokenID]*Token // whose references settle checks; as PutToken has left them, or nil if it has not
	moved   map[device.TokenID]bool   // that PutToken has only moved the counters of
	read    Reading                   // the token that was read last
	acts    []audit.Act               // for the audit trail
	body    []byte                    // that store encodes into

	sentinel hash.Hash // see fingerprint; nil until it is needed
}

// weight says what a transaction does to the epoch.
type weight int

const (
	nothing weight = iota // nothing was written
	light                 // counters and bookkeeping: their epoch may come later
	heavy                 // an effect may follow: the epoch comes before it
)

func (tx *Tx) weigh(w weight) { tx.weight = max(tx.weight, w) }

func (tx *Tx) rollback() {
	if tx.done {
		return
	}
	tx.end()
	tx.s.guard(tx.bolt.Rollback) // after damage there is nothing to roll back
}

func (tx *Tx) commit() error {
	tx.end()
	if err := tx.s.guard(tx.bolt.Commit); err != nil {
		return writeError(tx.s.path, err)
	}
	return nil
}

func (tx *Tx) end() {
	tx.done, tx.sentinel = true, nil
}

// with runs fn on a bucket.
func (tx *Tx) with(bucket string, fn func(*entries) error) error {
	if tx.done {
		return errTxDone
	}
	return tx.s.guard(func() error { return fn(tx.entries(bucket)) })
}

// get returns a copy of a stored value, or nil.
func (tx *Tx) get(bucket string, key []byte) (val []byte, err error) {
	err = tx.with(bucket, func(e *entries) error {
		if got := e.find(key); got != nil {
			val = append(make([]byte, 0, len(got)), got...)
		}
		return nil
	})
	return val, err
}

// put stores a value and keeps the ledger. A nil value takes the entry out; an index entry's value is empty.
func (tx *Tx) put(bucket string, key, val []byte) error {
	if tx.summer == nil {
		return errReadOnly
	}
	return tx.with(bucket, func(e *entries) error {
		if old := e.find(key); old != nil {
			tx.ledger.Sum.sub(tx.summer.term(bucket, key, old))
			tx.ledger.Entries--
		}
		if val == nil {
			return e.Delete(key)
		}
		tx.ledger.Sum.add(tx.summer.term(bucket, key, val))
		tx.ledger.Entries++
		return e.Put(key, val)
	})
}

func (tx *Tx) delete(bucket string, key []byte) error { return tx.put(bucket, key, nil) }

// meta stores what the ledger does not count: the header and the ledger itself.
func (tx *Tx) meta(key string, val []byte) error {
	return tx.with(bucketMeta, func(e *entries) error { return e.Put([]byte(key), val) })
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
		err := tx.with(bucket, func(e *entries) error {
			if k, v := e.first(prefix, next); k != nil {
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
	body, err := tx.coder.decodeRecord(bucket, key, val)
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
	return corrupt("%s: the entry %q in %s was changed behind the vault's back: %w", tx.s.path, key, bucket, err)
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
	if tx.summer == nil {
		return errReadOnly
	}
	body, err := encodeJSON(tx.body[:0], rec)
	if err != nil {
		return fmt.Errorf("cannot store an entry in %s: %w", bucket, err)
	}
	tx.body = body
	return tx.storeBody(bucket, key, body)
}

// storeBody writes a record that is encoded already.
func (tx *Tx) storeBody(bucket string, key, body []byte) error {
	if tx.summer == nil {
		return errReadOnly
	}
	tx.weigh(light)
	return tx.put(bucket, key, tx.coder.encodeRecord(bucket, key, tx.version(), body))
}

// version gives out the next record version.
func (tx *Tx) version() uint64 {
	tx.ledger.Version++
	return tx.ledger.Version
}

func (tx *Tx) touch(id device.TokenID) {
	if tx.touched == nil {
		tx.touched = map[device.TokenID]*Token{}
	}
	if _, ok := tx.touched[id]; !ok {
		tx.touched[id] = nil
	}
}

// number gives out the number after last for a bucket. It must be above all that are there, or order would be lost.
// Numbers are never used again.
func (tx *Tx) number(bucket string, last *uint64) (uint64, error) {
	if tx.summer == nil {
		return 0, errReadOnly
	}
	n := *last + 1
	err := tx.with(bucket, func(e *entries) error {
		if k, _ := e.cursor.Last(); k != nil && string(k) >= string(numberKey(n)) {
			return tx.refuse(bucket, k, errors.New("its number was never given out"))
		}
		return nil
	})
	if err == nil {
		*last = n
	}
	return n, err
}

func numberKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// close writes what belongs to every commit: the audit trail, and the ledger with its epoch.
func (tx *Tx) close(epoch uint64, counter uint64) error {
	tx.ledger.Epoch = epoch
	if err := tx.writeActs(epoch, counter); err != nil {
		return err
	}
	tx.ledger.Changed = time.Now().UTC()
	encoded, err := tx.ledger.encode(tx.s.keys)
	if err != nil {
		return err
	}
	return tx.meta(keyLedger, encoded)
}
