package provision

import (
	"context"
	"fmt"
	"strings"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

func reissuePlan() []step {
	return []step{
		{name: "cut-off", done: "cut-off of the old owner recorded", commit: cutOff},
		{name: stepConfirm, done: "cut-off confirmed by the central service", act: confirm},
		{name: "seal", done: "fresh seed sealed in the vault", commit: sealNext},
		{name: "program", done: "slot reprogrammed; the key confirmed the write", device: true, act: program, commit: written},
		{name: "verify", done: "verified: the key types codes of the new seed and not of the old one", device: true, repeat: true, act: verify, commit: activate},
		{name: "assign", done: "recorded for the new owner, and left for the central service", commit: assign},
	}
}

// Reissue takes an enrolled token from its owner, if it has one, and gives it with a fresh seed to user.
// The owner is cut off centrally before anything else happens.
func (r *Runner) Reissue(ctx context.Context, by audit.Officer, id device.TokenID, user string, tell Tell) ([]vault.Change, error) {
	release, err := r.Claim(id)
	if err != nil {
		return nil, err
	}
	defer release()
	t, err := r.fitFor(id, ActReissue)
	if err != nil {
		return nil, err
	}
	switch {
	case user == "":
		return nil, refuse("name the new owner", "a reissue needs a new owner")
	case strings.EqualFold(t.Owner, user):
		return nil, refuse("to repair a counter: tokendesk resync "+string(id), "%s belongs to %s already", id, user)
	}
	// That it cuts its owner off is what a reissue is for, and no slip; but it must not replace a second officer.
	var there census
	if t.Owner != "" && r.Policy.LastToken {
		o := r.cutting(id)
		if there, _, err = r.ask(ctx, &o); err != nil {
			return nil, err
		}
		if err := r.Vault.View(func(tx *vault.Tx) error { return r.alone(tx, o, there) }); err != nil {
			return nil, err
		}
	}
	user, served, err := r.checkUser(ctx, user)
	if err != nil {
		return nil, err
	}
	defer served()
	_, emulated, err := r.inspect(ctx, id)
	if err != nil {
		if t.Owner != "" {
			err = fmt.Errorf("%w; to cut %s off now without the key: tokendesk unassign %s", err, t.Owner, id)
		}
		return nil, err
	}
	p := afresh(t, emulated)
	p.User, p.Leaver = user, t.Owner
	w := r.job(planReissue, by, id, p, tell)
	w.there = there
	return w.run(ctx)
}

// cutting is what a reissue does to the owner, as an order.
func (r *Runner) cutting(id device.TokenID) Order {
	return Order{Action: ActUnassign, Tokens: []device.TokenID{id}, Reason: "reissue"}
}

// cutOff takes the token from its owner, here and, through the outbox, centrally. Of a token that was
// unassigned before, the cut-off may still be on its way.
func cutOff(tx *vault.Tx, w *work, _ time.Time) error {
	t, err := tx.Token(w.job.Token)
	if err != nil {
		return err
	}
	if t.Owner == "" {
		waiting, err := tx.ChangesOf(t.ID)
		for _, c := range waiting {
			if c.Kind == vault.Unassign {
				w.params.Leaver, w.params.CutOff = c.User, c.Seq
			}
		}
		return err
	}
	if w.Policy.LastToken {
		if err := w.alone(tx, w.cutting(t.ID), w.there); err != nil {
			return err
		}
	}
	change, err := w.push(tx, t, vault.Unassign, t.Owner)
	if err != nil {
		return err
	}
	w.params.Leaver, w.params.CutOff = t.Owner, change.Seq
	t.Owner = ""
	return tx.PutToken(t)
}

// confirm waits for the central service: the new owner must not come before the old one's cut-off.
func confirm(ctx context.Context, w *work) error {
	if w.params.CutOff == 0 {
		return nil
	}
	if w.Confirm == nil {
		w.tell(Progress{Kind: Note, Text: "no central service is configured: the cut-off waits in the outbox"})
		return nil
	}
	if err := w.Confirm(ctx, w.params.CutOff); err != nil {
		return fmt.Errorf("the cut-off of %s is not confirmed yet: %w", w.params.Leaver, err)
	}
	return nil
}

// sealNext seals the next seed. From here until it is verified the device may hold either.
func sealNext(tx *vault.Tx, w *work, _ time.Time) error {
	t, err := tx.Token(w.job.Token)
	if err != nil {
		return err
	}
	t.Status = vault.Limbo
	if err := tx.PutToken(t); err != nil {
		return err
	}
	return sealSeed(tx, w)
}
