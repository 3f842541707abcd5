package provision

import (
	"bytes"
	"context"
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

func pivWipePlan() []step {
	return []step{
		{name: "cut-off", done: "the token belongs to nobody, and its certificates are to be revoked", commit: letGoPIV},
		{name: stepReset, done: "card reset: it is as it left the factory", piv: true, act: emptyCard},
		{name: "remove", done: "recorded", commit: buryPIV},
	}
}

// wipePIV is Wipe of a PIV application.
func (r *Runner) wipePIV(ctx context.Context, by audit.Officer, t vault.Token, reason string, tell Tell) ([]vault.Change, error) {
	err := r.openPIV(ctx, t.ID.Device(), func(card device.PIV, _ bool) error { _, err := expected(ctx, card, t.ID); return err })
	if err != nil {
		if t.Status != vault.Compromised {
			err = fmt.Errorf("%w; without the key: tokendesk delete %s, or tokendesk compromise %s", err, t.ID, t.ID)
		}
		return nil, err
	}
	p := afresh(t, false)
	p.Generation, p.Leaver, p.Tenant, p.Reason = t.Generation, t.Owner, t.Tenant, reason
	return r.begin(ctx, planPIVWipe, by, t.ID, p, tell)
}

// letGoPIV takes the token from its owner. Its certificates go on until their issuer revokes them.
func letGoPIV(tx *vault.Tx, w *work, _ time.Time) error {
	t, err := tx.Token(w.job.Token)
	if err != nil {
		return err
	}
	leaver := t.Owner
	t.Owner = ""
	return errors.Join(tx.PutToken(t), w.due(tx, t.ID, w.job.Kind, anybodys), w.notify(tx, NoticeUnassigned, t.ID, leaver, "", w.params.Reason))
}

// emptyCard may be repeated: a card that is fresh is not reset.
func emptyCard(ctx context.Context, w *work) error {
	state, err := expected(ctx, w.piv, w.job.Token)
	if err == nil {
		_, err = w.empty(ctx, w.piv, w.job.Token, state, true)
	}
	return err
}

// buryPIV ends the token whose card was reset, or notes that it was if it is compromised.
func buryPIV(tx *vault.Tx, w *work, now time.Time) error {
	return w.buryCard(tx, w.job.Token, w.params.Leaver, now)
}

func (w *work) buryCard(tx *vault.Tx, id device.TokenID, owner string, now time.Time) error {
	t, err := tx.Token(id)
	if err != nil {
		return err
	}
	if err := forgetKeys(tx, id); err != nil {
		return err
	}
	if t.Status == vault.Compromised {
		t.Wiped = now
		return tx.PutToken(t)
	}
	err = tx.Bury(vault.Tombstone{ID: id, Owner: owner, Status: t.Status, Officer: w.by.Name, Reason: w.params.Reason})
	if w.params.Recognized { // the card has none of them any more
		err = errors.Join(err, tx.ForgetPIV(id, 0))
	}
	return err
}

// empty resets a card unless it is as it left the factory, and notes before which certificates it has. Ours says that the desk has
// given it secrets: then one that does not tell of them is reset, too.
func (w *work) empty(ctx context.Context, card device.PIV, id device.TokenID, state device.PIVState, ours bool) (reset bool, err error) {
	if ours {
		if err := w.known(ctx, card, id); err != nil {
			return false, err
		}
	}
	fresh, err := untouched(ctx, card, state)
	if err != nil || fresh && state.AllTries() && (state.DefaultsKnown || !ours) {
		return false, err
	}
	w.noteFound(id, state)
	return true, card.Reset(ctx)
}

// noteFound records the certificates of a card that is about to be reset, each for itself. What cannot be recorded is told and
// stops no reset: the card's holder may have put it there for that.
func (w *work) noteFound(id device.TokenID, state device.PIVState) {
	for _, k := range state.Keys {
		if k.Certificate == nil {
			continue
		}
		err := w.also(func(tx *vault.Tx) error { return w.putFound(tx, id, k) })
		if err != nil && !errors.Is(err, vault.ErrUnanchored) {
			w.tell(Progress{Kind: Note, Text: fmt.Sprintf("to be revoked at its issuer, which the desk cannot note: the certificate in slot %s of %s, issued by %s, serial %s: %s",
				k.Slot, id, clip(k.Certificate.Issuer.String()), clip(k.Certificate.SerialNumber.Text(16)), clip(err.Error()))})
		}
	}
}

// putFound records a certificate that was found on a card, unless it is on record, and that it is to be revoked.
func (w *work) putFound(tx *vault.Tx, id device.TokenID, k device.PIVKey) error {
	all, err := tx.CertificatesOf(id)
	if err != nil {
		return err
	}
	tenant := w.tenant(tx)
	if t, err := tx.Token(id); err == nil {
		tenant = t.Tenant
	}
	if !slices.ContainsFunc(all, func(c vault.Certificate) bool { return bytes.Equal(c.DER, k.Certificate.Raw) }) {
		c := vault.Certificate{Token: id, Tenant: tenant, Slot: k.Slot.String(), Emulated: w.params.Emulated}
		fill(&c, k.Certificate)
		if err := tx.PutCertificate(&c); err != nil {
			return err
		}
	}
	return w.due(tx, id, "found on the card, which was reset: "+w.job.Kind, anybodys)
}

// also is a transaction in the middle of a step. What it adds to the work's parameters is in the journal with it.
func (w *work) also(fn func(tx *vault.Tx) error) error {
	p := w.params
	told := len(p.Revoke)
	err := w.Vault.Update(func(tx *vault.Tx) error {
		w.params = p
		w.params.Revoke = slices.Clone(p.Revoke)
		if err := fn(tx); err != nil || w.job.ID == 0 {
			return err
		}
		raw, err := json.Marshal(w.params)
		if err != nil {
			return err
		}
		w.job.Params = raw
		return tx.PutJob(&w.job)
	})
	if err != nil && !errors.Is(err, vault.ErrUnanchored) {
		w.params = p
		return err
	}
	w.tellDue(told)
	return err
}

// tellDue tells of the certificates that the work has found to be due after the first n.
func (w *work) tellDue(n int) {
	for _, v := range w.params.Revoke[n:] {
		w.tell(Progress{Kind: Note, Text: fmt.Sprintf("to be revoked at its issuer: the certificate of %s, slot %s of %s, issued by %s, serial %s", v.Subject, v.Slot, v.Token, v.Issuer, v.Serial)})
	}
}

func anybodys(vault.Certificate) bool { return true }

// tenant is whose the work's token is.
func (w *work) tenant(tx *vault.Tx) string {
	if t, err := tx.Token(w.job.Token); err == nil {
		return t.Tenant
	}
	return w.params.Tenant
}

// due has the certificates of a PIV application, if they are somebody's, wait for being revoked, and adds them to what the work
// leads to; of another tenant only those that its officer may know of.
func (w *work) due(tx *vault.Tx, id device.TokenID, why string, whose func(vault.Certificate) bool) error {
	due, err := revokeDue(tx, w.by, id, why, whose)
	for _, c := range due {
		known := c.Tenant == w.tenant(tx) || w.params.CardOf != nil && c.Tenant == *w.params.CardOf
		if v := c.Revocation(); known && !slices.Contains(w.params.Revoke, v) {
			w.params.Revoke = append(w.params.Revoke, v)
		}
	}
	return err
}

// dueOf is due for what the work's leaver has on a device: also for what was made before they got it.
func (w *work) dueOf(tx *vault.Tx, id device.ID, why string) error {
	if !id.MayHavePIV() || w.params.Leaver == "" {
		return nil
	}
	t, err := tx.Token(device.PIVToken(id))
	if err != nil && !errors.Is(err, vault.ErrNotFound) {
		return err
	}
	theirs := err == nil && strings.EqualFold(t.Owner, w.params.Leaver)
	return w.due(tx, device.PIVToken(id), why, func(c vault.Certificate) bool {
		return strings.EqualFold(c.Owner, w.params.Leaver) || theirs && c.Generation == t.Generation
	})
}

// revokeDue has certificates wait for being revoked, and returns all that do. One that has expired need not.
func revokeDue(tx *vault.Tx, by audit.Officer, id device.TokenID, why string, whose func(vault.Certificate) bool) (due []vault.Certificate, err error) {
	all, err := tx.CertificatesOf(id)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	for _, c := range all {
		if len(c.DER) == 0 || !c.Revoked.IsZero() || !whose(c) || now.After(c.NotAfter) {
			continue
		}
		if c.RevokeDue.IsZero() {
			c.RevokeDue, c.DueWhy = now, why
			if err := errors.Join(tx.PutCertificate(&c), tx.Audit(explained(vault.Done(by, "piv revocation due", id, c.Owner), described(c), why))); err != nil {
				return nil, err
			}
		}
		due = append(due, c)
	}
	return due, nil
}

// orderedAway has the certificates of a PIV application that an order takes from its owner wait for being revoked. Who has a key
// has all that is on it: if a token of it is lost, the certificates on its card are.
func orderedAway(tx *vault.Tx, o Order, t vault.Token, by audit.Officer) error {
	switch {
	case o.gone() && !t.ID.PIV() && t.ID.Device().MayHavePIV():
		_, err := revokeDue(tx, by, device.PIVToken(t.ID.Device()), fmt.Sprintf("%s of %s: %s", o.Action, t.ID, o.Loss), anybodys)
		return err
	case !t.ID.PIV(), o.Action != ActUnassign && o.Action != ActCompromise && o.Action != ActDelete:
		return nil
	case o.Action == ActDelete:
		if err := forgetKeys(tx, t.ID); err != nil {
			return err
		}
	}
	_, err := revokeDue(tx, by, t.ID, string(o.Action), anybodys)
	return err
}

// cardOf is the tenant of a key's smart card, if that is another one than the token's: a reissue resets both. It refuses one of
// which the officer may not do that.
func (o Reissue) cardOf(tx *vault.Tx, t vault.Token) (*string, error) {
	card, err := onCard(tx, t.ID)
	switch {
	case err != nil || card.ID == "" || card.Tenant == t.Tenant:
		return nil, err
	case o.May != nil && !o.May(card.Tenant):
		return nil, refuse("have an officer of the whole desk do it, or have that tenant wipe it first",
			"the smart card of %s is in use by another tenant, and a reissue erases it", t.ID.Device())
	}
	return &card.Tenant, nil
}

// onCard is the PIV application on a token's key, if its card may hold what the desk has put there; else it has no ID.
func onCard(tx *vault.Tx, id device.TokenID) (vault.Token, error) {
	if !id.Device().MayHavePIV() {
		return vault.Token{}, nil
	}
	t, err := tx.Token(device.PIVToken(id.Device()))
	if errors.Is(err, vault.ErrNotFound) || err == nil && !t.Wiped.IsZero() {
		return vault.Token{}, nil
	}
	return t, err
}

// mayClear refuses a card that has come to somebody else since the work began. A replacement leaves its receiver's alone.
func (w *work) mayClear(tx *vault.Tx, card vault.Token) (leave bool, err error) {
	wipe := fmt.Sprintf("wipe it first: tokendesk wipe %s; then tokendesk resolve %s", card.ID, w.job.Token)
	switch {
	case card.ID == "":
		return false, nil
	case w.job.Kind == planReplace:
		if leave = card.Owner != "" && strings.EqualFold(card.Owner, w.params.User); !leave {
			err = &device.CureError{Err: fmt.Errorf("the smart card of %s has keys that are on record, and not the new owner's", card.ID.Device()), Cure: wipe}
		}
	case card.Tenant != w.tenant(tx) && (w.params.CardOf == nil || *w.params.CardOf != card.Tenant):
		err = &device.CureError{Err: fmt.Errorf("the smart card of %s is in use by another tenant by now", card.ID.Device()), Cure: "have that tenant " + wipe}
	}
	return leave, err
}

// clearCard resets the smart card of a key that is reissued, if it has one, whoever's it was: the successor must not get what its
// last owner can use, and the last owner's certificates have to be revoked.
func clearCard(ctx context.Context, w *work) error {
	id := device.PIVToken(w.job.Token.Device())
	if !w.job.Token.Device().MayHavePIV() {
		return nil
	}
	release, err := w.Claim(id)
	if err != nil {
		return err
	}
	defer release()
	known, leave := false, false
	err = w.Vault.View(func(tx *vault.Tx) error {
		card, err := onCard(tx, w.job.Token)
		if err == nil {
			known = card.ID != ""
			leave, err = w.mayClear(tx, card)
		}
		return err
	})
	if err != nil || leave || !known && w.OpenPIV == nil {
		return err
	}
	reset := false
	err = w.openPIV(ctx, id.Device(), func(card device.PIV, _ bool) error {
		state, err := expected(ctx, card, id)
		if err == nil {
			reset, err = w.empty(ctx, card, id, state, known)
		}
		return err
	})
	switch {
	case errors.Is(err, ErrNoCard) && !known:
		return nil
	case errors.Is(err, ErrNoCard):
		return &device.CureError{
			Err:  fmt.Errorf("its PIV application is on record, and the last owner's keys are on it: %w", err),
			Cure: fmt.Sprintf("see why: tokendesk doctor; if it cannot be reached any more: tokendesk delete %s; then tokendesk resolve %s", id, w.job.Token),
		}
	case err != nil:
		return fmt.Errorf("its PIV application may hold the last owner's keys: %w", err)
	case !reset && !known:
		return nil
	}
	err = w.also(func(tx *vault.Tx) error {
		if err := w.due(tx, id, "reissue of "+string(w.job.Token), anybodys); err != nil {
			return err
		}
		owner := ""
		t, err := tx.Token(id)
		switch {
		case err == nil && known:
			owner = t.Owner
			t.Owner = ""
			err = errors.Join(abandon(tx, t), tx.PutToken(t), w.buryCard(tx, id, owner, time.Now()), w.notify(tx, NoticeUnassigned, id, owner, "", w.params.Reason))
		case err == nil: // compromised and wiped, which it stays
			err = forgetKeys(tx, id)
		case errors.Is(err, vault.ErrNotFound): // buried, perhaps
			err = errors.Join(forgetKeys(tx, id), tx.ForgetPIV(id, 0))
		}
		if err != nil {
			return err
		}
		outcome := fmt.Sprintf("card reset; certificates to be revoked: %d", len(w.params.Revoke))
		return tx.Audit(explained(vault.Done(w.by, w.job.Kind+": piv", id, owner), outcome, w.params.Reason))
	})
	if err == nil {
		w.tell(Progress{Kind: Done, Step: "piv", Text: "its smart card is reset, too"})
	}
	return err
}
