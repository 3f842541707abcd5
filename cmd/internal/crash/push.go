package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/cmd/internal/api"
	"tokendesk/sync/synctest"
)

// pushed: the key is alice's, and the directory knows.
func pushed(ctx context.Context, s *stage) error {
	if s.key == 0 {
		if err := freshKey(ctx, s); err != nil {
			return err
		}
		if err := s.enroll(ctx, false); err != nil {
			return err
		}
	}
	t, _, err := s.look(ctx)
	if err != nil {
		return err
	}
	for _, step := range back(t) {
		if err := s.order(ctx, step.action, step.user); err != nil {
			return err
		}
	}
	if s.unused >= mostUnused {
		if _, err := s.work(ctx, s.path("/test"), api.Codes{Capture: true}); err != nil {
			return err
		}
		s.unused = 0
	}
	return s.drained(ctx)
}

// mostUnused is how many codes of a key may go by that the directory did not take: it looks ten ahead.
const mostUnused = 5

// lifecycle is a change of a token and how the token is then.
type lifecycle struct {
	action, user  string // user: for assign
	owner, status string
}

// handOvers are the steps of the act.
var handOvers = []lifecycle{
	{"unassign", "", "", "active"},
	{"assign", "bob", "bob", "active"},
	{"disable", "", "bob", "disabled"},
	{"enable", "", "bob", "active"},
}

// back is what leads from wherever a token is to the act's beginning.
func back(t api.Token) (steps []lifecycle) {
	if t.Status == "disabled" {
		steps = append(steps, lifecycle{action: "enable"})
	}
	if t.Owner == "alice" {
		return steps
	}
	if t.Owner != "" {
		steps = append(steps, lifecycle{action: "unassign"})
	}
	return append(steps, lifecycle{action: "assign", user: "alice"})
}

func handOver(ctx context.Context, s *stage) error {
	s.done = 0
	for _, step := range handOvers {
		if err := s.order(ctx, step.action, step.user); err != nil {
			return err
		}
		s.done++
	}
	return s.drained(ctx)
}

// agreed: every step that was reported is kept, at most one more was taken, and the directory agrees with the vault.
func agreed(ctx context.Context, s *stage, acted bool) error {
	if err := s.drained(ctx); err != nil {
		return err
	}
	t, found, err := s.look(ctx)
	if err != nil || !found {
		return errors.Join(errors.New("the token is gone"), err)
	}
	states := append([]lifecycle{{owner: "alice", status: "active"}}, handOvers...)
	at := slices.IndexFunc(states[s.done:], func(l lifecycle) bool { return l.owner == t.Owner && l.status == t.Status })
	if at < 0 || at > 1 || acted && at != 0 {
		return fmt.Errorf("%d steps were reported, and the token is %s and %q's", s.done, t.Status, t.Owner)
	}
	owners, err := s.centralOwners(t)
	if err != nil {
		return err
	}
	if want := slices.DeleteFunc([]string{t.Owner}, func(o string) bool { return o == "" }); !slices.Equal(owners, want) {
		return fmt.Errorf("the vault gives the token to %q, the directory to %q", t.Owner, owners)
	}
	return s.logins(ctx, t)
}

// centralOwners are the users whose login takes the token in the directory.
func (s *stage) centralOwners(t api.Token) (owners []string, err error) {
	err = s.Slapd.AsAdmin(func(c *ldap.Conn) error {
		r, err := c.Search(ldap.NewSearchRequest(synctest.PeopleBase, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false,
			"(oathHOTPToken=cn="+ldap.EscapeFilter(t.Central)+","+synctest.TokensBase+")", []string{"uid"}, nil))
		if err != nil {
			return err
		}
		for _, e := range r.Entries {
			owners = append(owners, e.GetAttributeValue("uid"))
		}
		return nil
	})
	return owners, err
}

// logins tries who gets in with the key's next code.
func (s *stage) logins(ctx context.Context, t api.Token) error {
	if err := s.AwaitKeys(ctx, s.key); err != nil { // lest the desk, identifying it, gets what is typed
		return err
	}
	codes, err := s.Touch(ctx, s.key, slot == 2, 1)
	if err != nil || len(codes) != 1 {
		return fmt.Errorf("the key typed %q: %w", codes, err)
	}
	for _, user := range []string{"alice", "bob"} { // who may, last: a code is good for one login
		if user != t.Owner && s.Slapd.Login(user, codes[0]) == nil {
			return fmt.Errorf("%s gets in with a key that is %q's", user, t.Owner)
		}
	}
	s.unused++
	if t.Owner == "" {
		return nil
	}
	if t.Status == "active" {
		s.unused = 0
	}
	if err := s.Slapd.Login(t.Owner, codes[0]); (err == nil) != (t.Status == "active") {
		return fmt.Errorf("the token is %s, and %s's login gives %w", t.Status, t.Owner, err)
	}
	return nil
}
