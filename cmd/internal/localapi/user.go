package localapi

import (
	"context"
	"errors"

	"tokendesk/cmd/internal/api"
	"tokendesk/provision"
	syncer "tokendesk/sync"
	"tokendesk/vault"
)

// userHandovers is how many handovers are shown of a user.
const userHandovers = 5

type userPath struct {
	User string `path:"user" doc:"Name of a user" minLength:"1" maxLength:"64" pattern:"^[A-Za-z0-9._@-]+$"`
}

// showUser tells everything about one user: the tokens here and at the central service, what can be done with each, and what
// could be added.
func (d *Desk) showUser(ctx context.Context, in *userPath) (api.UserTokens, error) {
	out := api.UserTokens{User: in.User, Tokens: []api.UserToken{}, Types: []api.UserType{}, Handovers: []api.Handover{}}
	view, err := d.Drift.UserView(ctx, in.User)
	if err != nil {
		return out, err
	}
	out.User, out.Known, out.Problem = view.User, view.Known, view.Problem
	err = d.Vault.View(func(tx *vault.Tx) error {
		whole := len(reachOf(ctx).desk) > 0
		for _, t := range view.Tokens {
			tenant, known, err := tenantOf(tx, t.Token)
			if err != nil {
				return err
			}
			if !whole && (!known || !sees(ctx, tenant)) {
				continue
			}
			shown, err := d.userToken(ctx, tx, t)
			if err != nil {
				return err
			}
			out.Tokens = append(out.Tokens, shown)
		}
		if !whole {
			return nil
		}
		l, leaves, err := provision.LeaverOf(tx, view.User)
		if err != nil {
			return err
		}
		if leaves {
			shown := d.leaverOf(l)
			out.Leaver = &shown
		}
		links, err := tx.HandoversOfUser(view.User, 0, userHandovers)
		for _, h := range links {
			out.Handovers = append(out.Handovers, handoverOf(h))
		}
		return err
	})
	if err != nil {
		return out, err
	}
	out.Types = append(out.Types, d.addable(ctx, view)...)
	return out, ctx.Err()
}

func (d *Desk) userToken(ctx context.Context, tx *vault.Tx, t syncer.UserToken) (api.UserToken, error) {
	out := api.UserToken{
		Central: t.Central, Ours: t.Desk != nil || t.Deleted != nil, Desk: deskSide(t.Desk), Deleted: deletedSide(t.Deleted),
		Problem: t.Problem, Differences: differences(t.Differences), Waiting: len(t.Waiting), Unfinished: t.Unfinished, Actions: []string{},
	}
	if out.Ours {
		out.Token = string(t.Token)
	}
	if o := t.There; o != nil {
		out.There = &api.Seen{Provider: d.Connector.Name(), Exists: o.Exists, Owner: o.Owner, Enabled: o.Enabled, Counter: o.Counter}
	}
	if t.Desk == nil {
		return out, nil
	}
	token, err := tx.Token(t.Token)
	if errors.Is(err, vault.ErrNotFound) { // somebody was faster
		return out, nil
	}
	if err != nil {
		return out, err
	}
	shown, err := d.tokenOf(ctx, tx, token)
	out.Actions = shown.Actions
	return out, err
}

// addable are the types of which a user could get a token, and why none of some now.
func (d *Desk) addable(ctx context.Context, view syncer.UserView) (all []api.UserType) {
	problem := ""
	if d.Runner.CheckUser != nil {
		ctx, enough := context.WithTimeout(ctx, inquiryPatience) // a service that does not answer refuses nobody
		defer enough()
		if _, err := d.Runner.CheckUser(ctx, view.User); err != nil {
			problem = err.Error()
		}
	}
	for _, t := range provision.Types() {
		if d.unavailable(t.Code) != "" {
			continue
		}
		n := d.naming(t.Code)
		shown := api.UserType{Code: t.Code, Name: n.Name, Description: n.Description}
		if t.Told() { // else the central service knows nothing of it
			shown.Problem = problem
		}
		all = append(all, shown)
	}
	return all
}

// refusedThere tells whether the central service has answered, and knows no such user.
func refusedThere(err error) bool { return errors.Is(err, syncer.ErrRefused) }
