package vault

import (
	"fmt"
	"time"

	"tokendesk/device"
)

// Enqueue adds a change to the end of the outbox and returns it with its Seq and Created.
func (tx *Tx) Enqueue(c Change) (Change, error) {
	if _, err := device.ParseTokenID(string(c.Token)); err != nil {
		return Change{}, fmt.Errorf("cannot enqueue a change: %w", err)
	}
	switch c.Kind {
	case Put, Assign, Unassign, Disable, Enable, Advance:
	default:
		return Change{}, fmt.Errorf("cannot enqueue a change of %s: there is no kind %q", c.Token, c.Kind)
	}
	seq, err := tx.number(bucketOutbox, func(s *sequence) *uint64 { return &s.Change })
	if err != nil {
		return Change{}, err
	}
	c.Seq, c.Created = seq, time.Now().UTC()
	tx.touch(c.Token)
	return c, tx.store(bucketOutbox, numberKey(seq), c)
}

// Changes returns the outbox in the order of Seq.
func (tx *Tx) Changes() ([]Change, error) {
	var out []Change
	err := tx.scan(bucketOutbox, nil, nil, func(p pair) (bool, error) {
		var c Change
		err := tx.open(bucketOutbox, p.key, p.val, &c)
		out = append(out, c)
		return true, err
	})
	return out, err
}

// change returns one change, or ErrNotFound.
func (tx *Tx) change(seq uint64) (Change, error) {
	var c Change
	ok, err := tx.load(bucketOutbox, numberKey(seq), &c)
	if err == nil && !ok {
		err = fmt.Errorf("change %d: %w", seq, ErrNotFound)
	}
	return c, err
}

// PutChange writes back a change that is in the outbox; its token and kind stay what they are.
func (tx *Tx) PutChange(c Change) error {
	old, err := tx.change(c.Seq)
	if err != nil {
		return fmt.Errorf("cannot put a change: %w", err)
	}
	if old.Token != c.Token || old.Kind != c.Kind {
		return fmt.Errorf("cannot put change %d: it is %s of %s, not %s of %s", c.Seq, old.Kind, old.Token, c.Kind, c.Token)
	}
	tx.touch(c.Token)
	return tx.store(bucketOutbox, numberKey(c.Seq), c)
}

// DeleteChange removes a change that was confirmed, or returns ErrNotFound.
func (tx *Tx) DeleteChange(seq uint64) error {
	if _, err := tx.change(seq); err != nil {
		return err
	}
	return tx.delete(bucketOutbox, numberKey(seq))
}
