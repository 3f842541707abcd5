package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// Bounds of an order: how many tokens, and how long the officer's words are, in bytes.
const (
	maxTokens = 1000
	maxReason = 200
)

// Order is an action on one or several tokens: all or none. It is stored as JSON while it waits for an approval.
type Order struct {
	Action      Action           `json:"action"`
	Tokens      []device.TokenID `json:"tokens"`                // up to 1000; an assign takes one
	User        string           `json:"user,omitempty"`        // assign: to whom
	Loss        vault.LossKind   `json:"loss,omitempty"`        // compromise: why
	Reason      string           `json:"reason,omitempty"`      // an officer's words, up to 200 bytes
	Description *string          `json:"description,omitempty"` // edit; nil: stays
	Address     *string          `json:"address,omitempty"`     // edit, of a token whose codes are sent; nil: stays
	Tenant      *string          `json:"tenant,omitempty"`      // edit; nil: stays, empty: the desk's own
	Expires     *time.Time       `json:"expires,omitempty"`     // edit; nil: stays, zero: never
	Advance     *Advance         `json:"advance,omitempty"`     // resync, which takes no order unless it is beyond the window
}

// orders are the actions that are one transaction. All others take several steps, or find out something.
var orders = []Action{ActResync, ActEdit, ActAssign, ActUnassign, ActDisable, ActEnable, ActExpire, ActCompromise, ActDelete}

// normal returns the order in the form that digests are made of: each token once, in order. It refuses what cannot be meant.
func (o Order) normal(now time.Time) (Order, error) {
	o.Tokens = slices.Clone(o.Tokens)
	o.Reason = strings.TrimSpace(o.Reason)
	slices.Sort(o.Tokens)
	o.Tokens = slices.Compact(o.Tokens)
	switch {
	case !slices.Contains(orders, o.Action):
		return o, refuse("", "%q is not something that is done to tokens at one stroke", o.Action)
	case len(o.Tokens) == 0:
		return o, refuse("name one", "no token is named")
	case len(o.Tokens) > maxTokens:
		return o, refuse("do it in parts", "%d tokens are too many at a time; %d are possible", len(o.Tokens), maxTokens)
	}
	for _, id := range o.Tokens {
		if _, err := device.ParseTokenID(string(id)); err != nil {
			return o, refuse("", "%v", err)
		}
	}
	if err := legible("reason", o.Reason, maxReason); err != nil {
		return o, err
	}
	if err := o.details(); err != nil {
		return o, err
	}
	if o.Expires != nil {
		at := o.Expires.UTC().Round(0)
		o.Expires = &at
		if !at.IsZero() && !at.After(now) {
			return o, refuse("to end it now: tokendesk disable", "%s lies in the past", at.Format(time.RFC3339))
		}
		if !at.Before(vault.LastMoment) {
			return o, refuse("to let it never expire: --expires never", "%s is too far away", at.Format(time.RFC3339))
		}
	}
	return o, nil
}

// details refuses what an action lacks, or does not take.
func (o Order) details() error {
	switch edits := o.Description != nil || o.Expires != nil || o.Address != nil || o.Tenant != nil; {
	case o.Action != ActEdit && edits:
		return refuse("use edit", "a description, an address, a tenant and an end are what edit changes, not %s", o.Action)
	case o.Action == ActEdit && !edits:
		return refuse("give a description, an address, a tenant or an end", "there is nothing to change")
	case o.Action != ActAssign && o.User != "":
		return refuse("leave the user out", "%s takes no user", o.Action)
	case o.Action == ActAssign && o.User == "":
		return refuse("name the user", "a token is assigned to somebody")
	case o.Action == ActAssign && len(o.Tokens) > 1:
		return refuse("assign one at a time", "a user gets one token at a time")
	case o.Action != ActCompromise && o.Loss != "":
		return refuse("leave it out", "%s takes no kind of loss", o.Action)
	case o.Action == ActCompromise && !slices.Contains(losses, o.Loss):
		return refuse("say which: lost, stolen, damaged, destroyed or other", "a token is compromised for a reason, and %q is none", o.Loss)
	case o.Action == ActCompromise && o.Loss == vault.Other && o.Reason == "":
		return refuse("say in words what has happened", "a reason of kind %s takes words", vault.Other)
	}
	if err := o.Advance.details(o); err != nil {
		return err
	}
	if o.Description != nil {
		return legible("description", *o.Description, vault.MaxDescription)
	}
	return nil
}

