package syncer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
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
	// surplusWindow is how far ahead a code is looked for that the key has typed after those which have placed it.
	surplusWindow = 16
)

// Names of what is recorded of codes.
const (
	actTest    = "test"
	actResync  = "resync"
	actSurplus = "resync: touched on"
)

// outcomeMissed is the outcome of an act whose codes did not fit.
const outcomeMissed = "not-verified"

// beginPatience is how long somebody with a token in hand waits for the central service's counter. Tests have less.
var beginPatience = 3 * time.Second

// Attempt is one try to place codes of one token. It lives as long as the request for it, holds the seed until Close, and is used
// by one goroutine.
type Attempt struct {
	ctx     context.Context
	outbox  *Outbox
	vault   *vault.Vault
	by      audit.Officer
	token   vault.Token
	seed    secret.Secret
	base    uint64 // next moving factor: the greater one of vault and central service
	touched bool   // Surplus has left its act
	Note    string // what could not be taken into account
}

// Begin reads what is known of a token here and, if the central service answers within a few seconds, there. After too many
// failures in a row it returns a SlowDownError.
func (o *Outbox) Begin(ctx context.Context, by audit.Officer, id device.TokenID) (*Attempt, error) {
	asking, enough := context.WithTimeout(ctx, beginPatience)
	defer enough()
	base, _, err := o.Observe(asking, id)
	a := &Attempt{ctx: ctx, outbox: o, vault: o.v, by: by, base: base}
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
			return &MissError{Token: id, Miss: Miss{Kind: MissUnverified}}
		}
		if err := o.mayTry(tx, id); err != nil {
			return err
		}
		a.base = max(a.base, a.token.Counter)
		a.seed, err = tx.Seed(id, a.token.Generation)
		return err
	})
	return a, err
}

// mayTry refuses codes of a token of which too many were wrong in a row.
func (o *Outbox) mayTry(tx *vault.Tx, id device.TokenID) error {
	return TokenPace.Check(tx, vault.TokenAttempts(id), o.now())
}

// Close wipes the seed.
func (a *Attempt) Close() { a.seed.Wipe() }

// Test takes one code. On success that counter value is consumed, here and, by the outbox, centrally.
func (a *Attempt) Test(code string) (vault.Change, error) {
	if a.token.Stale {
		return vault.Change{}, &MissError{Token: a.token.ID, Miss: Miss{Kind: MissRestored}}
	}
	return a.take(actTest, []string{code}, TestWindow)
}

// Resync takes two or three consecutive codes, oldest first. The seed stays, the counter moves behind them. Codes that do not fit
// are a *MissError, which is recorded, and counts if they may have been guessed.
func (a *Attempt) Resync(codes []string) (vault.Change, error) {
	if len(codes) < 2 || len(codes) > 3 {
		return vault.Change{}, &MissError{Token: a.token.ID, Miss: Miss{Kind: MissCount}}
	}
	return a.take(actResync, codes, ResyncWindow)
}

// ResyncLast tries the last two of the codes captured so far; false if they do not fit yet. Nothing is recorded of that: when the
// capture has ended without success, Missed says why.
func (a *Attempt) ResyncLast(codes []string) (c vault.Change, ok bool, err error) {
	if len(codes) < 2 {
		return c, false, nil
	}
	codes = codes[len(codes)-2:]
	n, found := a.search(codes, ResyncWindow)
	if !found {
		return c, false, nil
	}
	c, err = a.advance(actResync, n, len(codes))
	return c, err == nil, err
}

// Missed explains why the last two of captured codes did not fit, and records it like Resync. Fewer than two are explained too.
func (a *Attempt) Missed(codes []string) error {
	a.outbox.placing.Lock()
	defer a.outbox.placing.Unlock()
	return a.missed(actResync, codes[max(0, len(codes)-2):], ResyncWindow)
}

// Surplus takes a code that the key has typed after the token was resynced: the counter moves behind it, if it is one of the next
// 16. That is recorded once for all of them, and each has its entry in the outbox, which sends only the last. Other codes are no
// failure: moved is false.
func (a *Attempt) Surplus(code string) (moved bool, c vault.Change, err error) {
	n, found := a.search([]string{code}, surplusWindow)
	if !found {
		return false, c, nil
	}
	action := actSurplus
	if a.touched {
		action = ""
	}
	if c, err = a.advance(action, n, 1); err != nil {
		return false, c, err
	}
	a.touched = true
	return true, c, nil
}

func (a *Attempt) search(codes []string, window int) (uint64, bool) {
	return searchAhead(a.seed, a.token.Digits, a.base, window, codes)
}

