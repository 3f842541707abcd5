package provision

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// A replacement is work on the token that comes. What becomes of the one before is part of its first step: whatever happens to
// the rest, the leaver is cut off, or the lost token compromised.

func replacePlan() []step {
	return []step{
		{name: "cut-off", done: "recorded what becomes of the old token, and the cut-off of its owner", commit: retire},
		{name: stepConfirm, done: "cut-off confirmed by the central service", act: confirm},
		{name: stepSeal, done: "fresh seed sealed in the vault", act: clearCard, commit: sealReplacement},
		{name: "program", done: "%s programmed; the key confirmed the write", device: true, act: program, commit: written},
		{name: "verify", done: "verified: two codes of this key belong to the sealed seed", device: true, repeat: true, act: verify, commit: activate},
		{name: "assign", done: "recorded in place of the old token, and left for the central service", commit: assign, gives: true},
	}
}

// replace gives a token's access on another device to its owner, or to a successor.
func (r *Runner) replace(ctx context.Context, by audit.Officer, o Reissue, tell Tell) ([]vault.Change, error) {
	old, err := r.replaceable(o)
	if err != nil {
		return nil, err
	}
	p, err := r.replacement(o, old)
	if err != nil {
		return nil, err
	}
	var there census
	if o.ends(old) && o.Old.Loss == "" {
		if there, err = r.mayCut(ctx, o.ending(), old.Owner); err != nil {
			return nil, err
		}
	}
	user, served, err := r.receiver(ctx, o, old)
	if err != nil {
		return nil, err
	}
	defer served()
	theirs, err := r.freeCard(o, old, user)
	if err != nil {
		return nil, err
	}
	state, emulated, err := r.inspect(ctx, o.With)
	if err == nil && p.Fresh && !o.Overwrite && !theirs {
		err = r.emptyCardOf(ctx, o.With)
	}
	if err != nil {
		if old.Owner != "" {
			err = fmt.Errorf("%w; to cut %s off now without it: tokendesk unassign %s, or tokendesk compromise %s", err, old.Owner, old.ID, old.ID)
		}
		return nil, err
	}
	switch {
	case p.Fresh && state.Configured && !o.Overwrite:
		return nil, refuse("look what it is used for first; to replace it, repeat with --overwrite",
			"%s of %s already holds something", o.With.Place(), o.With.Device())
	case p.Identifier && state.Serial > maxIdentifierSerial:
		return nil, refuse("replace it without", "serial %s does not fit into the 8 digits of a token identifier", state.Serial)
	}
	p.Serial, p.Firmware, p.Emulated, p.Occupied = state.Serial, state.Firmware, p.Emulated || emulated, p.Fresh && state.Configured
	p.User, p.Leaver, p.Reason, p.Anyway = user, old.Owner, o.Reason, o.ContinueOffline
	p.Old, p.OldSerial, p.OldEnd = old.ID, old.Serial, o.Old
	w := r.job(planReplace, by, o.With, p, tell)
	w.there = there
	changes, err := w.run(ctx)
	return changes, errors.Join(err, w.tellSameKey(o))
}

// tellSameKey says what else is lost with the old token.
func (w *work) tellSameKey(o Reissue) error {
	var lines []string
	err := w.Vault.View(func(tx *vault.Tx) (err error) { lines, err = SameKey(tx, o.ending()); return err })
	for _, line := range lines {
		w.tell(Progress{Kind: Note, Text: line})
	}
	return err
}

// replaceable returns the token that is replaced, or refuses what is to become of it.
func (r *Runner) replaceable(o Reissue) (old vault.Token, err error) {
	err = r.Vault.View(func(tx *vault.Tx) error {
		if old, err = tx.Token(o.Token); err != nil {
			return err
		}
		if err := o.stillTheirs(old); err != nil {
			return err
		}
		if !TypeOf(old.ID).Told() {
			return refuse(fmt.Sprintf("enroll the new one, and unassign that: tokendesk unassign %s", old.ID), "%s is no token that another can take the place of", old.ID)
		}
		switch ended := !o.ends(old); {
		case ended && old.Status == vault.Compromised && o.Old.Loss != "":
			return refuse("leave out what becomes of it", "%s is compromised (%s) already", old.ID, old.Loss.Kind)
		case ended && o.User == "" && old.Loss.Owner == "":
			return refuse("name the new owner: --to USER", "%s belongs to nobody", old.ID)
		case ended:
			return idle(tx, old.ID)
		}
		order, err := o.ending().normal(time.Now())
		if err == nil {
			_, err = r.survey(tx, order)
		}
		return err
	})
	return old, err
}

