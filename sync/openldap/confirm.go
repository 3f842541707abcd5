package openldap

import (
	"fmt"

	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// confirm reads back what a change was to achieve.
func (s *session) confirm(ch vault.Change, seed secret.Secret) error {
	switch ch.Kind {
	case vault.Put, vault.Enable:
		return s.confirmPut(ch, seed)
	case vault.Advance:
		e, err := s.token(ch.Token)
		if err == nil && (!e.exists || e.next < ch.Counter) {
			return s.notConfirmed(ch, "the counter was not raised")
		}
		return err
	case vault.Assign:
		return s.confirmAssign(ch)
	case vault.Unassign:
		return s.confirmUnassign(ch)
	case vault.Disable:
		return s.confirmDisable(ch)
	}
	return nil
}

func (s *session) confirmPut(ch vault.Change, seed secret.Secret) error {
	e, err := s.token(ch.Token)
	if err != nil {
		return err
	}
	switch {
	case !e.exists:
		return s.notConfirmed(ch, "the entry is not there")
	case e.generation != ch.Generation:
		return s.notConfirmed(ch, "the generation is another one")
	case e.next < ch.Counter:
		return s.notConfirmed(ch, "the counter is behind")
	case !sameDN(e.params, s.cfg.Params[ch.Digits]):
		return s.notConfirmed(ch, "the parameters are other ones")
	case e.serial != ch.Token.Central():
		return s.notConfirmed(ch, "the serial number is another one")
	}
	_, same, err := s.secretIs(e.dn, seed)
	if err == nil && !same {
		return s.notConfirmed(ch, "the secret is not the one that was written")
	}
	return err
}

func (s *session) confirmAssign(ch vault.Change) error {
	u, err := s.user(ch.User)
	if err == nil && (!u.class || !sameDN(u.link, s.tokenDN(ch.Token))) {
		return s.notConfirmed(ch, "the user's entry does not link it")
	}
	return err
}

// confirmUnassign wants a positive proof: an empty search result also comes from a missing right.
func (s *session) confirmUnassign(ch vault.Change) error {
	dn := s.tokenDN(ch.Token)
	left, err := s.linked(dn)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return s.notConfirmed(ch, names(left)+" still has it")
	}
	if ch.User == "" {
		return nil
	}
	former, err := s.users(s.userFilter(ch.User), 2)
	if err != nil {
		return err
	}
	for _, u := range former {
		free, err := s.probe(u.dn, "(!("+attrLink+"="+ldap.EscapeFilter(dn)+"))", "1.1")
		if err != nil {
			return s.explain("read", u.dn, err)
		}
		if free == nil {
			return fmt.Errorf("%w: cannot see whether %s still links the token: %s lacks the right to search %s there, see tokendesk doctor", syncer.ErrRefused, u.dn, s.cfg.BindDN, attrLink)
		}
	}
	return nil
}

func (s *session) confirmDisable(ch vault.Change) error {
	e, err := s.token(ch.Token)
	if err != nil || !e.exists {
		return err
	}
	present, _, err := s.secretIs(e.dn, secret.Secret{})
	if err == nil && present {
		return s.notConfirmed(ch, "the secret is still there")
	}
	return err
}

func (s *session) notConfirmed(ch vault.Change, why string) error {
	return fmt.Errorf("%w: %s of %s: %s", syncer.ErrNotConfirmed, ch.Kind, ch.Token.Central(), why)
}
