package vault

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"tokendesk/device"
)

// Token returns one token, or ErrNotFound.
func (tx *Tx) Token(id device.TokenID) (Token, error) {
	r, err := tx.ReadToken(id)
	return r.Token, err
}

// Reading is a token as a transaction has found it. A later one that finds it the same need not decode it again: see TokenSince.
type Reading struct {
	Token Token
	entry []byte
}

// ReadToken is Token for whoever wants to know later whether it is still the same.
func (tx *Tx) ReadToken(id device.TokenID) (Reading, error) {
	r, err := tx.readToken(id)
	if err == nil && r.entry == nil {
		err = fmt.Errorf("token %s: %w", id, ErrNotFound)
	}
	return r, err
}

// TokenSince is Token for one that an earlier transaction on this vault has read.
func (tx *Tx) TokenSince(r Reading) (Token, error) {
	if r.entry != nil {
		tx.read = r
	}
	return tx.Token(r.Token.ID)
}

// readToken reads a token, or nothing. What was read last is mostly what is changed next: as long as its entry is the same, byte by
// byte, it is not authenticated and decoded anew.
func (tx *Tx) readToken(id device.TokenID) (r Reading, err error) {
	key, same := []byte(id), false
	err = tx.with(bucketTokens, func(e *entries) error {
		val := e.find(key)
		if same = val != nil && tx.read.Token.ID == id && bytes.Equal(tx.read.entry, val); !same {
			r.entry = bytes.Clone(val)
		}
		return nil
	})
	switch {
	case err != nil:
		return r, err
	case same:
		return tx.read, nil
	case r.entry == nil:
		return r, nil
	}
	record, err := tx.coder.decodeRecord(bucketTokens, key, r.entry)
	if err == nil {
		r.Token, err = readTokenRecord(record)
	}
	if err != nil {
		return r, tx.refuse(bucketTokens, key, err)
	}
	if r.Token.ID == id {
		tx.read = r
	}
	return r, nil
}

// PutToken writes a token and sets Updated, and Created if it is zero. Neither the generation nor, within one, the
// counter goes down. Once emulated, a token stays so, and once compromised, with its loss. What it says of owner (up to 256 bytes), batch, tenant (64) and
// description (1024) is UTF-8 without control characters.
func (tx *Tx) PutToken(t Token) error {
	before, err := tx.readToken(t.ID)
	if err != nil {
		return err
	}
	old := &before.Token
	if before.entry != nil && t.WentBack == old.WentBack && onlyMoved(t, *old) {
		return tx.moveToken(t, old)
	}
	return tx.putToken(t, before)
}

// moveToken is PutToken for one that is as it was but for its counter: what it says, what refers to it, and its index are as good as
// before. Nothing is done more often.
func (tx *Tx) moveToken(t Token, old *Token) error {
	if err := succeeds(&t, old); err != nil {
		return err
	}
	t.Updated = old.Updated // LastUsed tells of that
	if tx.moved == nil {
		tx.moved = map[device.TokenID]bool{}
	}
	tx.moved[t.ID] = true
	w := object{b: append(tx.body[:0], '{')}
	w.token(&t)
	if w.failed {
		return tx.store(bucketTokens, []byte(t.ID), new(t))
	}
	tx.body = append(w.b, '}')
	return tx.storeBody(bucketTokens, []byte(t.ID), tx.body)
}

func (tx *Tx) putToken(t Token, before Reading) error {
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
	old, ok := before.Token, before.entry != nil
	if err := errors.Join(checkTexts(t, old), t.checkEnd(), tx.checkName(t)); err != nil {
		return err
	}
	t.Expires, t.Loss.Time, t.Wiped = moment(t.Expires), moment(t.Loss.Time), moment(t.Wiped)
	now := time.Now().UTC()
	if ok {
		if err := succeeds(&t, &old); err != nil {
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
		t.Updated = old.Updated
	} else {
		tx.weigh(heavy)
	}
	tx.touch(t.ID)
	tx.touched[t.ID] = &t
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

func succeeds(t, old *Token) error {
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

// DeleteToken removes a token with its seeds, access code and PIV secrets, for an enrollment that is undone. Its jobs and changes must
// go in the same transaction. A token that is not there is ErrNotFound.
func (tx *Tx) DeleteToken(id device.TokenID) error {
	return errors.Join(tx.remove(id), tx.ForgetPIV(id, 0))
}

// remove is DeleteToken that leaves what a card keeps of the desk.
func (tx *Tx) remove(id device.TokenID) error {
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
	if err := errors.Join(tx.reindex(&t, nil), tx.forgetAttempts(TokenAttempts(id))); err != nil {
		return err
	}
	tx.touch(id)
	tx.touched[id] = nil
	tx.weigh(heavy)
	return tx.delete(bucketTokens, []byte(id))
}
