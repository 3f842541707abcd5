package localapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/provision"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// actDiscard is the action of an approval that is about a change of the outbox. All others are orders.
const actDiscard = "discard"

// ApprovalPath (exported, or the router would not fill it when embedded) is in the path of every operation on one approval.
type ApprovalPath struct {
	ID uint64 `path:"id" doc:"Number of the approval" minimum:"1"`
}

func (p ApprovalPath) object() string { return fmt.Sprintf("approval %d", p.ID) }

type rejection struct {
	ApprovalPath
	Body api.Reason
}

func (d *Desk) approvals(ctx context.Context, _ *nothing) (api.Approvals, error) {
	out := api.Approvals{Approvals: []api.Approval{}}
	var all []vault.Approval
	if err := d.Vault.View(func(tx *vault.Tx) (err error) { all, err = tx.Approvals(); return err }); err != nil {
		return out, err
	}
	for _, a := range all {
		if time.Now().Before(a.Expires) && d.mayHandle(ctx, a, everyone) == nil {
			out.Approvals = append(out.Approvals, approvalOf(a))
		}
	}
	return out, nil
}

func (d *Desk) showApproval(ctx context.Context, in *ApprovalPath) (api.Approval, error) {
	a, err := d.approval(ctx, in.ID, everyone)
	return approvalOf(a), err
}

// approval is one of those that are within the caller's reach.
func (d *Desk) approval(ctx context.Context, id uint64, who access) (a vault.Approval, err error) {
	err = d.Vault.View(func(tx *vault.Tx) (err error) {
		a, err = tx.Approval(id)
		return err
	})
	if err == nil {
		err = d.mayHandle(ctx, a, who)
	}
	return a, noApproval(id, err)
}

// mayHandle refuses a caller to whom not all is known that an approval is about. What is about the outbox is of the whole desk.
func (d *Desk) mayHandle(ctx context.Context, a vault.Approval, who access) error {
	r := reachOf(ctx)
	if who.admits(r.desk) {
		return nil
	}
	var o provision.Order
	if a.Action == actDiscard || json.Unmarshal(a.Request, &o) != nil {
		return vault.ErrNotFound
	}
	return d.allWithin(r, who, o.Tokens)
}

func noApproval(id uint64, err error) error {
	if errors.Is(err, vault.ErrNotFound) {
		return api.Errorf(api.NotFound, "there is no approval %d any more, or never was: tokendesk approvals list shows them all", id)
	}
	return err
}

func approvalOf(a vault.Approval) api.Approval {
	return api.Approval{
		ID: a.ID, Action: a.Action, Object: a.Object, Text: append([]string{}, a.Text...), Officer: a.By.Name, UID: a.By.UID,
		Reason: a.Reason, Created: a.Created, Expires: a.Expires,
	}
}

// approve has done what another officer has asked for.
func (d *Desk) approve(ctx context.Context, in *ApprovalPath) (api.Outcomes, error) {
	a, err := d.approval(ctx, in.ID, approvers)
	if err != nil {
		return api.Outcomes{}, err
	}
	if a.Action == actDiscard {
		return d.approveDiscard(ctx, a)
	}
	tokens, changes, err := d.Runner.Approve(ctx, officer(ctx), in.ID)
	return d.outcomes(ctx, tokens, changes, noApproval(in.ID, err))
}

// reject ends what an officer has asked for, and tells what still waits. Who has asked may take it back; others are approvers.
func (d *Desk) reject(ctx context.Context, in *rejection) (api.Approvals, error) {
	a, err := d.approval(ctx, in.ID, everyone)
	if err == nil && a.By.UID != officer(ctx).UID {
		if err = d.require(ctx, approvers.inTenants()); err == nil {
			_, err = d.approval(ctx, in.ID, approvers)
		}
	}
	if err != nil {
		return api.Approvals{}, err
	}
	if err := d.Runner.Reject(officer(ctx), in.ID, in.Body.Reason); err != nil {
		return api.Approvals{}, noApproval(in.ID, err)
	}
	return d.approvals(ctx, nil)
}

// discardRequest is what an approval of a discard keeps.
type discardRequest struct {
	Seq uint64 `json:"seq"`
}

// askDiscard keeps an officer's wish to give a cut-off up, until a second one approves it.
func (d *Desk) askDiscard(by audit.Officer, c vault.Change, reason string) (a vault.Approval, err error) {
	request, err := json.Marshal(discardRequest{c.Seq})
	if err != nil {
		return a, err
	}
	digest := digestOf(c)
	err = d.Vault.Update(func(tx *vault.Tx) error {
		all, err := tx.Approvals()
		if err != nil {
			return err
		}
		now := time.Now().UTC()
		for _, known := range all {
			if known.Action == actDiscard && known.Digest == digest && known.By.UID == by.UID && now.Before(known.Expires) {
				a = known
				return nil
			}
		}
		a = vault.Approval{
			Action: actDiscard, Object: ChangePath{c.Seq}.object(), Request: request, Digest: digest, By: by, Reason: reason,
			Created: now, Expires: now.Add(provision.ApprovalLife),
			Text: []string{whatFor(c) + " is given up: the central service is never told", "it ends an access, and that takes two"},
		}
		if err := tx.PutApproval(&a); err != nil {
			return err
		}
		return tx.Audit(audit.Act{
			Officer: by, Action: "ask for " + actDiscard, Object: ApprovalPath{a.ID}.object(), Outcome: "done",
			Reason: whatFor(c) + "; " + reason,
		})
	})
	return a, err
}

// whatFor says what a change asks for.
func whatFor(c vault.Change) string {
	text := fmt.Sprintf("%s of %s", c.Kind, c.Token)
	if c.User != "" {
		text += ", user " + c.User
	}
	return text
}

// digestOf binds an approval to one change. What a change asks for never changes while it waits.
func digestOf(c vault.Change) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "discard %d %s %s %q %d", c.Seq, c.Kind, c.Token, c.User, c.Generation))
	return hex.EncodeToString(sum[:])
}

// approveDiscard gives a cut-off up for the officer who wanted that. The approval goes first: whatever happens in between, the
// change goes on being delivered.
func (d *Desk) approveDiscard(ctx context.Context, a vault.Approval) (api.Outcomes, error) {
	out, by, now := api.Outcomes{Tokens: []api.Token{}, Changes: []api.Change{}}, officer(ctx), time.Now()
	err := provision.CheckApprover(a, by, now)
	if err != nil && now.Before(a.Expires) {
		return out, err
	}
	if gone := d.Vault.Update(func(tx *vault.Tx) error { return tx.DeleteApproval(a.ID) }); gone != nil { // perhaps somebody was faster
		return out, noApproval(a.ID, gone)
	}
	if err != nil {
		return out, err
	}
	var in discardRequest
	if err := json.Unmarshal(a.Request, &in); err != nil {
		return out, fmt.Errorf("approval %d cannot be read: %w", a.ID, err)
	}
	o, err := d.Outbox.Show(in.Seq)
	switch {
	case err == nil && digestOf(o.Change) != a.Digest:
		err = vault.ErrNotFound
	case err == nil:
		err = d.Outbox.Discard(a.By, in.Seq, a.Reason, by)
	}
	if errors.Is(err, vault.ErrNotFound) {
		return out, api.Errorf(api.Refused, "approval %d is stale, and gone: the outbox has no %s any more", a.ID, a.Object)
	}
	if err != nil {
		return out, err
	}
	out.Text = a.Object + " is given up: the central service is never told"
	return out, nil
}
