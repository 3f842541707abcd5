package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// ApprovalLife is how long an order waits for a second officer.
const ApprovalLife = 7 * 24 * time.Hour

// ApprovalError says that an order waits for a second officer.
type ApprovalError struct{ Approval vault.Approval }

func (e *ApprovalError) Error() string {
	return fmt.Sprintf("this takes a second officer; it waits as approval %d until %s: another officer runs tokendesk approvals approve %d",
		e.Approval.ID, e.Approval.Expires.Local().Format("2006-01-02 15:04"), e.Approval.ID)
}

// await keeps what an officer intends until another one agrees. What the same officer has asked for already waits once.
func await(tx *vault.Tx, by audit.Officer, in Intent) (*ApprovalError, error) {
	request, err := json.Marshal(in.Order)
	if err != nil {
		return nil, err
	}
	all, err := tx.Approvals()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	for _, a := range all {
		switch same := a.By.UID == by.UID && a.Action == string(in.Order.Action) && string(a.Request) == string(request); {
		case same && a.Digest == in.Digest && a.Expires.After(now):
			return &ApprovalError{a}, nil
		case same, !a.Expires.After(now):
			if err := tx.DeleteApproval(a.ID); err != nil {
				return nil, err
			}
		}
	}
	a := vault.Approval{
		Action: string(in.Order.Action), Object: in.Order.object(), Request: request, Digest: in.Digest, Text: in.words(),
		By: by, Reason: in.Order.reason(), Created: now, Expires: now.Add(ApprovalLife),
	}
	if err := tx.PutApproval(&a); err != nil {
		return nil, err
	}
	act := audit.Act{Officer: by, Action: "ask for " + a.Action, Object: approvalName(a.ID), Outcome: "done", Reason: a.Object + "; " + a.Reason}
	return &ApprovalError{a}, tx.Audit(act)
}

func approvalName(id uint64) string { return fmt.Sprintf("approval %d", id) }

// object is the order's tokens, for people.
func (o Order) object() string {
	if n := len(o.Tokens); n > 3 {
		return fmt.Sprintf("%s and %d more", o.Tokens[0], n-1)
	}
	var names []string
	for _, id := range o.Tokens {
		names = append(names, string(id))
	}
	return strings.Join(names, ", ")
}

// words is what will happen, one line for each token.
func (in Intent) words() (out []string) {
	for _, e := range in.Effects {
		out = append(out, e.String())
	}
	return out
}

// CheckApprover refuses an approval that is too old, and an approver who is the officer who asked.
func CheckApprover(a vault.Approval, by audit.Officer, now time.Time) error {
	switch {
	case !a.Expires.After(now):
		return refuse("ask again", "approval %d has waited too long: it has expired on %s", a.ID, a.Expires.Local().Format("2006-01-02"))
	case a.By.UID == by.UID:
		return refuse("have another officer approve it", "%s has asked for approval %d, and cannot approve it too", a.By.Name, a.ID)
	}
	return nil
}

