package openldap

import (
	"context"
	"fmt"

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
		return s.assign(ch, seed)
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

// put creates the entry or brings it to the generation, with the secret or, if the seed is zero, without any.
// Enable is the same.
func (s *session) put(ch vault.Change, seed secret.Secret) error {
	params, ok := s.cfg.Params[ch.Digits]
	if !ok {
		return fmt.Errorf("%w: no oathHOTPParams entry is configured for codes of %d digits: create one and name it", syncer.ErrRefused, ch.Digits)
	}
	if err := s.linkedByNobodyBut(ch.User, ch.Token); err != nil {
		return err
	}
	return s.raise(ch, func(e entry) error {
		if !e.exists {
			return s.create(e.dn, ch, params, seed)
		}
		replace, err := s.holdsAnotherSeed(e, ch, seed)
		if err != nil {
			return err
		}
		m := ldap.NewModifyRequest(e.dn, nil)
		if replace {
			m.Replace(attrCounter, formatCounter(ch.Counter))
		} else {
			raiseTo(m, e, ch.Counter)
		}
		value, back := s.secretValue(seed)
		defer back()
		m.Replace(attrSecret, value)
		m.Replace(attrParams, []string{params})
		m.Replace(attrSerial, []string{ch.Token.Central()})
		m.Replace(attrNote, withOrigin(e.notes, s.origin(ch)))
		return s.conn.Modify(m)
	})
}

func (s *session) create(dn string, ch vault.Change, params string, seed secret.Secret) error {
	a := ldap.NewAddRequest(dn, nil)
	a.Attribute("objectClass", []string{"device", classToken})
	a.Attribute("cn", []string{ch.Token.Central()})
	a.Attribute(attrSerial, []string{ch.Token.Central()})
	a.Attribute(attrParams, []string{params})
	a.Attribute(attrNote, []string{s.origin(ch).String()})
	value, back := s.secretValue(seed)
	defer back()
	if value != nil {
		a.Attribute(attrSecret, value)
	}
	if last := formatCounter(ch.Counter); last != nil {
		a.Attribute(attrCounter, last)
	}
	return s.conn.Add(a)
}

// secretValue stands for a seed that is to be stored, until back is called; it is nothing for a zero one.
func (s *session) secretValue(seed secret.Secret) (value []string, back func()) {
	if seed.IsZero() {
		return nil, func() {}
	}
	standIn, back := s.lender.lend(seed)
	return []string{standIn}, back
}

// origin is that of the seed which a change belongs to.
func (c *Connector) origin(ch vault.Change) origin { return origin{ch.Generation, c.cfg.Desk} }

// holdsAnotherSeed tells whether the entry's counter belongs to another seed than the change. Where there are two
// secrets they are compared; where not, the entry's origin has to do.
func (s *session) holdsAnotherSeed(e entry, ch vault.Change, seed secret.Secret) (bool, error) {
	own := s.origin(ch)
	if e.origin.sameDesk(own) && e.origin.generation > own.generation {
		return false, s.newer(e, ch)
	}
	present, same, err := s.secretIs(e.dn, seed)
	switch {
	case err != nil:
		return false, err
	case present && !seed.IsZero():
		return !same, nil
	case !present && e.origin == (origin{}):
		return false, nil // nothing says so, and lowering the counter could make used codes count again
	case e.origin.desk != "" && !e.origin.sameDesk(own):
		return true, nil
	}
	return e.origin.generation != own.generation, nil
}

func (s *session) newer(e entry, ch vault.Change) error {
	return fmt.Errorf("%w: token %s has seed generation %d of this desk there, newer than %d, the last one in this vault, which seems to be an old copy: run tokendesk doctor and restore the latest backup of the vault, or reissue the key until it is at generation %d",
		syncer.ErrRefused, ch.Token.Central(), e.origin.generation, ch.Generation, e.origin.generation+1)
}

func (s *session) advance(ch vault.Change) error {
	return s.raise(ch, func(e entry) error {
		own := s.origin(ch)
		switch {
		case !e.exists:
			return fmt.Errorf("%w: token %s is not there: push it first", syncer.ErrRefused, ch.Token.Central())
		case e.origin.desk != "" && !e.origin.sameDesk(own):
			return fmt.Errorf("%w: token %s has a seed of another desk there (%s), so this counter is not its: reissue the key to take it over", syncer.ErrRefused, ch.Token.Central(), e.origin)
		case e.origin.generation > own.generation:
			return s.newer(e, ch)
		case e.origin.generation != 0 && e.origin.generation < own.generation:
			return fmt.Errorf("%w: token %s still has seed generation %d there: push it first", syncer.ErrRefused, ch.Token.Central(), e.origin.generation)
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
