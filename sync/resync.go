package syncer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tokendesk/device"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

const (
	// ResyncWindow is how far ahead two consecutive codes are looked for.
	ResyncWindow = 1000
	// TestWindow is how far ahead a single code is looked for: with 6 digits a guess passes with 1 in 100,000.
	TestWindow = 10
)

// beginPatience is how long somebody with a token in hand waits for the central service's counter. Tests have less.
var beginPatience = 3 * time.Second

// MissError says why codes did not fit, and what to do.
type MissError struct {
	Token device.TokenID
	Miss  Miss
	Next  string
}

func (e *MissError) Error() string {
	text := fmt.Sprintf("%s: %s", e.Token, e.Miss)
	if e.Next != "" {
		text += "; " + e.Next
	}
	return text
}

// Attempt is one try to place captured codes of one token. It holds the seed until Close.
type Attempt struct {
	vault *vault.Vault
	by    audit.Officer
	token vault.Token
	seed  secret.Secret
	base  uint64 // next moving factor: the greater one of vault and central service
	Note  string // what could not be taken into account
}

// Begin reads what is known of a token here and, if the central service answers within a few seconds, there.
func (o *Outbox) Begin(ctx context.Context, by audit.Officer, id device.TokenID) (*Attempt, error) {
	asking, enough := context.WithTimeout(ctx, beginPatience)
	defer enough()
	base, _, err := o.Observe(asking, id)
	a := &Attempt{vault: o.v, by: by, base: base}
	if err != nil {
		if errors.Is(err, vault.ErrNotFound) {
			return nil, err
		}
		if asking.Err() != nil && ctx.Err() == nil {
			err = fmt.Errorf("no answer within %v: %w", beginPatience, err)
		}
		a.Note = "the central service's counter could not be read, only the vault's was used: " + err.Error()
	}
	err = o.v.View(func(tx *vault.Tx) (err error) {
		if a.token, err = tx.Token(id); err != nil {
			return err
		}
		if a.token.Generation == 0 {
			return &MissError{id, "it was never verified", "settle its enroll first: tokendesk resolve " + string(id)}
		}
		a.base = max(a.base, a.token.Counter)
		a.seed, err = tx.Seed(id, a.token.Generation)
		return err
	})
	return a, err
}

// Close wipes the seed.
func (a *Attempt) Close() { a.seed.Wipe() }

// Test takes one code. On success that counter value is consumed, here and, by the outbox, centrally.
func (a *Attempt) Test(code string) (vault.Change, error) {
	if a.token.Stale {
		return vault.Change{}, &MissError{a.token.ID, "the vault was restored from a backup since its counter was known",
			"resync it first, with two consecutive codes: tokendesk resync " + string(a.token.ID)}
	}
	return a.take("test", []string{code}, TestWindow, "if the token is the right one, resync it with two consecutive codes")
}

// Resync takes two or three consecutive codes, oldest first. The seed stays, the counter moves behind them.
func (a *Attempt) Resync(codes []string) (vault.Change, error) {
	if len(codes) < 2 || len(codes) > 3 {
		return vault.Change{}, &MissError{a.token.ID, "a resync takes two or three consecutive codes", ""}
	}
	return a.take("resync", codes, ResyncWindow, "")
}

// ResyncLast tries the last two of the codes captured so far; false if they do not fit yet.
func (a *Attempt) ResyncLast(codes []string) (c vault.Change, ok bool, err error) {
	if len(codes) < 2 {
		return c, false, nil
	}
	c, err = a.Resync(codes[len(codes)-2:])
	if miss := (*MissError)(nil); errors.As(err, &miss) {
		return c, false, nil
	}
	return c, err == nil, err
}

func (a *Attempt) take(action string, codes []string, window int, next string) (c vault.Change, err error) {
	n, found := hotpscan.Search(a.seed, a.token.Digits, a.base, window, codes)
	if !found {
		miss := ExplainMiss(a.seed, a.token.Digits, a.base, window, codes)
		if miss != MissNothing {
			next = ""
		} else if next != "" {
			miss = "this is not one of its next codes"
		}
		return c, &MissError{a.token.ID, miss, next}
	}
	err = a.vault.Update(func(tx *vault.Tx) error {
		t, err := tx.Token(a.token.ID)
		if err != nil {
			return err
		}
		if t.Generation != a.token.Generation || t.Counter > n {
			return &MissError{t.ID, "the token changed while its codes were being checked", "repeat with new codes"}
		}
		t.Counter, t.LastUsed, t.Stale = n+uint64(len(codes)), time.Now().UTC(), false
		if err := tx.PutToken(t); err != nil {
			return err
		}
		a.token, a.base = t, t.Counter
		if err := tx.Audit(vault.Done(a.by, action, t.ID, t.Owner)); err != nil {
			return err
		}
		c, err = tx.Enqueue(vault.Change{
			Kind: vault.Advance, Token: t.ID, User: t.Owner, Generation: t.Generation, Counter: t.Counter, Digits: t.Digits,
		})
		return err
	})
	return c, err
}
