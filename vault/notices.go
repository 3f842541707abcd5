package vault

import (
	"errors"
	"fmt"
	"time"

	"tokendesk/device"
)

// Notice is mail to a token's holder: committed with what it tells of, and not sent yet.
type Notice struct {
	ID        uint64         `json:"id"`
	Kind      string         `json:"kind"` // what it tells of
	User      string         `json:"user"` // to whom
	Token     device.TokenID `json:"token"`
	Successor string         `json:"successor,omitempty"` // who has the token now
	Reason    string         `json:"reason,omitempty"`
	Created   time.Time      `json:"created"`
	Attempts  int            `json:"attempts,omitempty"`
	NotBefore time.Time      `json:"not_before,omitzero"` // backoff: no attempt earlier
	Parked    bool           `json:"parked,omitempty"`    // waits for an officer
	Problem   string         `json:"problem,omitempty"`   // what the last attempt failed with
}

func (n *Notice) indexKeys() [][]byte { return nil }

func (n *Notice) tally(count func(string)) {
	if n == nil {
		return
	}
	count(countNotices)
	if n.Parked {
		count(countNoticesParked)
	}
}

// PutNotice writes a notice. One whose ID is zero is new and gets its ID and, if it has none, Created.
func (tx *Tx) PutNotice(n *Notice) error {
	put := *n
	_, err := device.ParseTokenID(string(put.Token))
	switch {
	case put.Kind == "":
		return errors.New("cannot put a notice: it has no kind")
	case put.User == "" || len(put.User) > maxOwner:
		return fmt.Errorf("cannot put a notice: it is to a user of %d bytes; 1 to %d are possible", len(put.User), maxOwner)
	case err != nil:
		return fmt.Errorf("cannot put a notice: %w", err)
	}
	var was indexed
	if put.ID == 0 {
		id, err := tx.number(bucketNotices, &tx.ledger.Notice)
		if err != nil {
			return err
		}
		put.ID = id
		if put.Created.IsZero() {
			put.Created = time.Now()
		}
		put.Created = moment(put.Created)
	} else {
		old, err := tx.Notice(put.ID)
		if err != nil {
			return fmt.Errorf("cannot put a notice: %w", err)
		}
		was = &old
	}
	put.NotBefore = moment(put.NotBefore)
	if err := errors.Join(tx.reindex(was, &put), tx.store(bucketNotices, numberKey(put.ID), put)); err != nil {
		return err
	}
	*n = put
	return nil
}

// Notice returns one notice, or ErrNotFound.
func (tx *Tx) Notice(id uint64) (Notice, error) {
	var n Notice
	ok, err := tx.load(bucketNotices, numberKey(id), &n)
	if err == nil && !ok {
		err = fmt.Errorf("notice %d: %w", id, ErrNotFound)
	}
	return n, err
}

// Notices returns the notices whose ID is greater than after, the oldest first: at most limit, or all if limit is 0.
func (tx *Tx) Notices(after uint64, limit int) (out []Notice, err error) {
	err = tx.scan(bucketNotices, nil, numberKey(after), func(p pair) (bool, error) {
		var n Notice
		err := tx.open(bucketNotices, p.key, p.val, &n)
		out = append(out, n)
		return limit <= 0 || len(out) < limit, err
	})
	return out, err
}

// DeleteNotice removes a notice that was sent or given up, or returns ErrNotFound.
func (tx *Tx) DeleteNotice(id uint64) error {
	n, err := tx.Notice(id)
	if err != nil {
		return err
	}
	tx.weigh(light)
	return errors.Join(tx.reindex(&n, nil), tx.delete(bucketNotices, numberKey(id)))
}

// dropNotices removes all of them from a file that is being written: those of a backup were perhaps sent since.
func dropNotices(in commit) error {
	return inBatches(in, bucketNotices, func(tx *Tx, p pair) error {
		var n Notice
		if err := tx.open(bucketNotices, p.key, p.val, &n); err != nil {
			return err
		}
		return tx.DeleteNotice(n.ID)
	})
}

// checkNotices checks that notices stand under their own numbers, and that those were given out.
func (c *contents) checkNotices() error {
	return c.scan(bucketNotices, nil, nil, func(p pair) (bool, error) {
		var n Notice
		if err := c.open(bucketNotices, p.key, p.val, &n); err != nil {
			return false, err
		}
		return true, errors.Join(c.given(bucketNotices, p.key, n.ID, c.ledger.Notice), c.expect(&n))
	})
}
