package vault

import (
	"errors"
	"fmt"
	"time"

	"tokendesk/device"
)

// Token returns one token, or ErrNotFound.
func (tx *Tx) Token(id device.TokenID) (Token, error) {
	var t Token
	ok, err := tx.load(bucketTokens, []byte(id), &t)
	if err == nil && !ok {
		err = fmt.Errorf("token %s: %w", id, ErrNotFound)
	}
	return t, err
}

// PutToken writes a token and sets Updated, and Created if it is zero. Neither the generation nor, within one, the
// counter goes down. Once emulated, a token stays so, and once compromised, with its loss. What it says of owner (up to 256 bytes), batch, tenant (64) and
// description (1024) is UTF-8 without control characters.
func (tx *Tx) PutToken(t Token) error {
	if _, err := device.ParseTokenID(string(t.ID)); err != nil {
		return fmt.Errorf("cannot put a token: %w", err)
	}
	switch t.Status {
	case Pending, Active, Disabled, Limbo, Expired, Compromised:
	default:
		return fmt.Errorf("cannot put token %s: there is no status %q", t.ID, t.Status)
	}
	if !validGeneration(t.Generation) && t.Generation != 0 {
		return fmt.Errorf("cannot put token %s: there is no generation %d", t.ID, t.Generation)
	}
	var old Token
	ok, err := tx.load(bucketTokens, []byte(t.ID), &old)
	if err != nil {
		return err
	}
	if err := errors.Join(checkTexts(t, old), t.checkEnd(), tx.checkName(t)); err != nil {
		return err
	}
	t.Expires, t.Loss.Time, t.Wiped = moment(t.Expires), moment(t.Loss.Time), moment(t.Wiped)
	now := time.Now().UTC()
	if ok {
		if err := succeeds(t, old); err != nil {
			return err
		}
		t.Emulated = t.Emulated || old.Emulated
		if t.Created.IsZero() {
			t.Created = old.Created
		}
	}
	if t.Created.IsZero() {
		t.Created = now
	}
	if t.Updated = now; ok && onlyMoved(t, old) {
		t.Updated = old.Updated // LastUsed tells of that
	}
	tx.touch(t.ID)
	tx.touched[t.ID] = &t
	if !ok || !onlyMoved(t, old) {
		tx.weigh(heavy)
	}
	var was indexed
	if ok {
		was = &old
	}
	if err := tx.reindex(was, &t); err != nil {
		return err
	}
	return tx.store(bucketTokens, []byte(t.ID), &t)
}

// onlyMoved tells whether nothing differs but the counter, and what was seen of it.
func onlyMoved(t, old Token) bool {
	old.Counter, old.LastUsed, old.Updated, old.Seen, old.WentBack = t.Counter, t.LastUsed, t.Updated, t.Seen, t.WentBack
	return t == old
}

func succeeds(t, old Token) error {
	if old.Status == Compromised && (t.Status != Compromised || t.Loss != old.Loss) {
		return fmt.Errorf("cannot put token %s: it is compromised, and stays so", t.ID)
	}
	if t.Generation < old.Generation {
		return fmt.Errorf("cannot put token %s: its generation would go from %d back to %d", t.ID, old.Generation, t.Generation)
	}
	if t.Generation == old.Generation && t.Counter < old.Counter {
		return fmt.Errorf("cannot put token %s: its counter would go from %d back to %d, and used codes would count again; a lower counter needs a new seed",
			t.ID, old.Counter, t.Counter)
	}
	return nil
}

// DeleteToken removes a token with its seeds and access code, for an enrollment that is undone. Its jobs and changes must
// go in the same transaction. A token that is not there is ErrNotFound.
func (tx *Tx) DeleteToken(id device.TokenID) error {
	t, err := tx.Token(id)
	if err != nil {
		return err
	}
	gens, err := tx.Generations(id)
	if err != nil {
		return err
	}
	for _, g := range gens {
		if err := tx.DeleteSeed(id, g); err != nil {
			return err
		}
	}
	if err := tx.shred(bucketCodes, []byte(id)); err != nil {
		return err
	}
	if err := tx.reindex(&t, nil); err != nil {
		return err
	}
	tx.touch(id)
	tx.touched[id] = nil
	tx.weigh(heavy)
	return tx.delete(bucketTokens, []byte(id))
}
