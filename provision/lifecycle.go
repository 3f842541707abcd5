package provision

import (
	"context"
	"fmt"
	"strings"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// Assign binds a verified token of the stock to a user.
func (r *Runner) Assign(ctx context.Context, by audit.Officer, id device.TokenID, user string) (vault.Token, []vault.Change, error) {
	if user == "" {
		return vault.Token{}, nil, refuse("name the user", "a token is assigned to somebody")
	}
	assignable := func(t vault.Token) error {
		switch {
		case strings.EqualFold(t.Owner, user):
			return refuse("", "%s belongs to %s already", t.ID, t.Owner)
		case t.Owner != "":
			return refuse(fmt.Sprintf("to take it from them with a fresh seed: tokendesk reissue %s --to %s", t.ID, user), "%s belongs to %s", t.ID, t.Owner)
		case t.Status != vault.Active:
			return refuse("", "%s is %s; only an active token can be assigned", t.ID, t.Status)
		}
		return nil
	}
	err := r.Vault.View(func(tx *vault.Tx) error {
		t, err := tx.Token(id)
		if err != nil {
			return err
		}
		return assignable(t)
	})
	if err != nil {
		return vault.Token{}, nil, err
	}
	user, served, err := r.checkUser(ctx, user)
	if err != nil {
		return vault.Token{}, nil, err
	}
	defer served()
	return r.change(by, id, func(t *vault.Token) ([]asked, error) {
		if err := assignable(*t); err != nil {
			return nil, err
		}
		t.Owner = user
		return []asked{{vault.Assign, user}}, nil
	})
}

// Unassign releases a token from its owner, who can no longer log in with it. It stays in stock.
func (r *Runner) Unassign(by audit.Officer, id device.TokenID) (vault.Token, []vault.Change, error) {
	return r.change(by, id, func(t *vault.Token) ([]asked, error) {
		if t.Owner == "" {
			return nil, refuse("", "%s is stock: it belongs to nobody", t.ID)
		}
		leaver := t.Owner
		t.Owner = ""
		return []asked{{vault.Unassign, leaver}}, nil
	})
}

// Disable has the central service refuse a token's codes until it is enabled again.
func (r *Runner) Disable(by audit.Officer, id device.TokenID) (vault.Token, []vault.Change, error) {
	return r.change(by, id, func(t *vault.Token) ([]asked, error) {
		if t.Status != vault.Active {
			return nil, refuse("", "%s is %s; only an active token can be disabled", t.ID, t.Status)
		}
		t.Status = vault.Disabled
		return []asked{{vault.Disable, t.Owner}}, nil
	})
}

// Enable reverses Disable.
func (r *Runner) Enable(by audit.Officer, id device.TokenID) (vault.Token, []vault.Change, error) {
	return r.change(by, id, func(t *vault.Token) ([]asked, error) {
		if t.Status != vault.Disabled {
			return nil, refuse("", "%s is %s, not disabled", t.ID, t.Status)
		}
		t.Status = vault.Active
		return []asked{{vault.Enable, t.Owner}}, nil
	})
}

// asked is a change for the central service and the user it is about.
type asked struct {
	kind vault.ChangeKind
	user string
}

// change alters a token that nobody works on and leaves word for the central service, in one transaction.
func (r *Runner) change(by audit.Officer, id device.TokenID, alter func(*vault.Token) ([]asked, error)) (t vault.Token, changes []vault.Change, err error) {
	release, err := r.Claim(id)
	if err != nil {
		return t, nil, err
	}
	defer release()
	err = r.Vault.Update(func(tx *vault.Tx) (err error) {
		if t, err = tx.Token(id); err != nil {
			return err
		}
		if err := idle(tx, id); err != nil {
			return err
		}
		want, err := alter(&t)
		if err != nil {
			return err
		}
		if err := tx.PutToken(t); err != nil {
			return err
		}
		changes = nil
		for _, w := range want {
			c, err := enqueue(tx, t, w.kind, w.user)
			if err != nil {
				return err
			}
			changes = append(changes, c)
			if err := tx.Audit(vault.Done(by, string(w.kind), id, w.user)); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		r.wake()
	}
	return t, changes, err
}
