package vault

import (
	"fmt"
	"strings"
	"time"

	"tokendesk/device"
)

// Filter selects tokens; its zero value selects all.
type Filter struct {
	Device device.ID
	Owner  string // in any case of letters, as directories compare names
	Status Status
	Text   string         // found in the name or the owner, in any case of letters
	After  device.TokenID // only names after this one: where the last page ended
	Limit  int            // at most so many; 0 for all
}

func (f Filter) matches(t Token) bool {
	text := strings.ToLower(f.Text)
	return (f.Owner == "" || strings.EqualFold(f.Owner, t.Owner)) &&
		(f.Status == "" || f.Status == t.Status) &&
		(strings.Contains(strings.ToLower(string(t.ID)), text) || strings.Contains(strings.ToLower(t.Owner), text))
}

// Token returns one token, or ErrNotFound.
func (tx *Tx) Token(id device.TokenID) (Token, error) {
	var t Token
	ok, err := tx.load(bucketTokens, []byte(id), &t)
	if err == nil && !ok {
		err = fmt.Errorf("token %s: %w", id, ErrNotFound)
	}
	return t, err
}

// Tokens returns the tokens that f selects, in the order of their names.
func (tx *Tx) Tokens(f Filter) ([]Token, error) {
	var prefix []byte
	if f.Device != "" {
		prefix = []byte(f.Device + "/")
	}
	var out []Token
	err := tx.scan(bucketTokens, prefix, []byte(f.After), func(p pair) (bool, error) {
		var t Token
		if err := tx.open(bucketTokens, p.key, p.val, &t); err != nil {
			return false, err
		}
		if f.matches(t) {
			out = append(out, t)
		}
		return f.Limit <= 0 || len(out) < f.Limit, nil
	})
	return out, err
}

// PutToken writes a token and sets Updated, and Created if it is zero. Neither the generation nor, within one, the
// counter goes down. Once emulated, a token stays so.
func (tx *Tx) PutToken(t Token) error {
	if _, err := device.ParseTokenID(string(t.ID)); err != nil {
		return fmt.Errorf("cannot put a token: %w", err)
	}
	switch t.Status {
	case Pending, Active, Disabled, Limbo:
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
	t.Updated = now
	tx.touch(t.ID)
	return tx.store(bucketTokens, []byte(t.ID), t)
}

func succeeds(t, old Token) error {
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
	if _, err := tx.Token(id); err != nil {
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
	if err := tx.delete(bucketCodes, []byte(id)); err != nil {
		return err
	}
	tx.touch(id)
	return tx.delete(bucketTokens, []byte(id))
}