var losses = []vault.LossKind{vault.Lost, vault.Stolen, vault.Damaged, vault.Destroyed, vault.Other}

// reason is what the officer gives as one; the kind of a loss says enough, unless it is other.
func (o Order) reason() string {
	switch {
	case o.Loss == "" || o.Loss == vault.Other:
		return o.Reason
	case o.Reason == "":
		return string(o.Loss)
	}
	return string(o.Loss) + ": " + o.Reason
}

// sensible returns an officer's words without blanks around them.
func sensible(reason string) (string, error) {
	return strings.TrimSpace(reason), legible("reason", reason, maxReason)
}

func legible(what, text string, limit int) error {
	switch {
	case len(text) > limit:
		return refuse("shorten it", "the %s has %d bytes, and may have %d", what, len(text), limit)
	case !utf8.ValidString(text), strings.ContainsFunc(text, unicode.IsControl):
		return refuse("take them out", "the %s contains control characters or is not UTF-8", what)
	}
	return nil
}

// Effect is what an order does with one token.
type Effect struct {
	Token    device.TokenID     `json:"token"`
	From     vault.Status       `json:"from"`
	To       vault.Status       `json:"to,omitempty"` // empty: the token is gone
	Owner    string             `json:"owner,omitempty"`
	NewOwner string             `json:"new_owner,omitempty"`
	Until    *time.Time         `json:"until,omitempty"` // edit: its time ends that soon
	Pushes   []vault.ChangeKind `json:"pushes,omitempty"`
	Counter  *Advance           `json:"counter,omitempty"` // resync: where it goes
	LastOf   string             `json:"last_of,omitempty"` // the user who has no active token afterwards, as far as is known
	Warning  string             `json:"warning,omitempty"` // what speaks against it, and what to do instead
}

// String is the effect in words.
func (e Effect) String() string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch {
	case e.To == "":
		add("%s, is deleted", e.From)
	case e.To != e.From:
		add("%s, becomes %s", e.From, e.To)
	default:
		add("stays %s", e.From)
	}
	switch {
	case e.Owner == "" && e.NewOwner != "":
		add("is given to %s", e.NewOwner)
	case e.Owner != "" && e.NewOwner == "":
		add("is taken from %s", e.Owner)
	case e.Until != nil:
		add("its time ends at %s", e.Until.Format(time.RFC3339))
	case e.Owner != "" && e.loses():
		add("%s can no longer log in with it", e.Owner)
	}
	if e.Counter != nil {
		add("its counter goes from %d to %d", e.Counter.From, e.Counter.To)
	}
	if e.LastOf != "" {
		add("and it is the last active token of %s", e.LastOf)
	}
	return string(e.Token) + " " + strings.Join(parts, ", ")
}

// loses tells whether the owner can log in with the token before, and not after. That of one in limbo, which is being reseeded,
// goes on with the old seed. What codes that others send can do is not known.
func (e Effect) loses() bool {
	return TypeOf(e.Token).Told() && e.Owner != "" && (e.From == vault.Active || e.From == vault.Limbo) && (e.To != e.From || e.NewOwner != e.Owner || e.Until != nil)
}

// Intent is what exactly an order will do as things are.
type Intent struct {
	Order   Order    `json:"order"`
	Effects []Effect `json:"effects"`
	Why     []string `json:"why,omitempty"` // why it takes a second officer; empty: it takes none
	Digest  string   `json:"digest"`        // SHA-256 of the order, its effects and what they start from, in hexadecimal
}

// Policy says what takes a second officer.
type Policy struct {
	LastToken      bool // what leaves a user without an active token; but no compromise, which must not wait
	CompromiseOver int  // the compromise of more tokens than this at a time; 0: never
}

