package vault

import "tokendesk/device"

// Bound has queries examine less than they do, until restore is called.
func Bound(entries, streams int) (restore func()) {
	e, s := examined, maxStreams
	examined, maxStreams = entries, streams
	return func() { examined, maxStreams = e, s }
}

// PutIndexed adds an index entry behind the vault's back: only the ledger knows of it.
func (tx *Tx) PutIndexed(kind byte, value string, id device.TokenID) error {
	tx.weigh(light)
	return tx.put(bucketIndex, indexKey(kind, value, id), []byte{})
}

// DeleteIndexed takes one out.
func (tx *Tx) DeleteIndexed(kind byte, value string, id device.TokenID) error {
	tx.weigh(light)
	return tx.delete(bucketIndex, indexKey(kind, value, id))
}

// PutNumbered adds an index entry of a job ('j') or change (all others).
func (tx *Tx) PutNumbered(kind byte, value string, n uint64) error {
	tx.weigh(light)
	return tx.put(bucketIndex, numberedKey(kind, value, n), []byte{})
}

// Miscount adds to a count.
func (tx *Tx) Miscount(name string, n int) {
	tx.weigh(light)
	tx.ledger.Counts[name] += n
}

// IndexEntries is how many entries the index has.
func (tx *Tx) IndexEntries() (n int, err error) {
	err = tx.scan(bucketIndex, nil, nil, func(pair) (bool, error) { n++; return true, nil })
	return n, err
}

// PutUnchecked stores a token as a migration does: without the checks of PutToken.
func (tx *Tx) PutUnchecked(t Token) error {
	if err := tx.reindex(nil, &t); err != nil {
		return err
	}
	return tx.store(bucketTokens, []byte(t.ID), t)
}

// Fold is what the index keeps of a text.
func Fold(s string) string { return fold(s) }

// DeleteNumbered takes an index entry of an act ('h'), a job or a change out.
func (tx *Tx) DeleteNumbered(kind byte, value string, n uint64) error {
	tx.weigh(light)
	return tx.delete(bucketIndex, numberedKey(kind, value, n))
}

// PutTombstone stores a tombstone under a name, whatever it says.
func (tx *Tx) PutTombstone(name device.TokenID, t Tombstone) error {
	tx.weigh(light)
	return tx.store(bucketTombstones, []byte(name), t)
}

// PutApprovalAt stores an approval under a number, whatever it says.
func (tx *Tx) PutApprovalAt(n uint64, a Approval) error {
	tx.weigh(light)
	tx.ledger.Counts[countApprovals]++
	return tx.store(bucketApprovals, numberKey(n), a)
}

// PutRecord stores a record under a key, whatever it says.
func (tx *Tx) PutRecord(bucket string, key []byte, rec any) error {
	tx.weigh(light)
	return tx.store(bucket, key, rec)
}
