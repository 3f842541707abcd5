package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
)

// The last active token of a user is not taken by slip. It counts what the central service knows too: tokens of other desks.

// centralPatience bounds how long an order waits for the central service to tell what a user has.
const centralPatience = 10 * time.Second

// census is what the central service says of users, by their names in lower case.
type census map[string]standing

type standing struct {
	tokens []string // active there, by their names there
	err    error    // why that is not known
}

// census asks about users who have nothing left here.
func (r *Runner) census(ctx context.Context, users []string) census {
	there := census{}
	if r.CentralTokens == nil {
		return there
	}
	ctx, cancel := context.WithTimeout(ctx, centralPatience)
	defer cancel()
	for _, user := range users {
		names, err := r.CentralTokens(ctx, user)
		there[strings.ToLower(user)] = standing{names, err}
	}
	return there
}

// bereft are the users who lose a token by some effects, and have no active one left in the vault.
func bereft(tx *vault.Tx, effects []Effect) (users []string, err error) {
	lost := map[device.TokenID]bool{}
	for _, e := range effects {
		lost[e.Token] = e.loses()
	}
	for _, e := range effects {
		if !e.loses() || slices.ContainsFunc(users, func(u string) bool { return strings.EqualFold(u, e.Owner) }) {
			continue
		}
		left := false
		for t, err := range tx.AllTokens(vault.Filter{Owner: e.Owner, Status: vault.Active, Limit: 100}) {
			if err != nil {
				return nil, err
			}
			if left = !lost[t.ID] && TypeOf(t.ID).Told() && (t.Expires.IsZero() || t.Expires.After(time.Now())); left {
				break
			}
		}
		if !left {
			users = append(users, e.Owner)
		}
	}
	return users, nil
}

// mourn notes whose last active token goes, and refuses that without a reason.
func (r *Runner) mourn(tx *vault.Tx, d *drawn, there census) error {
	if d.Order.Action == ActExpire {
		return nil
	}
	users, err := bereft(tx, d.Effects)
	if err != nil {
		return err
	}
	for _, user := range users {
		why, err := r.last(tx, user, there)
		if err != nil {
			return err
		}
		if why == "" {
			continue
		}
		for i := range d.Effects {
			if e := &d.Effects[i]; e.loses() && strings.EqualFold(e.Owner, user) {
				e.LastOf = user
			}
		}
		if d.Order.reason() == "" {
			return refuse("to go on, say why: --reason WORDS", "%s", why)
		}
		if r.Policy.LastToken && d.Order.Action != ActCompromise {
			d.Why = append(d.Why, why)
		}
	}
	return nil
}

// last says why a user who has no active token left in the vault has none at all, or that this cannot be told; else nothing.
func (r *Runner) last(tx *vault.Tx, user string, there census) (string, error) {
	if r.CentralTokens == nil {
		return fmt.Sprintf("it leaves %s without an active token", user), nil
	}
	s, asked := there[strings.ToLower(user)]
	switch {
	case !asked:
		return fmt.Sprintf("it leaves %s without an active token of this desk, and the central service was not asked for others", user), nil
	case s.err != nil:
		return fmt.Sprintf("it leaves %s without an active token of this desk, and the central service cannot tell of others: %v", user, s.err), nil
	}
	for _, name := range s.tokens {
		if ours, err := known(tx, name); err != nil || !ours {
			return "", err
		}
	}
	return fmt.Sprintf("it leaves %s without an active token", user), nil
}

// known tells whether a name of the central service is that of a token of this desk, also of one that was deleted.
func known(tx *vault.Tx, central string) (bool, error) {
	id, ok := device.ParseCentral(central)
	if !ok {
		return false, nil
	}
	_, err := tx.Token(id)
	if errors.Is(err, vault.ErrNotFound) {
		_, buried, err := tx.Tombstone(id)
		return buried, err
	}
	return err == nil, err
}

func isRefused(err error) bool {
	var refused *RefusedError
	return errors.As(err, &refused)
}