// ends tells whether the replacement does something to the old token: one of the stock may stay there, and a compromised one is
// at its end.
func (o Reissue) ends(old vault.Token) bool {
	return old.Status != vault.Compromised && (old.Owner != "" || o.Old.Loss != "")
}

// ending is what becomes of the old token, as an order.
func (o Reissue) ending() Order {
	order := Order{Action: ActUnassign, Tokens: []device.TokenID{o.Token}, Reason: cmp.Or(o.Reason, "replaced by "+string(o.With))}
	if o.Old.Loss != "" {
		order.Action, order.Loss, order.Reason = ActCompromise, o.Old.Loss, cmp.Or(o.Old.Words, o.Reason)
	}
	return order
}

// replacement is what programming the other token starts from, or refuses it.
func (r *Runner) replacement(o Reissue, old vault.Token) (p params, err error) {
	if !reseedable(o.With) {
		return p, refuse("choose another device", "%s cannot be programmed", o.With)
	}
	t, err := r.fitFor(o.With, ActReissue)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return r.freshReplacement(o, old)
	case err != nil:
		return p, err
	case t.Owner != "":
		return p, refuse("choose one of the stock, or a new device", "%s belongs to %s", t.ID, t.Owner)
	case t.Tenant != old.Tenant:
		return p, refuse("choose one of the same tenant, or a new device", "%s and %s are of different tenants", t.ID, old.ID)
	}
	return afresh(t, false), nil
}

// freshReplacement is that of a token that is not in the inventory. Where nothing else is said, its codes look like those of the
// old one.
func (r *Runner) freshReplacement(o Reissue, old vault.Token) (p params, err error) {
	row, _ := device.ApplicationOf(o.With)
	if o.Identifier && !row.Identifier {
		return p, refuse("replace it without", "%s types no token identifier", row.Label)
	}
	o.Digits, o.Identifier = cmp.Or(o.Digits, old.Digits, 6), o.Identifier || old.Identifier && row.Identifier
	if o.Digits != 6 && o.Digits != 8 {
		return p, refuse("", "a code has 6 digits or 8, not %d", o.Digits)
	}
	p = params{Digits: o.Digits, Identifier: o.Identifier, Enter: o.Enter, Tenant: old.Tenant, Generation: 1, Fresh: true}
	err = r.Vault.View(func(tx *vault.Tx) error {
		before, _, err := tx.Tombstone(o.With)
		p.Generation += before.Generation // the central service tells seeds of one name apart by it
		return err
	})
	return p, err
}

// freeCard refuses a device whose smart card is on record, and not the receiver's: the replacement would give them somebody else's
// keys, or erase those. The receiver's own stays as it is.
func (r *Runner) freeCard(o Reissue, old vault.Token, user string) (theirs bool, err error) {
	err = r.Vault.View(func(tx *vault.Tx) error {
		card, err := onCard(tx, o.With)
		next := fmt.Sprintf("wipe it first: tokendesk wipe %s; or choose another device", device.PIVToken(o.With.Device()))
		switch {
		case err != nil || card.ID == "":
			return err
		case card.Owner != "" && strings.EqualFold(card.Owner, user):
			theirs = true
			return nil
		case card.Tenant != old.Tenant:
			return refuse(next, "the smart card of %s is in use by another tenant", o.With.Device())
		case card.Owner != "":
			return refuse(next, "the smart card of %s belongs to %s, and not to %s", o.With.Device(), card.Owner, user)
		default:
			return refuse(next, "the smart card of %s has keys already, which somebody may have used", o.With.Device())
		}
	})
	return theirs, err
}

