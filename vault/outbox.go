package vault

import (
	"errors"
	"fmt"
	"time"

	"tokendesk/device"
)

// Enqueue adds a change to the end of the outbox and returns it with its Seq and Created.
func (tx *Tx) Enqueue(c Change) (Change, error) {
	all := []Change{c}
	err := tx.EnqueueAll(all)
	return all[0], err
}

// EnqueueAll is Enqueue for several, in their order.
func (tx *Tx) EnqueueAll(all []Change) error {
	for i := range all {
		if err := tx.numberChange(&all[i]); err != nil {
			return err
		}
	}
	return storeMany(tx, bucketOutbox, len(all), func(i int) (Change, uint64) { return all[i], all[i].Seq },
		func(c *Change) error { return tx.reindex(nil, c) })
}

func (tx *Tx) numberChange(c *Change) error {
	if _, err := device.ParseTokenID(string(c.Token)); err != nil {
		return fmt.Errorf("cannot enqueue a change: %w", err)
	}
	switch c.Kind {
	case Put, Assign, Unassign, Disable, Enable, Advance, Remove:
	default:
		return fmt.Errorf("cannot enqueue a change of %s: there is no kind %q", c.Token, c.Kind)
	}
	seq, err := tx.number(bucketOutbox, &tx.ledger.Change)
	if err != nil {
		return err
	}
	c.Seq, c.Created = seq, time.Now().UTC()
	if c.Kind != Advance {
		tx.weigh(heavy)
	}
	if c.Kind != Advance || !tx.moved[c.Token] { // else the token is there, and it takes no more
		tx.touch(c.Token)
	}
	return nil
}

// ChangesFrom returns the outbox's changes whose Seq is greater than after, in that order: at most limit, or all if limit is 0.
func (tx *Tx) ChangesFrom(after uint64, limit int) ([]Change, error) {
	var out []Change
	err := tx.scan(bucketOutbox, nil, numberKey(after), func(p pair) (bool, error) {
		var c Change
		err := tx.open(bucketOutbox, p.key, p.val, &c)
		out = append(out, c)
		return limit <= 0 || len(out) < limit, err
	})
	return out, err
}

// ChangesOf returns the outbox's changes of one token, in the order of Seq.
func (tx *Tx) ChangesOf(id device.TokenID) ([]Change, error) {
	return tx.listed(kindChange, string(id), 0, 0, func(c Change) bool { return c.Token == id })
}

// NextOf returns the Seq of a token's first change after one, or 0.
func (tx *Tx) NextOf(id device.TokenID, after uint64) (uint64, error) {
	return tx.first(kindChange, string(id), after)
}

// CutOffsFrom is ChangesFrom for cut-offs alone.
func (tx *Tx) CutOffsFrom(after uint64, limit int) ([]Change, error) {
	return tx.listed(kindList, listCutOffs, after, limit, func(c Change) bool { return c.Kind.CutOff() })
}

// ParkedFrom is ChangesFrom for those that are parked.
func (tx *Tx) ParkedFrom(after uint64, limit int) ([]Change, error) {
	return tx.listed(kindList, listParked, after, limit, func(c Change) bool { return c.Parked })
}

// CutOffOf returns the Seq of the first cut-off that concerns a user, whatever the case of the name's letters, or 0.
func (tx *Tx) CutOffOf(user string) (uint64, error) { return tx.first(kindCutOff, fold(user), 0) }

func (tx *Tx) first(kind byte, value string, after uint64) (uint64, error) {
	seqs, err := tx.numbered(kind, value, after, 1)
	if err != nil || len(seqs) == 0 {
		return 0, err
	}
	return seqs[0], nil
}

// listed returns the changes that the index has under a value, and that are so.
func (tx *Tx) listed(kind byte, value string, after uint64, limit int, so func(Change) bool) ([]Change, error) {
	seqs, err := tx.numbered(kind, value, after, limit)
	if err != nil {
		return nil, err
	}
	var out []Change
	for _, seq := range seqs {
		c, err := tx.ChangeAt(seq)
		if errors.Is(err, ErrNotFound) || err == nil && !so(c) {
			err = tx.astray(kind, value, seq)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// ChangeAt returns the change with a Seq, or ErrNotFound.
func (tx *Tx) ChangeAt(seq uint64) (Change, error) {
	var c Change
	ok, err := tx.load(bucketOutbox, numberKey(seq), &c)
	if err == nil && !ok {
		err = fmt.Errorf("change %d: %w", seq, ErrNotFound)
	}
	return c, err
}

// PutChange writes back a change that is in the outbox; its token and kind stay what they are.
func (tx *Tx) PutChange(c Change) error {
	old, err := tx.ChangeAt(c.Seq)
	if err != nil {
		return fmt.Errorf("cannot put a change: %w", err)
	}
	if old.Token != c.Token || old.Kind != c.Kind {
		return fmt.Errorf("cannot put change %d: it is %s of %s, not %s of %s", c.Seq, old.Kind, old.Token, c.Kind, c.Token)
	}
	tx.touch(c.Token)
	if err := tx.reindex(&old, &c); err != nil {
		return err
	}
	return tx.store(bucketOutbox, numberKey(c.Seq), c)
}

// DeleteChange removes a change that was confirmed, or returns ErrNotFound.
func (tx *Tx) DeleteChange(seq uint64) error {
	c, err := tx.ChangeAt(seq)
	if err != nil {
		return err
	}
	if err := tx.reindex(&c, nil); err != nil {
		return err
	}
	tx.weigh(light)
	return tx.delete(bucketOutbox, numberKey(seq))
}
