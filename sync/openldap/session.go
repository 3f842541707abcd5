package openldap

import (
	"slices"

	"github.com/go-ldap/ldap/v3"
)

// session is a connection while somebody has it. Its methods return raw LDAP errors; explain
// turns them into words.
type session struct {
	*provider
	lender   *lender // below conn
	conn     *ldap.Conn
	identity string // the DN that the server knows the desk by
}

func (s *session) search(base string, scope int, filter string, limit int, attrs ...string) ([]*ldap.Entry, error) {
	r, err := s.conn.Search(ldap.NewSearchRequest(base, scope, ldap.NeverDerefAliases, limit, 0, false, filter, attrs, nil))
	if err != nil && !(limit > 0 && ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded) && r != nil && len(r.Entries) > 0) {
		return nil, err
	}
	return r.Entries, nil
}

// read returns one entry, or nil if there is none (or none to be seen).
func (s *session) read(dn string, attrs ...string) (*ldap.Entry, error) {
	return s.probe(dn, "(objectClass=*)", attrs...)
}

// probe returns the entry if it matches the filter. A filter about an attribute that may not be
// searched is undefined and so never matches, not even negated (RFC 4511 section 4.5.1.7).
func (s *session) probe(dn, filter string, attrs ...string) (*ldap.Entry, error) {
	found, err := s.search(dn, ldap.ScopeBaseObject, filter, 0, attrs...)
	if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) || err == nil && len(found) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return found[0], nil
}

// assertion has a modify fail (assertionFailed) unless the entry is still the one that was read: each write but a
// login's gives it another entryCSN. Without one it is nothing.
func assertion(csn string) []ldap.Control {
	if csn == "" {
		return nil
	}
	return asserting("(" + attrCSN + "=" + ldap.EscapeFilter(csn) + ")")
}

// asserting has a modify fail (assertionFailed) unless the entry matches.
func asserting(text string) []ldap.Control {
	filter, err := ldap.CompileFilter(text)
	if err != nil {
		return nil
	}
	return []ldap.Control{ldap.NewControlString(assertionOID, true, string(filter.Bytes()))}
}

// assertionOID is that of RFC 4528.
const assertionOID = "1.3.6.1.1.12"

// modifyToken writes a token's entry. While it is not known what became of a write that brings a secret, the entry is in
// doubt: that write may still arrive, unless the entry gets another entryCSN.
func (s *session) modifyToken(m *ldap.ModifyRequest) error {
	before := s.doubt[m.DN]
	s.doubt[m.DN] = before || slices.ContainsFunc(m.Changes, func(c ldap.Change) bool {
		return c.Modification.Type == attrSecret && len(c.Modification.Vals) > 0
	})
	err := s.conn.Modify(m)
	if isAnswer(err) {
		s.doubt[m.DN] = before
	}
	if err == nil || !s.doubt[m.DN] {
		delete(s.doubt, m.DN)
	}
	return err
}

func isAnswer(err error) bool {
	return !isNetwork(err) && codeName(err) != "no LDAP answer"
}
