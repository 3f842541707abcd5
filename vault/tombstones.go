package vault

import (
	"errors"
	"fmt"
	"time"

	"tokendesk/device"
)

// Tombstone is what is left of a token that was deleted. Its seeds' fingerprints are left too: see ErrSeedSeen.
type Tombstone struct {
	ID device.TokenID `json:"id"`
	// Generation is the highest that its name ever had. The central service tells seeds apart by it: a token that gets the
	// name later begins above.
	Generation int       `json:"generation"`
	Time       time.Time `json:"time"`
	Owner      string    `json:"owner,omitempty"` // its last one
	Tenant     string    `json:"tenant,omitempty"`
	Status     Status    `json:"status"` // its last one
	Officer    string    `json:"officer"`
	Reason     string    `json:"reason,omitempty"`
}

// Bury removes a token, with its seeds and all its changes but the cut-offs, and keeps a tombstone, whose Generation is
// raised to the highest there ever was, and whose Time is set if it is zero. Its access code stays, for the device may still
// be protected by it, and so do the PUK and the management key of its card. Its job must go in the same transaction. A token that is not there is ErrNotFound.
func (tx *Tx) Bury(t Tombstone) error {
	token, err := tx.Token(t.ID)
	if err != nil {
		return err
	}
	t.Tenant = token.Tenant
	seeds, err := tx.Generations(t.ID)
	if err != nil {
		return err
	}
	cards, err := tx.PIVGenerations(t.ID)
	if err != nil {
		return err
	}
	for _, g := range append(append(seeds, cards...), token.Generation) {
		t.Generation = max(t.Generation, g)
	}
	changes, err := tx.ChangesOf(t.ID)
	if err != nil {
		return err
	}
	for _, c := range changes {
		if !c.Kind.CutOff() {
			if err := tx.DeleteChange(c.Seq); err != nil {
				return err
			}
		}
	}
	code, protected, err := tx.unseal(bucketCodes, []byte(t.ID))
	if err != nil {
		return err
	}
	defer code.Wipe()
	if err := errors.Join(tx.remove(t.ID), tx.forgetPINs(t.ID)); err != nil {
		return err
	}
	if protected {
		if err := tx.SetAccessCode(t.ID, code); err != nil {
			return err
		}
	}
	return tx.putTombstone(t)
}

// RaiseTombstone remembers that a later token of a buried one's name has had seeds up to a generation. Without a tombstone it
// does nothing.
func (tx *Tx) RaiseTombstone(id device.TokenID, generation int) error {
	t, ok, err := tx.Tombstone(id)
	if err != nil || !ok || t.Generation >= generation {
		return err
	}
	t.Generation = generation
	return tx.putTombstone(t)
}

func (tx *Tx) putTombstone(t Tombstone) error {
	old, ok, err := tx.Tombstone(t.ID)
	if err != nil {
		return err
	}
	if ok {
		t.Generation = max(t.Generation, old.Generation)
	}
	if t.Time.IsZero() {
		t.Time = time.Now()
	}
	t.Time = moment(t.Time)
	tx.touch(t.ID)
	tx.weigh(heavy)
	return tx.store(bucketTombstones, []byte(t.ID), t)
}

// Tombstone returns what is left of the last token of that name that was buried, if one was.
func (tx *Tx) Tombstone(id device.TokenID) (t Tombstone, ok bool, err error) {
	ok, err = tx.load(bucketTombstones, []byte(id), &t)
	return t, ok, err
}

// checkName refuses a token that would go on where a buried one of its name ended.
func (tx *Tx) checkName(t Token) error {
	if t.Generation == 0 {
		return nil
	}
	return tx.checkGeneration(t.ID, t.Generation)
}

// checkGeneration refuses a generation that a buried token of that name has had.
func (tx *Tx) checkGeneration(id device.TokenID, generation int) error {
	t, ok, err := tx.Tombstone(id)
	if err == nil && ok && generation <= t.Generation {
		err = fmt.Errorf("generation %d of %s is that of a token that was deleted; begin with %d", generation, id, t.Generation+1)
	}
	return err
}

func (c *contents) checkTombstones() error {
	return c.scan(bucketTombstones, nil, nil, func(p pair) (bool, error) {
		var t Tombstone
		if err := c.open(bucketTombstones, p.key, p.val, &t); err != nil {
			return false, err
		}
		if string(t.ID) != string(p.key) {
			return false, c.refuse(bucketTombstones, p.key, fmt.Errorf("it says it is that of %q", t.ID))
		}
		token, err := c.Token(t.ID)
		if errors.Is(err, ErrNotFound) {
			return true, nil
		}
		if err == nil {
			err = c.checkName(token)
		}
		return true, err
	})
}
