package provision

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

func wipePlan() []step {
	return []step{
		{name: "cut-off", done: "the token belongs to nobody", commit: letGo},
		{name: "erase", done: "%s erased", device: true, act: eraseSlot},
		{name: "remove", done: "recorded, and left for the central service", commit: bury},
	}
}

// Wipe cuts off the owner of an enrolled token, erases it on its device and deletes it. Of a compromised one the record stays.
func (r *Runner) Wipe(ctx context.Context, by audit.Officer, id device.TokenID, reason string, tell Tell) ([]vault.Change, error) {
	reason, err := sensible(reason)
	if err != nil {
		return nil, err
	}
	release, err := r.Claim(id)
	if err != nil {
		return nil, err
	}
	defer release()
	t, err := r.fitFor(id, ActWipe)
	if err != nil {
		return nil, err
	}
	if id.PIV() {
		return r.wipePIV(ctx, by, t, reason, tell)
	}
	o := Order{Action: ActWipe, Tokens: []device.TokenID{id}, Reason: reason}
	there, served, err := r.ask(ctx, &o)
	if err != nil {
		return nil, err
	}
	defer served()
	if err := r.Vault.View(func(tx *vault.Tx) error { return r.alone(tx, o, there) }); err != nil {
		return nil, err
	}
	if _, _, err := r.inspect(ctx, id); err != nil {
		if t.Status != vault.Compromised {
			err = fmt.Errorf("%w; without the key: tokendesk delete %s, or tokendesk compromise %s", err, id, id)
		}
		return nil, err
	}
	p := afresh(t, false)
	p.Generation, p.Leaver, p.Reason = t.Generation, t.Owner, reason
	w := r.job(planWipe, by, id, p, tell)
	w.there = there
	return w.run(ctx)
}

// alone refuses an order that takes a second officer: work of several steps cannot wait for one.
func (r *Runner) alone(tx *vault.Tx, o Order, there census) error {
	d, err := r.intend(tx, o, there)
	if err == nil && len(d.Why) > 0 {
		err = needsAnother(d)
	}
	return err
}

func needsAnother(d drawn) error {
	return refuse(fmt.Sprintf("have it unassigned first: tokendesk unassign %s", d.Order.Tokens[0]), "this takes a second officer: %s", d.Why[0])
}

// letGo takes a token from its owner, here and, through the outbox, centrally.
func letGo(tx *vault.Tx, w *work, _ time.Time) error {
	t, err := tx.Token(w.job.Token)
	if err != nil || t.Owner == "" {
		return err
	}
	// Another officer may have taken the owner's other token since this was asked.
	if err := w.alone(tx, Order{Action: ActWipe, Tokens: []device.TokenID{t.ID}, Reason: w.params.Reason}, w.there); err != nil {
		return err
	}
	if _, err := w.push(tx, t, vault.Unassign, t.Owner); err != nil {
		return err
	}
	leaver := t.Owner
	t.Owner = ""
	return errors.Join(tx.PutToken(t), w.notify(tx, NoticeUnassigned, t.ID, leaver, "", w.params.Reason))
}

// eraseSlot may be repeated: an empty slot is erased already.
func eraseSlot(ctx context.Context, w *work) error {
	_, err := w.erase(ctx, w.device)
	return err
}

// bury ends the erased token, or notes that it is erased if it is compromised.
func bury(tx *vault.Tx, w *work, now time.Time) error {
	t, err := tx.Token(w.job.Token)
	if err != nil {
		return err
	}
	if t.Status == vault.Compromised {
		t.Wiped = now
		return tx.PutToken(t)
	}
	err = tx.Bury(vault.Tombstone{ID: t.ID, Owner: w.params.Leaver, Status: t.Status, Officer: w.by.Name, Reason: w.params.Reason})
	if err != nil {
		return err
	}
	_, err = w.push(tx, t, vault.Remove, w.params.Leaver)
	return errors.Join(err, tx.DeleteAccessCode(t.ID), forgetPassword(tx, t.ID))
}
