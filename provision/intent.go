package provision

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// drawn is an intent with what it was made of.
type drawn struct {
	Intent
	tokens []vault.Token // as they are before
	rules  []Rule
}

// draw says what an order will do. It asks the central service where the answer depends on it.
func (r *Runner) draw(ctx context.Context, o *Order) (d drawn, err error) {
	there, served, err := r.ask(ctx, o)
	if err != nil {
		return d, err
	}
	defer served()
	err = r.Vault.View(func(tx *vault.Tx) (err error) { d, err = r.intend(tx, *o, there); return err })
	return d, err
}

// ask has the central service say what an order depends on: how the user's name is spelled, and who has tokens that this desk
// does not know. Until release is called, nobody else gives that user a token.
func (r *Runner) ask(ctx context.Context, o *Order) (there census, release func(), err error) {
	var users []string
	err = r.Vault.View(func(tx *vault.Tx) error {
		d, err := r.survey(tx, *o)
		if err == nil {
			users, err = bereft(tx, d.Effects)
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	release = func() {}
	if o.User != "" {
		if !TypeOf(o.Tokens[0]).Told() {
			o.User, err = r.findUser(ctx, o.User)
		} else {
			o.User, release, err = r.checkUser(ctx, o.User)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	if o.Action != ActExpire { // which nothing can hold up
		there = r.census(ctx, users)
	}
	return there, release, nil
}

// survey says what an order does with each token, or refuses it.
func (r *Runner) survey(tx *vault.Tx, o Order) (d drawn, err error) {
	d.Order = o
	for _, id := range o.Tokens {
		t, err := tx.Token(id)
		if err != nil {
			return d, err
		}
		if o.Action != ActCompromise && o.Action != ActDelete { // which end whatever is going on
			if err := idle(tx, id); err != nil {
				return d, err
			}
		}
		switch {
		case o.User == "" || t.Owner == "":
		case strings.EqualFold(o.User, t.Owner):
			return d, refuse("", "%s belongs to %s already", t.ID, t.Owner)
		default:
			return d, refuse(fmt.Sprintf("to take it from them with a fresh seed: tokendesk reissue %s --to %s", t.ID, o.User), "%s belongs to %s", t.ID, t.Owner)
		}
		rule, err := check(t, o.Action)
		if err != nil {
			return d, err
		}
		if err := o.Advance.current(t); err != nil {
			return d, err
		}
		if o.Action == ActEnable && !t.Expires.IsZero() && !t.Expires.After(time.Now()) {
			return d, refuse(fmt.Sprintf("give it more time first: tokendesk edit %s --expires DATE", t.ID), "the time of %s ended on %s", t.ID, t.Expires.Local().Format("2006-01-02"))
		}
		if o.Address != nil {
			if err := checkAddress(TypeOf(id).Code, *o.Address); err != nil {
				return d, err
			}
		}
		if o.Expires != nil && !offers(id, ActExpire) {
			return d, refuse("its certificates have ends of their own", "%s does not expire", t.ID)
		}
		if t.Status == vault.Compromised && o.Expires != nil {
			return d, refuse("its description can be changed", "%s is compromised (%s); it never comes back", t.ID, t.Loss.Kind)
		}
		if o.Action == ActExpire && (t.Expires.IsZero() || t.Expires.After(time.Now())) {
			return d, refuse("", "%s was given more time", t.ID)
		}
		if rule.Action == ActEdit && rule.To != "" && o.Expires == nil {
			rule.To, rule.Pushes = "", nil // no more time
		}
		d.tokens, d.rules = append(d.tokens, t), append(d.rules, rule)
		e := effectOf(t, rule, o.User)
		e.Counter = o.Advance
		if ends(t, o, time.Now()) {
			e.Until = o.Expires
		}
		if o.Action == ActAssign && (t.ReseedDue || id.PIV()) {
			if e.Warning, err = dueWarning(tx, t); err != nil {
				return d, err
			}
		}
		if o.gone() {
			if e.Warning, err = o.sameKey(tx, t); err != nil {
				return d, err
			}
		}
		d.Effects = append(d.Effects, e)
	}
	return d, nil
}

// soon is how near an end has to be for an edit to count as taking the token from its owner.
const soon = 24 * time.Hour

// ends tells whether an edit makes the time of an active token end so early that it might as well be disabled.
func ends(t vault.Token, o Order, now time.Time) bool {
	return t.Status == vault.Active && o.Expires != nil && !o.Expires.IsZero() && o.Expires.Before(now.Add(soon)) &&
		(t.Expires.IsZero() || o.Expires.Before(t.Expires))
}

// effectOf is what a rule does with a token.
func effectOf(t vault.Token, rule Rule, user string) Effect {
	e := Effect{Token: t.ID, From: t.Status, To: t.Status, Owner: t.Owner, NewOwner: t.Owner}
	switch {
	case rule.Gone:
		e.To = ""
	case rule.To != "":
		e.To = rule.To
	}
	if rule.Frees {
		e.NewOwner = ""
	}
	if user != "" {
		e.NewOwner = user
	}
	for _, kind := range rule.Pushes {
		if (kind != vault.Unassign || t.Owner != "") && TypeOf(t.ID).Told() {
			e.Pushes = append(e.Pushes, kind)
		}
	}
	return e
}

// intend says what an order will do, given who has tokens elsewhere, or refuses it.
func (r *Runner) intend(tx *vault.Tx, o Order, there census) (drawn, error) {
	d, err := r.survey(tx, o)
	if err != nil {
		return d, err
	}
	if err := r.mourn(tx, &d, there); err != nil {
		return d, err
	}
	if n := r.Policy.CompromiseOver; o.Action == ActCompromise && n > 0 && len(o.Tokens) > n {
		d.Why = append(d.Why, fmt.Sprintf("%d tokens are to be compromised at a time, and one officer may do %d", len(o.Tokens), n))
	}
	if o.Advance != nil {
		d.Why = append(d.Why, "one officer may move a counter only within the window")
	}
	if len(d.Why) > 0 && o.reason() == "" {
		return d, refuse("say why: --reason WORDS", "this takes a second officer: %s", strings.Join(d.Why, "; "))
	}
	d.Digest, err = d.digest()
	return d, err
}

// digest is the hash of everything that an approver agrees to.
func (d drawn) digest() (string, error) {
	type state struct {
		Updated    time.Time    `json:"updated"`
		Generation int          `json:"generation"`
		Owner      string       `json:"owner"`
		Status     vault.Status `json:"status"`
	}
	var states []state
	for _, t := range d.tokens {
		states = append(states, state{t.Updated, t.Generation, t.Owner, t.Status})
	}
	b, err := json.Marshal(struct {
		Order   Order    `json:"order"`
		Effects []Effect `json:"effects"`
		States  []state  `json:"states"`
	}{d.Order, d.Effects, states})
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), err
}

// explained is an act and why it was done. An officer's words come last, so that nothing can be made up in them.
func explained(act audit.Act, approved, words string) audit.Act {
	parts := []string{act.Reason, approved}
	if words != "" {
		parts = append(parts, "reason: "+words)
	}
	act.Reason = strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), "; ")
	return act
}

// carryOut does what was intended, in the transaction in which it was. Approved names the officer who has agreed, if one had to.
func (r *Runner) carryOut(tx *vault.Tx, d drawn, by audit.Officer, approved string) (tokens []vault.Token, changes []vault.Change, err error) {
	words := d.Order.reason()
	for i, t := range d.tokens {
		e := d.Effects[i]
		if err := abandon(tx, t); err != nil {
			return nil, nil, err
		}
		if err := orderedAway(tx, d.Order, t, by); err != nil {
			return nil, nil, err
		}
		if d.rules[i].Gone {
			err = tx.Bury(vault.Tombstone{ID: t.ID, Owner: t.Owner, Status: t.Status, Officer: by.Name, Reason: words})
			err = errors.Join(err, forgetPassword(tx, t.ID))
		} else {
			moved := t.Tenant
			r.alter(d, &t, e)
			err = errors.Join(tx.PutToken(t), d.Order.follow(tx, t, moved))
		}
		if err != nil {
			return nil, nil, err
		}
		for _, kind := range e.Pushes {
			c, err := enqueue(tx, t, kind, concerned(kind, e))
			if err != nil {
				return nil, nil, err
			}
			changes = append(changes, c)
		}
		user := e.Owner
		if user == "" {
			user = e.NewOwner
		}
		if err := tx.Audit(explained(vault.Done(by, string(d.Order.Action), t.ID, user), approved, words)); err != nil {
			return nil, nil, err
		}
		if d.Order.Action == ActAssign {
			h := vault.Handover{Kind: vault.Assigned, To: t.Owner, Reason: words}
			if err := hand(tx, h, t, by); err != nil {
				return nil, nil, err
			}
		}
		if d.Order.Advance != nil { // whose codes have proven that it is at hand
			if err := tx.PutAttempts(vault.TokenAttempts(t.ID), vault.Attempts{}); err != nil {
				return nil, nil, err
			}
		}
		tokens = append(tokens, t)
	}
	return tokens, changes, nil
}

// concerned is whom a change is about: cut-offs are about who had the token.
func concerned(kind vault.ChangeKind, e Effect) string {
	if kind.CutOff() {
		return e.Owner
	}
	return e.NewOwner
}

// alter makes a token what the order says.
func (r *Runner) alter(d drawn, t *vault.Token, e Effect) {
	t.Status, t.Owner = e.To, e.NewOwner
	d.Order.Advance.move(t, time.Now())
	switch d.Order.Action {
	case ActUnassign:
		t.ReseedDue = t.ReseedDue || reseedable(t.ID) && !r.atHand(t.ID)
	case ActAssign:
		t.Replaces, t.ReplacedBy = "", "" // which was of the time before
	}
	if d.Order.Description != nil {
		t.Description = *d.Order.Description
	}
	if d.Order.Address != nil {
		t.Address = *d.Order.Address
	}
	if d.Order.Tenant != nil {
		t.Tenant = *d.Order.Tenant
	}
	if d.Order.Expires != nil {
		t.Expires = *d.Order.Expires
	}
	if d.Order.Action == ActCompromise {
		t.Loss = vault.Loss{Kind: d.Order.Loss, Words: d.Order.Reason, Time: time.Now(), Owner: e.Owner}
	}
}

// abandon drops a token's unfinished work from the journal. What it has sealed stays: the device may hold it.
func abandon(tx *vault.Tx, t vault.Token) error {
	job, found, err := tx.JobFor(t.ID)
	if err == nil && found {
		err = tx.DeleteJob(job.ID)
	}
	return err
}

// ExpireDue expires the tokens whose time is over, in the desk's name, and says how many. Those that somebody works on, or
// whose work is unfinished, are left for later.
func (r *Runner) ExpireDue(ctx context.Context) (n int, err error) {
	o := Order{Action: ActExpire, Reason: "its time is over"}
	err = r.Vault.View(func(tx *vault.Tx) (err error) { o.Tokens, err = tx.Expiring(time.Now(), 0); return err })
	for part := range slices.Chunk(o.Tokens, maxTokens) {
		if err != nil {
			break
		}
		var now int
		now, err = r.expire(ctx, Order{Action: o.Action, Reason: o.Reason, Tokens: part})
		n += now
	}
	return n, err
}

// expire does it for all tokens of an order at once, or, if one is held, for each other one.
func (r *Runner) expire(ctx context.Context, o Order) (n int, err error) {
	_, _, err = r.Do(ctx, Desk, o)
	switch refused := isRefused(err); {
	case err == nil:
		return len(o.Tokens), nil
	case !refused:
		return 0, err
	case len(o.Tokens) == 1:
		r.Log.Info("a token whose time is over is left for later", "token", o.Tokens[0], "why", err)
		return 0, nil
	}
	for _, id := range o.Tokens {
		o.Tokens = []device.TokenID{id}
		now, err := r.expire(ctx, o)
		if n += now; err != nil {
			return n, err
		}
	}
	return n, nil
}