// searchAhead is hotpscan.Search for codes behind which there is another counter: the last one of all is never used.
func searchAhead(seed secret.Secret, digits int, base uint64, window int, codes []string) (uint64, bool) {
	n, found := hotpscan.Search(seed, digits, base, window, codes)
	return n, found && n <= math.MaxUint64-uint64(len(codes))
}

// take looks for typed codes. One goroutine at a time does: nobody tries many codes at once, before the first failure counts.
func (a *Attempt) take(action string, codes []string, window int) (c vault.Change, err error) {
	a.outbox.placing.Lock()
	defer a.outbox.placing.Unlock()
	if err := a.vault.View(func(tx *vault.Tx) error { return a.outbox.mayTry(tx, a.token.ID) }); err != nil {
		return c, err
	}
	n, found := a.search(codes, window)
	if !found {
		return c, a.missed(action, codes, window)
	}
	return a.advance(action, n, len(codes))
}

// advance moves the counter behind so many codes from n on, unless one of them was used meanwhile.
func (a *Attempt) advance(action string, n uint64, codes int) (c vault.Change, err error) {
	err = a.vault.Update(func(tx *vault.Tx) error {
		t, err := tx.Token(a.token.ID)
		if err != nil {
			return err
		}
		if t.Generation != a.token.Generation || t.Counter > n {
			return &MissError{Token: t.ID, Miss: Miss{Kind: MissChanged}}
		}
		if err := errors.Join(move(tx, &t, n+uint64(codes)), forgive(tx, t.ID)); err != nil {
			return err
		}
		if c, err = tx.Enqueue(advanceOf(&t)); err != nil {
			return err
		}
		a.token, a.base = t, t.Counter
		if action == "" {
			return nil
		}
		return tx.Audit(vault.Done(a.by, action, t.ID, t.Owner))
	})
	return c, err
}

// forgive forgets a token's failures.
func forgive(tx *vault.Tx, id device.TokenID) error {
	return TokenPace.Succeed(tx, vault.TokenAttempts(id))
}

// move sets a token's counter to the one after codes that were seen of it.
func move(tx *vault.Tx, t *vault.Token, to uint64) error {
	t.Counter, t.LastUsed, t.Stale = to, time.Now().UTC(), false
	return tx.PutToken(*t)
}

// advanceOf leaves word of that for the central service.
func advanceOf(t *vault.Token) vault.Change {
	return vault.Change{Kind: vault.Advance, Token: t.ID, User: t.Owner, Generation: t.Generation, Counter: t.Counter, Digits: t.Digits}
}

// missed explains why codes were not found, and records it.
func (a *Attempt) missed(action string, codes []string, window int) error {
	e := &MissError{Token: a.token.ID, Miss: ExplainMiss(a.seed, a.token.Digits, a.base, window, codes)}
	e.Miss.Generation = a.token.Generation
	var ended error // by whoever does not wait for the answer: the miss counts all the same
	if e.Miss.Kind == MissNothing && len(codes) > 1 {
		ended = e.findOther(a.ctx, a.outbox, codes)
	}
	err := a.vault.Update(func(tx *vault.Tx) error { return e.record(tx, a.by, action, a.token, a.outbox.now()) })
	if err := cmp.Or(ended, err); err != nil {
		return err
	}
	return e
}

// record writes a miss down, and counts it if somebody may have guessed. Whoever reads a token's trail need not be one who may know
// of another tenant's.
func (e *MissError) record(tx *vault.Tx, by audit.Officer, action string, t vault.Token, now time.Time) error {
	shown := *e
	if e.Miss.Kind == MissOther && e.Miss.Tenant != t.Tenant {
		shown.Miss = shown.Miss.Hidden()
	}
	e.Recorded = true
	act := audit.Act{Officer: by, Action: action, Object: string(t.ID), Outcome: outcomeMissed, Reason: string(e.Miss.Kind) + ": " + shown.Error()}
	if !e.Miss.Guessed() {
		return tx.Audit(act)
	}
	return errors.Join(TokenPace.Fail(tx, vault.TokenAttempts(t.ID), now), tx.Audit(act))
}

// otherChance is how likely another token may give the codes by chance where it is named: that is advice, and grants nothing.
const otherChance = 1e-4

// findOther looks for the one other token whose codes they are.
func (e *MissError) findOther(ctx context.Context, o *Outbox, codes []string) error {
	found, err := Identify(ctx, o.v, codes, otherWindow, nil)
	if err != nil || len(found.Matches) != 1 || found.Chance > otherChance || found.Matches[0].Token == e.Token {
		return err
	}
	m := found.Matches[0]
	e.Miss.Kind, e.Miss.Other, e.Miss.Tenant, e.Miss.Owner = MissOther, m.Token, m.Tenant, m.Owner
	if o.Sees != nil && !o.Sees(ctx, m.Tenant) {
		e.Miss = e.Miss.Hidden()
	}
	return nil
}
