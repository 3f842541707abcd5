package vault

import (
	"encoding/binary"
	"errors"
	"fmt"

	"tokendesk/device"
	"tokendesk/vault/audit"
)

// act is an entry of the audit trail as the index knows it: under the token that is its object.
type act audit.Entry

func (a *act) indexKeys() [][]byte {
	if a == nil {
		return nil
	}
	if _, err := device.ParseTokenID(a.Object); err != nil {
		return nil
	}
	return [][]byte{numberedKey(kindActs, a.Object, a.Seq)}
}

func (a *act) tally(func(string)) {}

// History returns the entries of the audit trail whose object is a token of that name, newest first: at most limit of those
// before an entry's number (0: of all), or all if limit is 0.
func (tx *Tx) History(id device.TokenID, before uint64, limit int) (out []audit.Entry, err error) {
	seqs, err := tx.numbersBefore(kindActs, string(id), before, limit)
	for _, seq := range seqs {
		var e audit.Entry
		ok, err := tx.load(bucketAudit, numberKey(seq), &e)
		if err == nil && (!ok || e.Seq != seq || e.Object != string(id)) {
			err = tx.astray(kindActs, string(id), seq)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, err
}

// numbersBefore returns numbers under a value that are less than before, descending: at most limit, or all if limit is 0. A
// before of 0 is above all.
func (tx *Tx) numbersBefore(kind byte, value string, before uint64, limit int) (out []uint64, err error) {
	prefix := indexPrefix(kind, value)
	if before == 0 {
		before--
	}
	err = tx.with(bucketIndex, func(e *entries) error {
		c := e.Cursor()
		k, _ := c.Seek(numberedKey(kind, value, before))
		if k == nil {
			k, _ = c.Last()
		} else {
			k, _ = c.Prev()
		}
		for ; len(k) >= len(prefix) && string(k[:len(prefix)]) == string(prefix) && (limit <= 0 || len(out) < limit); k, _ = c.Prev() {
			if len(k) != len(prefix)+8 {
				return tx.refuse(bucketIndex, append([]byte(nil), k...), errors.New("it has no number"))
			}
			out = append(out, binary.BigEndian.Uint64(k[len(prefix):]))
		}
		return nil
	})
	return out, err
}

// upgrade brings a vault of an earlier version up to date: it makes the buckets that such a one has not, and enters the acts of
// before into the index. It is one transaction, whose epoch is that of before: what it adds follows from what was there.
func (s *session) upgrade() error {
	tx, err := s.begin(false)
	if err != nil {
		return err
	}
	missing := false
	for name := range lateBuckets {
		missing = missing || tx.bolt.Bucket([]byte(name)) == nil
	}
	tx.rollback()
	if !missing {
		return nil
	}
	changed := s.ledger.Changed // which a restore tells people
	if err := s.fill((*Tx).upgrade, s.ledger.Epoch); err != nil {
		return fmt.Errorf("cannot bring the vault up to date: %w", err)
	}
	s.ledger.Changed = changed
	return nil
}

func (tx *Tx) upgrade() error {
	err := tx.s.guard(func() error {
		for name := range lateBuckets {
			if _, err := tx.bolt.CreateBucketIfNotExists([]byte(name)); err != nil {
				return writeError(tx.s.path, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return tx.Acts(1, func(e audit.Entry) (bool, error) { return true, tx.reindex(nil, (*act)(&e)) })
}
