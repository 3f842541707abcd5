package vault

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"tokendesk/device"
	"tokendesk/vault/audit"
)

// HandoverKind is how a token came to a person.
type HandoverKind string

// Kinds of handover.
const (
	Issued    HandoverKind = "issued"         // enrolled for them
	Assigned  HandoverKind = "assigned"       // out of stock, as it was
	Reissued  HandoverKind = "reissued"       // with a fresh seed on the same device
	Replaced  HandoverKind = "replaced"       // in the place of another token
	Unchanged HandoverKind = "seed unchanged" // from somebody else, on a device whose seed cannot be replaced
)

// Handover is the record that a token was given to a person. Those of a token, with what the audit trail has of it, are its
// chain of custody. They outlive the token.
type Handover struct {
	ID         uint64         `json:"id"`
	Kind       HandoverKind   `json:"kind"`
	Token      device.TokenID `json:"token"`
	Serial     device.Serial  `json:"serial,omitempty"`
	Generation int            `json:"generation"`     // of the seed that it was given with
	From       string         `json:"from,omitempty"` // who had it, or the token in whose place it came; empty: it was stock
	To         string         `json:"to"`
	Old        device.TokenID `json:"old,omitempty"`        // the token in whose place it came
	OldSerial  device.Serial  `json:"old_serial,omitempty"` // of its device
	OldStatus  Status         `json:"old_status,omitempty"` // what became of it
	Officer    audit.Officer  `json:"officer"`
	Time       time.Time      `json:"time"`
	Reason     string         `json:"reason,omitempty"`
	Offline    bool           `json:"offline,omitempty"` // the central service had not confirmed by then that From is cut off
	Emulated   bool           `json:"emulated,omitempty"`
	Proof      Proof          `json:"proof,omitzero"`
	Revoke     []Revocation   `json:"revoke,omitempty"` // certificates of who had the device, to be revoked at their issuers
	Act        uint64         `json:"act"`              // the entry of the audit trail that tells of it
}

// Proof is what codes touched at a handover have shown: that the device answers with one seed, and with another no longer.
type Proof struct {
	Codes         int    `json:"codes"`                    // so many in a row ...
	Generation    int    `json:"generation"`               // ... are those of this generation's seed ...
	Counter       uint64 `json:"counter"`                  // ... from this moving factor on (RFC 4226)
	OldGeneration int    `json:"old_generation,omitempty"` // 0: there was no seed before
	OldFrom       uint64 `json:"old_from,omitempty"`       // no such codes were found in the seed before from this moving factor on, ...
	OldWindow     int    `json:"old_window,omitempty"`     // ... among so many
	Typed         bool   `json:"typed,omitempty"`          // somebody typed them in: they were not captured from the device
}

func (h *Handover) indexKeys() [][]byte {
	if h == nil {
		return nil
	}
	var keys [][]byte
	add := func(kind byte, value string) {
		if k := numberedKey(kind, value, h.ID); value != "" && !contains(keys, k) {
			keys = append(keys, k)
		}
	}
	add(kindGiven, string(h.Token))
	add(kindGiven, string(h.Old))
	add(kindPerson, fold(h.From))
	add(kindPerson, fold(h.To))
	return keys
}

func (h *Handover) tally(func(string)) {}

