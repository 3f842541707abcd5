package vault

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"tokendesk/vault/audit"
)

// Approval is an order of one officer that waits for another one.
type Approval struct {
	ID      uint64          `json:"id"`
	Action  string          `json:"action"`
	Object  string          `json:"object"`         // what it is about, for people
	Request json.RawMessage `json:"request"`        // the order, for whoever carries it out
	Digest  string          `json:"digest"`         // of exactly what will happen
	Text    []string        `json:"text,omitempty"` // that in words
	By      audit.Officer   `json:"by"`             // who asked
	Reason  string          `json:"reason"`
	Created time.Time       `json:"created"`
	Expires time.Time       `json:"expires"`
}

func (a *Approval) indexKeys() [][]byte { return nil }

func (a *Approval) tally(count func(string)) {
	if a != nil {
		count(countApprovals)
	}
}

// PutApproval writes an approval. One whose ID is zero is new and gets its ID and, if it has none, Created.
func (tx *Tx) PutApproval(a *Approval) error {
	put := *a
	put.Expires = moment(put.Expires)
	switch {
	case put.Action == "":
		return errors.New("cannot put an approval: it has no action")
	case len(put.Request) > 0 && !json.Valid(put.Request):
		return errors.New("cannot put an approval: its request is not JSON")
	case put.Expires.IsZero():
		return errors.New("cannot put an approval: it would never expire")
	}
	var was indexed
	if put.ID == 0 {
		id, err := tx.number(bucketApprovals, &tx.ledger.Approval)
		if err != nil {
			return err
		}
		put.ID = id
		if put.Created.IsZero() {
			put.Created = time.Now()
		}
		put.Created = moment(put.Created)
	} else {
		old, err := tx.Approval(put.ID)
		if err != nil {
			return fmt.Errorf("cannot put an approval: %w", err)
		}
		was = &old
	}
	tx.weigh(heavy)
	if err := errors.Join(tx.reindex(was, &put), tx.store(bucketApprovals, numberKey(put.ID), put)); err != nil {
		return err
	}
	*a = put
	return nil
}

// Approval returns one approval, or ErrNotFound.
func (tx *Tx) Approval(id uint64) (Approval, error) {
	var a Approval
	ok, err := tx.load(bucketApprovals, numberKey(id), &a)
	if err == nil && !ok {
		err = fmt.Errorf("approval %d: %w", id, ErrNotFound)
	}
	return a, err
}

// Approvals returns all approvals, oldest first.
func (tx *Tx) Approvals() (out []Approval, err error) {
	err = tx.scan(bucketApprovals, nil, nil, func(p pair) (bool, error) {
		var a Approval
		err := tx.open(bucketApprovals, p.key, p.val, &a)
		out = append(out, a)
		return true, err
	})
	return out, err
}

// DeleteApproval removes an approval, or returns ErrNotFound.
func (tx *Tx) DeleteApproval(id uint64) error {
	a, err := tx.Approval(id)
	if err != nil {
		return err
	}
	if err := tx.reindex(&a, nil); err != nil {
		return err
	}
	tx.weigh(heavy) // put back, it could be approved again
	return tx.delete(bucketApprovals, numberKey(id))
}

// dropApprovals removes all of them from a file that is being written: what a backup holds was perhaps rejected since.
func dropApprovals(in commit) error {
	return inBatches(in, bucketApprovals, func(tx *Tx, p pair) error {
		var a Approval
		if err := tx.open(bucketApprovals, p.key, p.val, &a); err != nil {
			return err
		}
		return tx.DeleteApproval(a.ID)
	})
}

// checkApprovals checks that approvals stand under their own numbers, and that those were given out.
func (c *contents) checkApprovals() error {
	return c.scan(bucketApprovals, nil, nil, func(p pair) (bool, error) {
		var a Approval
		if err := c.open(bucketApprovals, p.key, p.val, &a); err != nil {
			return false, err
		}
		return true, errors.Join(c.given(bucketApprovals, p.key, a.ID, c.ledger.Approval), c.expect(&a))
	})
}
