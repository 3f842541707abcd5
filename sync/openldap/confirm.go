package openldap

import (
	"fmt"

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
		return s.confirmAssign(ch, seed)
	case vault.Unassign:
		return s.confirmUnassign(ch)
	case vault.Disable:
		return s.confirmNoSecret(ch)
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
	case e.origin.generation != ch.Generation || !e.origin.sameDesk(s.origin(ch)):
		return s.notConfirmed(ch, "the generation is another one")
	case e.next < ch.Counter:
		return s.notConfirmed(ch, "the counter is behind")
	case !sameDN(e.params, s.cfg.Params[ch.Digits]):
		return s.notConfirmed(ch, "the parameters are other ones")
	case e.serial != ch.Token.Central():
		return s.notConfirmed(ch, "the serial number is another one")
	}
	if seed.IsZero() {
		return s.confirmNoSecret(ch)
	}
	_, same, err := s.secretIs(e.dn, seed)
	if err == nil && !same {
		return s.notConfirmed(ch, "the secret is not the one that was written")
	}
	return err
}

func (s *session) confirmAssign(ch vault.Change, seed secret.Secret) error {
	u, err := s.user(ch.User)
	switch {
	case err != nil:
		return err
	case !u.class || !sameDN(u.link, s.tokenDN(ch.Token)):
		return s.notConfirmed(ch, "the user's entry does not link it")
	}
	return s.confirmPut(ch, seed)
}

// confirmUnassign rests on the secret: that no link is found also comes from a missing right, or from a
// user's entry that stands elsewhere by now.
func (s *session) confirmUnassign(ch vault.Change) error {
	left, err := s.linked(s.tokenDN(ch.Token))
	switch {
	case err != nil:
		return err
	case len(left) > 0:
		return s.notConfirmed(ch, names(left)+" still has it")
	}
	return s.confirmNoSecret(ch)
}

func (s *session) confirmNoSecret(ch vault.Change) error {
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
