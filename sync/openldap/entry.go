package openldap

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/vault/secret"
)

// Attributes and classes of the OATH-LDAP schema that slapo-otp brings along.
const (
	attrSecret  = "oathSecret"
	attrCounter = "oathHOTPCounter"
	attrParams  = "oathHOTPParams"
	attrSerial  = "oathTokenSerialNumber"
	attrLink    = "oathHOTPToken" // in a user's entry; the class of token entries has the same name
	attrNote    = "description"
	classUser   = "oathHOTPUser"
	classToken  = "oathHOTPToken"
)

// entry is a token's entry as it was read.
type entry struct {
	dn      string
	exists  bool
	counter string // as stored, for compare-and-set; empty when absent
	next    uint64 // the next moving factor
	origin  origin // of the seed; zero when nothing tells
	notes   []string
	params  string
	serial  string
}

func (c *Connector) tokenDN(id device.TokenID) string {
	return "cn=" + ldap.EscapeDN(id.Central()) + "," + c.cfg.TokensBase
}

func (s *session) token(id device.TokenID) (entry, error) {
	e := entry{dn: s.tokenDN(id)}
	found, err := s.read(e.dn, attrCounter, attrParams, attrSerial, attrNote)
	if err != nil {
		return e, s.explain("read", e.dn, err)
	}
	if found == nil {
		base, err := s.read(s.cfg.TokensBase, "1.1")
		if err != nil {
			return e, s.explain("read", s.cfg.TokensBase, err)
		}
		if base == nil { // then nothing can be said about what is below it
			return e, fmt.Errorf("%w: there is no %s, or %s may not read it: create it or give the right, see tokendesk doctor", syncer.ErrRefused, s.cfg.TokensBase, s.cfg.BindDN)
		}
		return e, nil
	}
	e.exists = true
	e.counter = found.GetAttributeValue(attrCounter)
	e.params = found.GetAttributeValue(attrParams)
	e.serial = found.GetAttributeValue(attrSerial)
	e.notes = found.GetAttributeValues(attrNote)
	e.origin = originOf(e.notes)
	if e.next, err = parseCounter(e.counter); err != nil {
		return e, fmt.Errorf("%w: %s of %s: %w", syncer.ErrRefused, attrCounter, e.dn, err)
	}
	return e, nil
}

// parseCounter turns the last used counter, as stored, into the next one.
func parseCounter(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	last, err := strconv.ParseInt(s, 10, 64)
	if err != nil || last < -1 || last == math.MaxInt64 {
		return 0, errors.New("the stored value is no counter: correct it by hand")
	}
	return uint64(last + 1), nil
}

// formatCounter is the value to store for a next counter; none for 0.
func formatCounter(next uint64) []string {
	if next == 0 {
		return nil
	}
	return []string{strconv.FormatUint(next-1, 10)}
}

// secretIs asks whether the entry holds a secret and whether it is this one. An empty secret asks for presence only:
// compare answers false when there is another value, and noSuchAttribute when there is none.
func (s *session) secretIs(dn string, want secret.Secret) (present, same bool, err error) {
	value := "x"
	if !want.IsZero() {
		var back func()
		value, back = s.lender.lend(want)
		defer back()
	}
	same, err = s.conn.Compare(dn, attrSecret, value)
	switch {
	case err == nil:
		return true, same && !want.IsZero(), nil
	case ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchAttribute):
		return false, false, nil
	}
	return false, false, s.explain("compare "+attrSecret+" of", dn, err)
}

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
	found, err := s.users(s.userFilter(name), 2)
	switch {
	case err != nil:
		return user{}, err
	case len(found) == 0:
		return user{}, fmt.Errorf("%w: there is no user %q below %s: create the user there, or correct the name", syncer.ErrRefused, name, s.cfg.PeopleBase)
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
		u := user{dn: e.DN, name: e.GetEqualFoldAttributeValue(s.userAttr), link: e.GetAttributeValue(attrLink)}
		if u.name == "" {
			u.name = e.DN
		}
		for _, class := range e.GetAttributeValues("objectClass") {
			u.class = u.class || strings.EqualFold(class, classUser)
		}
		found = append(found, u)
	}
	return found, nil
}

// central is the name of a token by its DN: its cn directly below TokensBase, else the DN itself.
func (c *Connector) central(dn string) string {
	token, err := ldap.ParseDN(dn)
	base, baseErr := ldap.ParseDN(c.cfg.TokensBase)
	if err != nil || baseErr != nil || len(token.RDNs) != len(base.RDNs)+1 || !base.AncestorOfFold(token) {
		return dn
	}
	if cn := token.RDNs[0].Attributes; len(cn) == 1 && strings.EqualFold(cn[0].Type, "cn") {
		return cn[0].Value
	}
	return dn
}

func sameDN(a, b string) bool {
	x, err := ldap.ParseDN(a)
	if err != nil {
		return false
	}
	y, err := ldap.ParseDN(b)
	return err == nil && x.EqualFold(y)
}
