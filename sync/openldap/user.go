package openldap

import (
	"fmt"
	"strings"

	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
)

// user is a user's entry.
type user struct {
	dn, name string
	link     string // DN of the token; empty when there is none
	class    bool   // has oathHOTPUser
}

func (s *session) user(name string) (user, error) {
	if name == "" {
		return user{}, fmt.Errorf("%w: no user is named", syncer.ErrRefused)
	}
	found, err := s.users(s.cfg.userFilter(name), 2)
	switch {
	case err != nil:
		return user{}, err
	case len(found) == 0:
		return user{}, &partialError{fmt.Errorf("%w: there is no user %q below %s: create the user there, or correct the name", syncer.ErrRefused, name, s.cfg.PeopleBase)}
	case len(found) > 1:
		return user{}, fmt.Errorf("%w: several entries below %s match user %q: narrow the user filter", syncer.ErrRefused, s.cfg.PeopleBase, name)
	}
	return found[0], nil
}

// linked lists the users whose entry points to the token.
func (s *session) linked(token string) ([]user, error) {
	return s.users("("+attrLink+"="+ldap.EscapeFilter(token)+")", 0)
}

func (s *session) users(filter string, limit int) ([]user, error) {
	entries, err := s.search(s.cfg.PeopleBase, ldap.ScopeWholeSubtree, filter, limit, "objectClass", attrLink, s.userAttr)
	if err != nil {
		return nil, s.explain("search users below", s.cfg.PeopleBase, err)
	}
	var found []user
	for _, e := range entries {
		found = append(found, s.userOf(e))
	}
	return found, nil
}

func (c *Connector) userOf(e *ldap.Entry) user {
	u := user{dn: e.DN, name: e.GetEqualFoldAttributeValue(c.userAttr), link: e.GetAttributeValue(attrLink)}
	if u.name == "" {
		u.name = e.DN
	}
	for _, class := range e.GetAttributeValues("objectClass") {
		u.class = u.class || strings.EqualFold(class, classUser)
	}
	return u
}

func names(users []user) string {
	var all []string
	for _, u := range users {
		all = append(all, u.name)
	}
	return strings.Join(all, ", ")
}
