package localapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// orderBody is an order, and the action in its path.
type orderBody struct {
	Action string `path:"action" enum:"edit,assign,unassign,disable,enable,expire,compromise,delete" doc:"What to do"`
	Body   api.Order
}

// maxWords is how much an officer can say, in bytes.
const maxWords = 200

func (o *orderBody) object() string { return objectOf(o.Body.Tokens) }

func (o *orderBody) concerns() (ids []device.TokenID, err error) {
	order, err := orderOf(o.Action, o.Body)
	return order.Tokens, err
}

func objectOf(tokens []string) string {
	switch len(tokens) {
	case 0:
		return ""
	case 1:
		return tokens[0]
	}
	return fmt.Sprintf("%s and %d more", tokens[0], len(tokens)-1)
}

func orderOf(action string, o api.Order) (provision.Order, error) {
	out := provision.Order{
		Action: provision.Action(action), User: o.User, Loss: vault.LossKind(o.Loss), Reason: o.Reason, Description: o.Description, Address: o.Address, Tenant: o.Tenant, Expires: o.Expires,
	}
	for field, words := range map[string]*string{"reason": &o.Reason, "description": o.Description} {
		if words != nil && len(*words) > maxWords {
			return out, api.Errorf(api.Invalid, "the request is not valid: body.%s: expected at most %d bytes", field, maxWords)
		}
	}
	for _, name := range o.Tokens {
		id, err := device.ParseTokenID(name)
		if err != nil {
			return out, api.Errorf(api.Invalid, "%v", err)
		}
		out.Tokens = append(out.Tokens, id)
	}
	return out, nil
}

// order does something with tokens, or keeps it for a second officer to approve.
func (d *Desk) order(ctx context.Context, in *orderBody) (api.Outcomes, error) {
	o, err := orderOf(in.Action, in.Body)
	if roles := rolesFor(o.Action); err == nil && len(roles.roles) > 0 {
		err = d.require(ctx, roles)
	}
	if err != nil {
		return api.Outcomes{}, err
	}
	if o.Tenant != nil {
		err = d.settled(ctx, *o.Tenant)
	}
	if err != nil {
		return api.Outcomes{}, err
	}
	due, err := d.dueBefore(ctx, o.Tokens...)
	if err != nil {
		return api.Outcomes{}, err
	}
	tokens, changes, err := d.Runner.Do(ctx, officer(ctx), o)
	if waiting := (*provision.ApprovalError)(nil); errors.As(err, &waiting) {
		a := approvalOf(waiting.Approval)
		return api.Outcomes{Tokens: []api.Token{}, Changes: []api.Change{}, Approval: &a, Text: waiting.Error()}, nil
	}
	out, err := d.outcomes(ctx, tokens, changes, err)
	if err == nil {
		out.Revoke, err = d.dueSince(ctx, due, o.Tokens...)
	}
	if err == nil {
		out.Text, err = d.sameKeys(o)
	}
	return out, err
}

// sameKeys says what is lost with the tokens of an order, and still to be dealt with.
func (d *Desk) sameKeys(o provision.Order) (text string, err error) {
	err = d.Vault.View(func(tx *vault.Tx) error {
		lines, err := provision.SameKey(tx, o)
		text = strings.Join(lines, "; ")
		return err
	})
	return text, err
}

// rolesFor are the roles of which an action takes one, as the table says. None: only the desk does it, and that is refused in
// words of its own.
func rolesFor(action provision.Action) (a access) {
	for _, r := range provision.Lifecycle() {
		if r.Action == action && r.Role != "" && !slices.Contains(a.roles, r.Role) {
			a.roles = append(a.roles, r.Role)
		}
	}
	return a.inTenants()
}

// outcomes says what an order has led to, and what the central service made of it so far.
func (d *Desk) outcomes(ctx context.Context, tokens []vault.Token, changes []vault.Change, err error) (api.Outcomes, error) {
	out := api.Outcomes{Tokens: []api.Token{}, Changes: []api.Change{}}
	if err != nil {
		return out, err
	}
	out.Changes = append(out.Changes, d.settle(ctx, changes)...)
	err = d.Vault.View(func(tx *vault.Tx) error {
		for _, t := range tokens {
			t, err := tx.Token(t.ID)
			if errors.Is(err, vault.ErrNotFound) { // deleted
				continue
			}
			if err != nil {
				return err
			}
			shown, err := d.tokenOf(ctx, tx, t)
			if err != nil {
				return err
			}
			out.Tokens = append(out.Tokens, shown)
		}
		return nil
	})
	return out, err
}

func (d *Desk) preview(ctx context.Context, in *orderBody) (api.Intent, error) {
	out := api.Intent{Effects: []api.Effect{}, Why: []string{}}
	o, err := orderOf(in.Action, in.Body)
	if err != nil {
		return out, err
	}
	intent, err := d.Runner.Prepare(ctx, o)
	if err != nil {
		return out, err
	}
	out.Why = append(out.Why, intent.Why...)
	for _, e := range intent.Effects {
		out.Effects = append(out.Effects, api.Effect{
			Token: string(e.Token), From: string(e.From), To: string(e.To), Owner: e.Owner, NewOwner: e.NewOwner,
			Pushes: kinds(e.Pushes), LastOf: e.LastOf, Warning: e.Warning,
		})
	}
	out.Permanent = slices.ContainsFunc(provision.Lifecycle(), func(r provision.Rule) bool { return r.Action == o.Action && r.Permanent })
	return out, nil
}

func kinds(all []vault.ChangeKind) []string {
	out := []string{}
	for _, k := range all {
		out = append(out, string(k))
	}
	return out
}

type historyQuery struct {
	TokenPath
	Before uint64 `query:"before" doc:"Only entries before this one; 0: the newest"`
	Limit  int    `query:"limit" doc:"At most so many" minimum:"1" maximum:"1000" default:"100"`
}

// history is the part of the audit trail that is about one token; also of one that is gone.
func (d *Desk) history(_ context.Context, q *historyQuery) (out api.Acts, err error) {
	out.Acts = []api.Act{}
	id, err := q.id()
	if err != nil {
		return out, err
	}
	err = d.Vault.View(func(tx *vault.Tx) error {
		head, err := tx.Head()
		if err != nil {
			return err
		}
		out.Key, out.Last, out.Head = tx.AuditKey().String(), tx.Trail().Seq, head.String()
		entries, err := tx.History(id, q.Before, q.Limit+1)
		if len(entries) > q.Limit {
			entries = entries[:q.Limit]
			out.Next = entries[q.Limit-1].Seq
		}
		for _, e := range entries {
			out.Acts = append(out.Acts, actOf(e))
		}
		return err
	})
	return out, err
}

func actOf(e audit.Entry) api.Act {
	return api.Act{
		Seq: e.Seq, Time: e.Time, Epoch: e.Epoch, UID: e.Officer.UID, Officer: e.Officer.Name,
		Action: e.Action, Object: e.Object, Outcome: e.Outcome, Reason: e.Reason,
	}
}
