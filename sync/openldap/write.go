package openldap

import (
	"errors"
	"fmt"
	"slices"

	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// errStale says that a write was not made because what had been read is no longer so.
var errStale = errors.New("the entry changed after it was read")

// write makes a change where it was found missing, with next as the counter. What is there already is not written.
func (s *session) write(v *view, ch vault.Change, seed secret.Secret, next uint64) error {
	if ch.Kind == vault.Advance {
		m := ldap.NewModifyRequest(v.entry.dn, assertion(v.entry.csn))
		raiseTo(m, v.entry, next)
		return s.commit(m, v.entry)
	}
	if err := s.put(v, ch, seed, next); err != nil || ch.Kind != vault.Assign {
		return err
	}
	return s.link(v)
}

// put creates the entry or brings it to the generation, with the secret or, if the seed is zero, without any.
func (s *session) put(v *view, ch vault.Change, seed secret.Secret, next uint64) error {
	e, params := v.entry, s.cfg.Params[ch.Digits]
	if !e.exists {
		return s.create(e.dn, ch, params, seed, next)
	}
	m := ldap.NewModifyRequest(e.dn, assertion(e.csn))
	if value := formatCounter(next); !s.holdsAnotherSeed(v, ch) {
		raiseTo(m, e, next)
	} else if !slices.Equal(value, present(e.counter)) {
		m.Replace(attrCounter, value)
	}
	switch {
	case seed.IsZero() && (v.present || v.anew || s.doubt[e.dn]):
		m.Replace(attrSecret, nil)
	case !seed.IsZero() && !v.same:
		standIn, back := s.lender.lend(seed)
		defer back()
		m.Replace(attrSecret, []string{standIn})
	}
	if !sameDN(e.params, params) {
		m.Replace(attrParams, []string{params})
	}
	if e.serial != ch.Token.Central() {
		m.Replace(attrSerial, []string{ch.Token.Central()})
	}
	if own := s.own(ch.Generation); e.origin.generation != own.generation || !e.origin.sameDesk(own) {
		m.Replace(attrNote, withOrigin(e.notes, own))
	}
	return s.commit(m, e)
}

func (s *session) create(dn string, ch vault.Change, params string, seed secret.Secret, next uint64) error {
	a := ldap.NewAddRequest(dn, nil)
	a.Attribute("objectClass", []string{"device", classToken})
	a.Attribute("cn", []string{ch.Token.Central()})
	a.Attribute(attrSerial, []string{ch.Token.Central()})
	a.Attribute(attrParams, []string{params})
	a.Attribute(attrNote, []string{s.own(ch.Generation).String()})
	if !seed.IsZero() {
		standIn, back := s.lender.lend(seed)
		defer back()
		a.Attribute(attrSecret, []string{standIn})
	}
	if last := formatCounter(next); last != nil {
		a.Attribute(attrCounter, last)
	}
	err := s.conn.Add(a)
	if ldap.IsErrorWithCode(err, ldap.LDAPResultEntryAlreadyExists) {
		return errStale
	}
	return s.explain("write", dn, err)
}

// commit sends a modification, unless there is nothing to modify.
func (s *session) commit(m *ldap.ModifyRequest, e entry) error {
	if len(m.Changes) == 0 {
		return nil
	}
	err := s.modifyToken(m)
	if ldap.IsErrorAnyOf(err, ldap.LDAPResultNoSuchAttribute, ldap.LDAPResultAssertionFailed) ||
		e.counter == "" && ldap.IsErrorAnyOf(err, ldap.LDAPResultConstraintViolation, ldap.LDAPResultAttributeOrValueExists) {
		return errStale
	}
	return s.explain("write", m.DN, err)
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

// link has the user's entry link the token, which is up to date by now: whoever is linked already can use it as soon as
// the secret is there.
func (s *session) link(v *view) error {
	u := v.named[0]
	m := ldap.NewModifyRequest(u.dn, nil)
	if !u.class {
		m.Add("objectClass", []string{classUser})
	}
	if u.link == "" {
		m.Add(attrLink, []string{v.entry.dn}) // not replace: a link that came meanwhile must stay
	}
	if len(m.Changes) == 0 {
		return nil
	}
	err := s.conn.Modify(m)
	if ldap.IsErrorAnyOf(err, ldap.LDAPResultConstraintViolation, ldap.LDAPResultAttributeOrValueExists) {
		return errStale
	}
	return s.explain("link the token in", u.dn, err)
}

// holdsAnotherSeed tells whether the entry's counter belongs to another seed than the change. Where there are two
// secrets they are compared; where not, the entry's origin has to do.
func (c *Connector) holdsAnotherSeed(v *view, ch vault.Change) bool {
	own := c.own(ch.Generation)
	switch {
	case v.present && !v.seed.IsZero():
		return !v.same
	case !v.present && v.entry.origin == (origin{}):
		return false // nothing says so, and lowering the counter could make used codes count again
	case v.entry.origin.desk != "" && !v.entry.origin.sameDesk(own):
		return true
	}
	return v.entry.origin.generation != own.generation
}

// newer refuses what would replace a later generation of this desk.
func (c *Connector) newer(v *view, ch vault.Change) error {
	own, there := c.own(ch.Generation), v.entry.origin
	if !there.sameDesk(own) || there.generation <= own.generation {
		return nil
	}
	return fmt.Errorf("%w: token %s has seed generation %d of this desk there, newer than %d, the last one in this vault, which seems to be an old copy: run tokendesk doctor and restore the latest backup of the vault, or reissue the key until it is at generation %d",
		syncer.ErrRefused, ch.Token.Central(), there.generation, ch.Generation, there.generation+1)
}

// conflict refuses a change that does not fit what the newest entry is like.
func (c *Connector) conflict(v *view, ch vault.Change) error {
	e, own, central := v.entry, c.own(ch.Generation), ch.Token.Central()
	switch {
	case ch.Kind == vault.Advance && !e.exists:
		return fmt.Errorf("%w: token %s is not there: push it first", syncer.ErrRefused, central)
	case ch.Kind == vault.Advance && e.origin.desk != "" && !e.origin.sameDesk(own):
		return fmt.Errorf("%w: token %s has a seed of another desk there (%s), so this counter is not its: reissue the key to take it over", syncer.ErrRefused, central, e.origin)
	case ch.Kind == vault.Advance && e.origin.generation != 0 && e.origin.generation < own.generation:
		return fmt.Errorf("%w: token %s still has seed generation %d there: push it first", syncer.ErrRefused, central, e.origin.generation)
	case ch.Kind == vault.Assign && !e.exists:
		return fmt.Errorf("%w: token %s is not there: push it before it is assigned", syncer.ErrRefused, central)
	}
	return nil
}

// present are the values of a single-valued attribute that was read as value.
func present(value string) []string {
	if value == "" {
		return nil
	}
	return []string{value}
}
