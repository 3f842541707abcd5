package syncer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"tokendesk/device"
	"tokendesk/vault"
)

// UserView is all that is known of one user's tokens.
type UserView struct {
	User    string      `json:"user"`  // as the central service spells it, if it was asked
	Known   bool        `json:"known"` // to the central service
	Problem string      `json:"problem,omitempty"`
	Tokens  []UserToken `json:"tokens"`
}

// UserToken is one of them, or one that the user has on one side only.
type UserToken struct {
	Token       device.TokenID `json:"token,omitempty"`
	Central     string         `json:"central"`        // empty: the service is not told of it
	Desk        *DeskSide      `json:"desk,omitempty"` // nil: it is unknown here, or Deleted
	Deleted     *DeletedSide   `json:"deleted,omitempty"`
	There       *Observation   `json:"there,omitempty"` // nil: the service was not asked, or see Problem
	Problem     string         `json:"problem,omitempty"`
	Differences []Difference   `json:"differences,omitempty"`
	Waiting     []vault.Change `json:"waiting,omitempty"`
	Unfinished  string         `json:"unfinished,omitempty"`
}

// maxUserTokens is how many tokens of one user are asked for at the central service.
const maxUserTokens = 100

// UserView lists the tokens that a user has in the vault, and those that the user's login takes centrally, with what
// differs. A central service that does not answer is named in Problem; an error is about the vault or ctx.
func (d *Drift) UserView(ctx context.Context, user string) (UserView, error) {
	view := UserView{User: user}
	var there []string
	answers := d.c != nil
	if d.c != nil {
		switch found, err := d.c.FindUser(ctx, user); {
		case ctx.Err() != nil:
			return view, ctx.Err()
		case err != nil:
			view.Problem, answers = err.Error(), errors.Is(err, ErrRefused)
		default:
			view.User, view.Known, there = found.Name, true, found.Tokens
		}
	}
	names := []string{view.User}
	if !strings.EqualFold(view.User, user) {
		names = append(names, user) // the desk may have kept what somebody typed
	}
	err := d.v.View(func(tx *vault.Tx) error {
		for _, name := range names {
			for t, err := range tx.AllTokens(vault.Filter{Owner: name}) {
				if err != nil {
					return err
				}
				if err := view.add(tx, t.ID, t.ID.Central()); err != nil {
					return err
				}
			}
		}
		for _, central := range there {
			id, _ := device.ParseCentral(central)
			if err := view.add(tx, id, central); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || !answers {
		return view, err
	}
	for i := range view.Tokens {
		if i < maxUserTokens && view.Tokens[i].Central != "" {
			view.Tokens[i].ask(ctx, d.c, view.User, there)
		}
	}
	return view, ctx.Err()
}

// add takes a token in once, by the desk's name, the central one, or both: the service is not told of all.
func (v *UserView) add(tx *vault.Tx, id device.TokenID, central string) error {
	known := func(t UserToken) bool {
		return id != "" && t.Token == id || central != "" && strings.EqualFold(t.Central, central)
	}
	if slices.ContainsFunc(v.Tokens, known) {
		return nil
	}
	u := UserToken{Token: id, Central: central}
	if id != "" {
		r := Row{Token: id}
		if err := r.look(tx); err != nil {
			return err
		}
		u.Desk, u.Deleted, u.Waiting, u.Unfinished = r.Desk, r.Deleted, r.Waiting, r.Unfinished
	}
	v.Tokens = append(v.Tokens, u)
	return nil
}

// ask looks the token up at the central service and names what differs.
func (u *UserToken) ask(ctx context.Context, c Connector, user string, there []string) {
	linked := slices.ContainsFunc(there, func(central string) bool { return strings.EqualFold(central, u.Central) })
	if u.Token != "" {
		seen, err := c.Observe(ctx, u.Token)
		if err != nil {
			u.Problem = err.Error()
			return
		}
		u.There = &seen
	}
	if u.Deleted != nil && u.There.Exists {
		p := u.side(c.Name(), u.Deleted.Generation)
		p.Owner = cmp.Or(p.Owner, user)
		u.Differences = u.Deleted.differences([]ProviderSide{p}, u.Waiting)
		return
	}
	if u.Desk == nil {
		text := fmt.Sprintf("%s can have it in the central service, and the vault does not know it", user)
		if u.There != nil && !u.There.Enabled {
			text = fmt.Sprintf("%s has it in the central service, without a secret, and the vault does not know it", user)
		}
		u.Differences = []Difference{{Kind: DiffersUnknown, Provider: c.Name(), Text: text}}
		return
	}
	p := u.side(c.Name(), u.Desk.Generation)
	if linked && p.Owner == "" {
		p.Owner = user
	}
	u.Differences = u.Desk.differences(p)
	if u.Unfinished != "" {
		u.Desk.spare(u.Token, u.Differences)
	}
	for i, x := range u.Differences {
		if change, ok := settler(x, *u.Desk, u.Waiting); ok {
			u.Differences[i].Pending = pending(change)
		}
	}
}

// side is the service as one provider. An observation tells nothing of the seed, so that counts as the desk's.
func (u *UserToken) side(name string, generation int) ProviderSide {
	return ProviderSide{Provider: name, Exists: u.There.Exists, Owner: u.There.Owner, Enabled: u.There.Enabled,
		Counter: u.There.Counter, Generation: generation, Ours: true}
}
