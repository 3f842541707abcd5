package openldap

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// FindUser implements syncer.Connector.
func (c *Connector) FindUser(ctx context.Context, name string) (found syncer.User, err error) {
	err = c.do(ctx, func(s *session) error {
		u, err := s.user(name)
		if err != nil {
			return err
		}
		found = syncer.User{Name: u.name}
		if u.link != "" {
			found.Tokens = []string{c.central(u.link)}
		}
		return nil
	})
	return found, err
}

// assign brings the entry up to date, secret included, and then has the user's entry link it: whoever is linked
// already can use the token as soon as the secret is there.
func (s *session) assign(ch vault.Change, seed secret.Secret) error {
	u, err := s.user(ch.User)
	if err != nil {
		return err
	}
	e, err := s.token(ch.Token)
	switch {
	case err != nil:
		return err
	case !e.exists:
		return fmt.Errorf("%w: token %s is not there: push it before it is assigned", syncer.ErrRefused, ch.Token.Central())
	case u.link != "" && !sameDN(u.link, e.dn):
		return fmt.Errorf("%w: user %q already has token %s: unassign it first", syncer.ErrRefused, ch.User, s.central(u.link))
	}
	if err := s.put(ch, seed); err != nil {
		return err
	}
	m := ldap.NewModifyRequest(u.dn, nil)
	if !u.class {
		m.Add("objectClass", []string{classUser})
	}
	if u.link == "" {
		m.Add(attrLink, []string{e.dn}) // not replace: a link that came meanwhile must stay
	}
	if len(m.Changes) == 0 {
		return nil
	}
	return s.explain("link the token in", u.dn, s.conn.Modify(m))
}

// linkedByNobodyBut refuses what would let somebody else use the token.
func (s *session) linkedByNobodyBut(name string, token device.TokenID) error {
	owners, err := s.linked(s.tokenDN(token))
	if err != nil || len(owners) == 0 {
		return err
	}
	var may []user
	if name != "" {
		if may, err = s.users(s.userFilter(name), 2); err != nil {
			return err
		}
	}
	for _, o := range owners {
		if !slices.ContainsFunc(may, func(u user) bool { return sameDN(u.dn, o.dn) }) {
			return fmt.Errorf("%w: token %s is linked by %s there: unassign it, or remove %s from %s, and retry", syncer.ErrRefused, token.Central(), o.name, attrLink, o.dn)
		}
	}
	return nil
}

// unassign closes the door by removing the secret, for users too that cannot be seen, and then frees the
// token and those that can.
func (s *session) unassign(ch vault.Change) error {
	disabled, unlinked := s.disable(ch), s.unlink(ch)
	if disabled != nil {
		return disabled // it weighs more
	}
	return unlinked
}

func (s *session) unlink(ch vault.Change) error {
	owners, err := s.linked(s.tokenDN(ch.Token))
	if err != nil {
		return err
	}
	for _, o := range owners {
		m := ldap.NewModifyRequest(o.dn, nil)
		m.Delete(attrLink, []string{o.link})
		err := s.conn.Modify(m)
		if err != nil && !ldap.IsErrorAnyOf(err, ldap.LDAPResultNoSuchAttribute, ldap.LDAPResultNoSuchObject) {
			return s.explain("remove the token from", o.dn, err)
		}
	}
	return nil
}

// disable reads nothing but whether the entry is there: no damage to it keeps its secret.
func (s *session) disable(ch vault.Change) error {
	dn := s.tokenDN(ch.Token)
	if e, err := s.read(dn, "1.1"); err != nil || e == nil {
		return s.explain("read", dn, err)
	}
	m := ldap.NewModifyRequest(dn, nil)
	m.Delete(attrSecret, nil)
	err := s.conn.Modify(m)
	if ldap.IsErrorAnyOf(err, ldap.LDAPResultNoSuchAttribute, ldap.LDAPResultNoSuchObject) {
		return nil
	}
	return s.explain("remove the secret from", dn, err)
}

func names(users []user) string {
	var all []string
	for _, u := range users {
		all = append(all, u.name)
	}
	return strings.Join(all, ", ")
}