// Approve carries out an order that another officer has asked for, if it still means what it meant then. One that is too
// old, or means something else now, is removed.
func (r *Runner) Approve(ctx context.Context, by audit.Officer, id uint64) (tokens []vault.Token, changes []vault.Change, err error) {
	var a vault.Approval
	if err := r.Vault.View(func(tx *vault.Tx) (err error) { a, err = tx.Approval(id); return err }); err != nil {
		return nil, nil, err
	}
	var o Order
	if err := json.Unmarshal(a.Request, &o); err != nil || !slices.Contains(orders, o.Action) || string(o.Action) != a.Action {
		return nil, nil, refuse("", "approval %d (%s) is not about tokens", id, a.Action)
	}
	if err := CheckApprover(a, by, time.Now()); err != nil {
		if !a.Expires.After(time.Now()) {
			err = errors.Join(err, r.dropApproval(by, a, "it had expired"))
		}
		return nil, nil, err
	}
	release, err := r.claimAll(o.Tokens)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	there, served, err := r.ask(ctx, &o)
	switch {
	case err == nil:
		defer served()
	case !isRefused(err) && !errors.Is(err, vault.ErrNotFound):
		return nil, nil, err
	}
	var stale error
	err = r.Vault.Update(func(tx *vault.Tx) error {
		if a, err = tx.Approval(id); err != nil {
			return err // somebody was faster
		}
		d, err := r.intend(tx, o, there)
		if stale = outdated(a, d, err); stale != nil {
			return errors.Join(tx.DeleteApproval(id), tx.Audit(end(by, a, "stale")))
		}
		if err != nil {
			return err
		}
		tokens, changes, err = r.carryOut(tx, d, a.By, fmt.Sprintf("approval %d, by %s (uid %d)", id, by.Name, by.UID))
		return errors.Join(err, r.notifyAll(tx, d), tx.DeleteApproval(id), tx.Audit(end(by, a, "approve")))
	})
	if err == nil || errors.Is(err, vault.ErrUnanchored) { // which is recorded all the same
		r.wake()
	}
	if err = errors.Join(err, stale); err != nil {
		return nil, nil, err
	}
	return tokens, changes, nil
}

// end is the act that a waiting order has come to an end.
func end(by audit.Officer, a vault.Approval, what string) audit.Act {
	return audit.Act{Officer: by, Action: what, Object: approvalName(a.ID), Outcome: "done",
		Reason: fmt.Sprintf("%s of %s, asked for by %s (uid %d): %s", a.Action, a.Object, a.By.Name, a.By.UID, a.Reason)}
}

// outdated says what has changed since an approval was asked for, or returns nil. err is why the order is not possible now.
func outdated(a vault.Approval, d drawn, err error) error {
	var what []string
	switch {
	case isRefused(err), errors.Is(err, vault.ErrNotFound):
		what = append(what, err.Error())
	case err != nil || d.Digest == a.Digest:
		return nil
	default:
		what = differences(a, d)
	}
	return refuse("ask again, if it is still wanted", "approval %d is stale, and was removed: %s", a.ID, strings.Join(what, "; "))
}

func differences(a vault.Approval, d drawn) (what []string) {
	for i, line := range d.words() {
		if i >= len(a.Text) || line != a.Text[i] {
			what = append(what, "now "+line)
		}
	}
	for _, t := range d.tokens {
		if len(what) == 0 || t.Updated.After(a.Created) {
			what = append(what, fmt.Sprintf("%s was changed on %s", t.ID, t.Updated.Local().Format("2006-01-02 15:04:05")))
		}
	}
	return what
}

// dropApproval removes an approval that is not to be.
func (r *Runner) dropApproval(by audit.Officer, a vault.Approval, why string) error {
	return r.Vault.Update(func(tx *vault.Tx) error {
		act := end(by, a, "drop")
		act.Reason = why + "; " + act.Reason
		return errors.Join(tx.DeleteApproval(a.ID), tx.Audit(act))
	})
}

// Reject ends an order that waits, whatever it is about. Whoever has asked for it may take it back; others say why.
func (r *Runner) Reject(by audit.Officer, id uint64, reason string) error {
	if err := legible("reason", reason, maxReason); err != nil {
		return err
	}
	return r.Vault.Update(func(tx *vault.Tx) error {
		a, err := tx.Approval(id)
		if err != nil {
			return err
		}
		what := "reject"
		switch {
		case a.By.UID == by.UID:
			what = "withdraw"
		case reason == "":
			return refuse("say why: --reason WORDS", "%s wants to know why approval %d is rejected", a.By.Name, id)
		}
		act := end(by, a, what)
		act.Reason = strings.TrimPrefix(reason+"; ", "; ") + act.Reason
		return errors.Join(tx.DeleteApproval(id), tx.Audit(act))
	})
}
