package openldap

import (
	"context"
	"fmt"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// races is how often a write starts again because somebody logged in between reading and writing.
const races = 5

// Observe implements syncer.Connector. Enabled says that the secret is there; that nobody can use an
// unowned token follows from Owner. A token linked by several users is an error.
func (c *Connector) Observe(ctx context.Context, token device.TokenID) (seen syncer.Observation, err error) {
	err = c.do(ctx, func(s *session) error {
		seen, err = s.observe(token)
		return err
	})
	return seen, err
}

// UserTokens implements syncer.Connector.
func (c *Connector) UserTokens(ctx context.Context, name string) (tokens []string, err error) {
	err = c.do(ctx, func(s *session) error {
		u, err := s.user(name)
		tokens = nil
		if err == nil && u.link != "" {
			tokens = []string{c.central(u.link)}
		}
		return err
	})
	return tokens, err
}

// Apply implements syncer.Connector.
func (c *Connector) Apply(ctx context.Context, ch vault.Change, seed secret.Secret) (seen syncer.Observation, err error) {
	err = c.do(ctx, func(s *session) error {
		if err := s.write(ch, seed); err != nil {
			return err
		}
		if err := s.confirm(ch, seed); err != nil {
			return err
		}
		seen, err = s.observe(ch.Token)
		return err
	})
	if err != nil {
		return syncer.Observation{}, err
	}
	return seen, nil
}

func (s *session) write(ch vault.Change, seed secret.Secret) error {
	switch ch.Kind {
	case vault.Put, vault.Enable:
		return s.put(ch, seed)
	case vault.Advance:
		return s.advance(ch)
	case vault.Assign:
		return s.assign(ch)
	case vault.Unassign:
		return s.unassign(ch)
	case vault.Disable:
		return s.disable(ch)
	}
	return fmt.Errorf("%w: this connector does not know the change %q", syncer.ErrRefused, ch.Kind)
}

func (s *session) observe(id device.TokenID) (syncer.Observation, error) {
	e, err := s.token(id)
	if err != nil || !e.exists {
		return syncer.Observation{}, err
	}
	present, _, err := s.secretIs(e.dn, secret.Secret{})
	if err != nil {
		return syncer.Observation{}, err
	}
	owners, err := s.linked(e.dn)
	if err != nil {
		return syncer.Observation{}, err
	}
	if len(owners) > 1 {
		return syncer.Observation{}, fmt.Errorf("%w: token %s is linked by several users (%s), and each can log in with it: remove %s from all but one", syncer.ErrRefused, id.Central(), names(owners), attrLink)
	}
	return syncer.Observation{Exists: true, Counter: e.next, Owner: names(owners), Enabled: present}, nil
}

// put creates the entry or brings it to the generation, and puts the secret there. Enable is the same: it
// puts the secret back.
func (s *session) put(ch vault.Change, seed secret.Secret) error {
	params, ok := s.cfg.Params[ch.Digits]
	switch {
	case !ok:
		return fmt.Errorf("%w: no oathHOTPParams entry is configured for codes of %d digits: create one and name it", syncer.ErrRefused, ch.Digits)
	case seed.IsZero():
		return fmt.Errorf("%w: token %s comes without its seed", syncer.ErrRefused, ch.Token.Central())
	}
	return s.raise(ch, func(e entry) error {
		if !e.exists {
			return s.create(e.dn, ch, params, seed)
		}
		older, err := s.outdated(e, ch, seed)
		if err != nil {
			return err
		}
		m := ldap.NewModifyRequest(e.dn, nil)
		if older {
			m.Replace(attrCounter, formatCounter(ch.Counter))
		} else {
			raiseTo(m, e, ch.Counter)
		}
		m.Replace(attrSecret, []string{string(seed.Reveal())})
		m.Replace(attrParams, []string{params})
		m.Replace(attrSerial, []string{ch.Token.Central()})
		m.Replace(attrNote, withGeneration(e.notes, ch.Generation))
		return s.conn.Modify(m)
	})
}

func (s *session) create(dn string, ch vault.Change, params string, seed secret.Secret) error {
	a := ldap.NewAddRequest(dn, nil)
	a.Attribute("objectClass", []string{"device", classToken})
	a.Attribute("cn", []string{ch.Token.Central()})
	a.Attribute(attrSerial, []string{ch.Token.Central()})
	a.Attribute(attrParams, []string{params})
	a.Attribute(attrNote, []string{formatGeneration(ch.Generation)})
	a.Attribute(attrSecret, []string{string(seed.Reveal())})
	if last := formatCounter(ch.Counter); last != nil {
		a.Attribute(attrCounter, last)
	}
	return s.conn.Add(a)
}

// outdated tells whether the entry holds an earlier generation than the change. An entry that does
// not say is of the same generation if it holds the same secret.
func (s *session) outdated(e entry, ch vault.Change, seed secret.Secret) (bool, error) {
	switch {
	case e.generation > ch.Generation:
		return false, s.newer(e, ch)
	case e.generation == 0:
		_, same, err := s.secretIs(e.dn, seed)
		return !same, err
	}
	return e.generation < ch.Generation, nil
}

func (s *session) newer(e entry, ch vault.Change) error {
	return fmt.Errorf("%w: token %s has seed generation %d there, which is newer than %d: it was reseeded since, discard this change", syncer.ErrRefused, ch.Token.Central(), e.generation, ch.Generation)
}

func (s *session) advance(ch vault.Change) error {
	return s.raise(ch, func(e entry) error {
		switch {
		case !e.exists:
			return fmt.Errorf("%w: token %s is not there: push it first", syncer.ErrRefused, ch.Token.Central())
		case e.generation > ch.Generation:
			return s.newer(e, ch)
		case e.generation != 0 && e.generation < ch.Generation:
			return fmt.Errorf("%w: token %s still has seed generation %d there: push it first", syncer.ErrRefused, ch.Token.Central(), e.generation)
		case e.next >= ch.Counter:
			return nil
		}
		m := ldap.NewModifyRequest(e.dn, nil)
		raiseTo(m, e, ch.Counter)
		return s.conn.Modify(m)
	})
}

// raiseTo adds a compare-and-set of the counter, unless it is there already: the value that was read
// must still be there to be deleted, and a second value is not allowed.
func raiseTo(m *ldap.ModifyRequest, e entry, next uint64) {
	if e.next >= next {
		return
	}
	if e.counter != "" {
		m.Delete(attrCounter, []string{e.counter})
	}
	m.Add(attrCounter, formatCounter(next))
}

// raise reads the token and writes it, starting again when the write shows that it was read too early.
func (s *session) raise(ch vault.Change, write func(entry) error) error {
	for range races {
		e, err := s.token(ch.Token)
		if err != nil {
			return err
		}
		err = write(e)
		stale := ldap.IsErrorAnyOf(err, ldap.LDAPResultNoSuchAttribute) ||
			e.exists && e.counter == "" && ldap.IsErrorAnyOf(err, ldap.LDAPResultConstraintViolation, ldap.LDAPResultAttributeOrValueExists) ||
			!e.exists && ldap.IsErrorWithCode(err, ldap.LDAPResultEntryAlreadyExists)
		if !stale {
			return s.explain("write", e.dn, err)
		}
	}
	return fmt.Errorf("%w: token %s changed under the write %d times: it is in use right now, or %s may not read its entry", syncer.ErrUnavailable, ch.Token.Central(), races, s.cfg.BindDN)
}

func (s *session) assign(ch vault.Change) error {
	u, err := s.user(ch.User)
	if err != nil {
		return err
	}
	e, err := s.token(ch.Token)
	if err != nil {
		return err
	}
	if !e.exists {
		return fmt.Errorf("%w: token %s is not there: push it before it is assigned", syncer.ErrRefused, ch.Token.Central())
	}
	owners, err := s.linked(e.dn)
	if err != nil {
		return err
	}
	for _, o := range owners {
		if !sameDN(o.dn, u.dn) {
			return fmt.Errorf("%w: token %s belongs to %s: unassign it there first", syncer.ErrRefused, ch.Token.Central(), o.name)
		}
	}
	if u.link != "" && !sameDN(u.link, e.dn) {
		return fmt.Errorf("%w: user %q already has token %s: unassign it first", syncer.ErrRefused, ch.User, s.central(u.link))
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

func (s *session) unassign(ch vault.Change) error {
	dn := s.tokenDN(ch.Token)
	owners, err := s.linked(dn)
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

func (s *session) disable(ch vault.Change) error {
	e, err := s.token(ch.Token)
	if err != nil || !e.exists {
		return err
	}
	m := ldap.NewModifyRequest(e.dn, nil)
	m.Delete(attrSecret, nil)
	err = s.conn.Modify(m)
	if ldap.IsErrorAnyOf(err, ldap.LDAPResultNoSuchAttribute, ldap.LDAPResultNoSuchObject) {
		return nil
	}
	return s.explain("disable", e.dn, err)
}

func names(users []user) string {
	var all []string
	for _, u := range users {
		all = append(all, u.name)
	}
	return strings.Join(all, ", ")
}