// Prepare says what an order will do, or refuses it. Nothing is held for it: Do may find that things have changed.
func (r *Runner) Prepare(ctx context.Context, o Order) (Intent, error) {
	o, err := o.normal(time.Now())
	if err != nil {
		return Intent{}, err
	}
	d, err := r.draw(ctx, &o)
	return d.Intent, err
}

// Do carries out an order, in one transaction for all its tokens, and returns them as they are then (those that were
// deleted, as they were) with what was left for the central service. One that takes a second officer is kept instead, which
// is an *ApprovalError.
func (r *Runner) Do(ctx context.Context, by audit.Officer, o Order) (tokens []vault.Token, changes []vault.Change, err error) {
	if o.Action == ActExpire && by != Desk {
		return nil, nil, refuse("to have it expire, give it an end: tokendesk edit TOKEN --expires DATE; to refuse its codes now: tokendesk disable TOKEN",
			"a token expires by itself")
	}
	if o, err = o.normal(time.Now()); err != nil {
		return nil, nil, err
	}
	release, err := r.claimAll(o.Tokens)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	there, served, err := r.ask(ctx, &o)
	if err != nil {
		return nil, nil, err
	}
	defer served()
	var waiting *ApprovalError
	err = r.Vault.Update(func(tx *vault.Tx) error {
		tokens, changes, waiting = nil, nil, nil
		d, err := r.intend(tx, o, there)
		if err != nil {
			return err
		}
		if len(d.Why) > 0 {
			waiting, err = await(tx, by, d.Intent)
			return err
		}
		tokens, changes, err = r.carryOut(tx, d, by, "")
		return errors.Join(err, r.notifyAll(tx, d))
	})
	if err == nil || errors.Is(err, vault.ErrUnanchored) { // which is recorded all the same
		r.wake()
	}
	switch {
	case err != nil:
		return nil, nil, err
	case waiting != nil:
		return nil, nil, waiting
	}
	return tokens, changes, nil
}

// claimAll is Claim for several tokens, in order.
func (r *Runner) claimAll(ids []device.TokenID) (release func(), err error) {
	var held []func()
	release = func() {
		for _, give := range held {
			give()
		}
	}
	for _, id := range ids {
		one, err := r.Claim(id)
		if err != nil {
			release()
			return nil, err
		}
		held = append(held, one)
	}
	return release, nil
}

// gone tells whether an order says that somebody else may have the whole device.
func (o Order) gone() bool {
	return o.Action == ActCompromise && (o.Loss == vault.Lost || o.Loss == vault.Stolen)
}

// sameKey says which tokens of other types are lost with one of the same key, and are not in the order: with a slot its smart card
// and its OATH credentials, with those the slots.
func (o Order) sameKey(tx *vault.Tx, t vault.Token) (string, error) {
	key := t.ID.Device()
	var names, ids []string
	for other, err := range tx.AllTokens(vault.Filter{Device: key, Limit: 100}) {
		id := other.ID
		switch {
		case err != nil:
			return "", err
		case TypeOf(id).Code == TypeOf(t.ID).Code,
			other.Status == vault.Compromised || other.Tenant != t.Tenant || slices.Contains(o.Tokens, id):
			continue
		}
		name := string(id)
		if other.Owner != "" {
			name += " of " + other.Owner
		}
		names, ids = append(names, name), append(ids, string(id))
	}
	if len(ids) == 0 {
		return "", nil
	}
	var commands []string
	for _, id := range ids {
		commands = append(commands, fmt.Sprintf("tokendesk compromise %s --reason %s", id, o.Loss))
	}
	return fmt.Sprintf("the same key is also %s: %s", strings.Join(names, " and "), strings.Join(commands, "; ")), nil
}

// SameKey is what is left to be done about the keys that an order says are lost or stolen, a line each.
func SameKey(tx *vault.Tx, o Order) (lines []string, err error) {
	if !o.gone() {
		return nil, nil
	}
	for _, id := range o.Tokens {
		t, err := tx.Token(id)
		if errors.Is(err, vault.ErrNotFound) { // deleted since
			continue
		}
		if err != nil {
			return nil, err
		}
		line, err := o.sameKey(tx, t)
		if err != nil {
			return nil, err
		}
		if line != "" && !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return lines, nil
}