// emptyCardOf refuses a device that is new to the desk and on whose smart card is something, which would be erased.
func (r *Runner) emptyCardOf(ctx context.Context, id device.TokenID) error {
	if r.OpenPIV == nil || !id.Device().MayHavePIV() {
		return nil
	}
	err := r.OpenPIV(ctx, id.Device(), func(card device.PIV, _ bool) error {
		state, err := expected(ctx, card, device.PIVToken(id.Device()))
		if err != nil {
			return err
		}
		fresh, err := untouched(ctx, card, state)
		if err == nil && !fresh {
			err = refuse("look what it is used for first; to erase that, repeat with --overwrite", "the smart card of %s is in use: it has %s", id.Device(), holds(state))
		}
		return err
	})
	if errors.Is(err, ErrNoCard) {
		return nil
	}
	return err
}

// receiver is who gets the replacement. The owner of the old token is not asked about: where the central service takes one
// token per user, that one makes room.
func (r *Runner) receiver(ctx context.Context, o Reissue, old vault.Token) (name string, release func(), err error) {
	user := cmp.Or(o.User, old.Owner, old.Loss.Owner)
	if !strings.EqualFold(user, old.Owner) {
		return r.checkUser(ctx, user)
	}
	release, err = r.claim("for "+strings.ToLower(user), "for "+user)
	return old.Owner, release, err
}

// retire ends the old token as was asked for, and begins the record of one that is new.
func retire(tx *vault.Tx, w *work, now time.Time) error {
	o := Reissue{Token: w.params.Old, With: w.job.Token, Old: w.params.OldEnd, Reason: w.params.Reason}
	old, err := tx.Token(o.Token)
	if err != nil {
		return err
	}
	if w.params.Leaver = cmp.Or(old.Owner, old.Loss.Owner); o.ends(old) {
		err = w.end(tx, o)
	} else {
		err = w.earlierCutOff(tx, old.ID)
	}
	if old.ID.Device() != w.job.Token.Device() {
		err = errors.Join(err, w.dueOf(tx, old.ID.Device(), "replaced by "+string(w.job.Token.Device())))
	}
	if err != nil || !w.params.Fresh {
		return err
	}
	p := w.params
	return tx.PutToken(vault.Token{
		ID: w.job.Token, Serial: p.Serial, Firmware: p.Firmware, Status: vault.Pending, Digits: p.Digits,
		Identifier: p.Identifier, Enter: p.Enter, Tenant: old.Tenant, Emulated: p.Emulated, Created: now,
	})
}

// end carries out the order against the old token. Its device is not the one at hand, so whoever has that has its seed.
func (w *work) end(tx *vault.Tx, o Reissue) error {
	order, err := o.ending().normal(time.Now())
	if err != nil {
		return err
	}
	d, err := w.intend(tx, order, w.there)
	if err == nil && len(d.Why) > 0 {
		err = needsAnother(d)
	}
	if err != nil {
		return err
	}
	tokens, changes, err := w.carryOut(tx, d, w.by, "")
	if err != nil {
		return err
	}
	w.left = append(w.left, changes...)
	for _, c := range changes {
		if c.Kind == vault.Unassign {
			w.params.CutOff = c.Seq
		}
	}
	t := tokens[0]
	t.ReseedDue = t.Status != vault.Compromised && reseedable(t.ID)
	return errors.Join(tx.PutToken(t), w.notifyAll(tx, d))
}

// sealReplacement seals the first seed of a new token, or the next one of a token of the stock.
func sealReplacement(tx *vault.Tx, w *work, now time.Time) error {
	if w.params.Fresh {
		return sealFirst(tx, w, now)
	}
	return sealNext(tx, w, now)
}

// replacedBy links a replaced token, if there was one, and if it is still there, to what came in its place.
func replacedBy(tx *vault.Tx, old, id device.TokenID) error {
	if old == "" {
		return nil
	}
	t, err := tx.Token(old)
	if errors.Is(err, vault.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if t.Owner != "" { // it was given away since
		return nil
	}
	t.ReplacedBy = id
	return tx.PutToken(t)
}