// PutHandover adds a handover and sets its ID, its Act, which is the last one that this transaction has recorded, and, if it is
// zero, its Time.
func (tx *Tx) PutHandover(h *Handover) error {
	put := *h
	switch {
	case put.ID != 0:
		return fmt.Errorf("cannot put handover %d: what was recorded stays", put.ID)
	case put.To == "":
		return errors.New("cannot put a handover: it is to nobody")
	case len(put.To) > maxOwner || len(put.From) > maxOwner:
		return fmt.Errorf("cannot put a handover: a user has at most %d bytes", maxOwner)
	case !slices.Contains([]HandoverKind{Issued, Assigned, Reissued, Replaced, Unchanged}, put.Kind):
		return fmt.Errorf("cannot put a handover: there is no kind %q", put.Kind)
	case (put.Kind == Replaced) != (put.Old != ""):
		return fmt.Errorf("cannot put a handover: %q and the token in whose place it came do not go together", put.Kind)
	case len(tx.acts) == 0:
		return errors.New("cannot put a handover: nothing tells of it in the audit trail")
	}
	for _, id := range []device.TokenID{put.Token, put.Old} {
		if _, err := device.ParseTokenID(string(id)); err != nil && id != "" || put.Token == "" {
			return fmt.Errorf("cannot put a handover: %q is not a token", id)
		}
	}
	id, err := tx.number(bucketHandovers, &tx.ledger.Handover)
	if err != nil {
		return err
	}
	put.ID, put.Act = id, tx.ledger.Trail.Seq+uint64(len(tx.acts))
	if put.Time.IsZero() {
		put.Time = time.Now()
	}
	put.Time = moment(put.Time)
	if err := errors.Join(tx.reindex(nil, &put), tx.store(bucketHandovers, numberKey(id), put)); err != nil {
		return err
	}
	*h = put
	return nil
}

// Handover returns one handover, or ErrNotFound.
func (tx *Tx) Handover(id uint64) (Handover, error) {
	var h Handover
	ok, err := tx.load(bucketHandovers, numberKey(id), &h)
	if err == nil && !ok {
		err = fmt.Errorf("handover %d: %w", id, ErrNotFound)
	}
	return h, err
}

// Handovers calls fn for all handovers whose ID is greater than after, the oldest first, until it returns false.
func (tx *Tx) Handovers(after uint64, fn func(Handover) (bool, error)) error {
	return tx.scan(bucketHandovers, nil, numberKey(after), func(p pair) (bool, error) {
		var h Handover
		if err := tx.open(bucketHandovers, p.key, p.val, &h); err != nil {
			return false, err
		}
		return fn(h)
	})
}

// HandoversOf returns the handovers of a token, and those of another in its place, the newest first: at most limit of those
// before an ID (0: of all), or all if limit is 0.
func (tx *Tx) HandoversOf(id device.TokenID, before uint64, limit int) ([]Handover, error) {
	return tx.handovers(kindGiven, string(id), before, limit, func(h Handover) bool { return h.Token == id || h.Old == id })
}

// HandoversOfUser is HandoversOf for what a user has got or given back, whatever the case of the name's letters.
func (tx *Tx) HandoversOfUser(user string, before uint64, limit int) ([]Handover, error) {
	user = fold(user)
	return tx.handovers(kindPerson, user, before, limit, func(h Handover) bool { return fold(h.From) == user || fold(h.To) == user })
}

func (tx *Tx) handovers(kind byte, value string, before uint64, limit int, so func(Handover) bool) (out []Handover, err error) {
	ids, err := tx.numbersBefore(kind, value, before, limit)
	for _, id := range ids {
		h, err := tx.Handover(id)
		if errors.Is(err, ErrNotFound) || err == nil && !so(h) {
			err = tx.astray(kind, value, id)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	return out, err
}

// checkHandovers checks that handovers stand under their own numbers, that those were given out, and that the trail has what
// they refer to.
func (c *contents) checkHandovers() error {
	return c.scan(bucketHandovers, nil, nil, func(p pair) (bool, error) {
		var h Handover
		err := c.open(bucketHandovers, p.key, p.val, &h)
		if err == nil {
			err = c.given(bucketHandovers, p.key, h.ID, c.ledger.Handover)
		}
		if err == nil && (h.Act == 0 || h.Act > c.ledger.Trail.Seq) {
			err = c.refuse(bucketHandovers, p.key, fmt.Errorf("it refers to entry %d of the audit trail, which ends with %d", h.Act, c.ledger.Trail.Seq))
		}
		if err != nil {
			return false, err
		}
		return true, c.expect(&h)
	})
}
