package openldap

import (
	"context"
	"errors"
	"regexp"

	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
)

// DefaultMailAttribute holds a user's mail address (RFC 4524 section 2.16).
const DefaultMailAttribute = "mail"

var attributeName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]*$`)

// Mail returns the mail address of a user, the first if there are several, and nothing if there is none (to be seen). It is as
// the directory has it, which anybody may have written. A user whom the directory does not know is syncer.ErrRefused. Any provider
// will do.
func (c *Connector) Mail(ctx context.Context, name string) (address string, err error) {
	if c.cfg.MailAttribute == "" {
		return "", errors.New("no attribute with mail addresses is configured")
	}
	var failed []error
	for _, p := range c.up() {
		err = p.do(ctx, func(s *session) error {
			u, err := s.user(name)
			if err != nil {
				return err
			}
			e, err := s.read(u.dn, c.cfg.MailAttribute)
			if err != nil {
				return s.explain("read", u.dn, err)
			}
			address = ""
			if e != nil {
				address = e.GetEqualFoldAttributeValue(c.cfg.MailAttribute)
			}
			return nil
		})
		if !errors.Is(err, syncer.ErrUnavailable) || ctx.Err() != nil {
			return address, err
		}
		failed = append(failed, err)
	}
	return "", together(failed)
}

// mailRight looks whether mail addresses can be read, on whichever user comes first.
func (k *checker) mailRight() error {
	attr := k.cfg.MailAttribute
	if attr == "" {
		return nil
	}
	found, err := k.search(k.cfg.PeopleBase, ldap.ScopeWholeSubtree, "("+attr+"=*)", 1, attr)
	if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) {
		return nil // said already
	}
	if err == nil && (len(found) == 0 || found[0].GetEqualFoldAttributeValue(attr) == "") {
		k.add(k.identity+" sees no mail address below "+k.cfg.PeopleBase+": no entry with "+attr,
			"give users one, correct mail_attribute, or add: "+k.rule(`dn.subtree="`+k.cfg.PeopleBase+`" attrs=`+attr, "read"))
	}
	return err
}
