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
	attrSecret    = "oathSecret"
	attrCounter   = "oathHOTPCounter"
	attrParams    = "oathHOTPParams"
	attrSerial    = "oathTokenSerialNumber"
	attrLink      = "oathHOTPToken" // in a user's entry; the class of token entries has the same name
	attrNote      = "description"
	attrCSN       = "entryCSN"
	attrLastLogin = "oathLastLogin"
	classUser     = "oathHOTPUser"
	classToken    = "oathHOTPToken"
)

// entry is a token's entry as it was read.
type entry struct {
	dn      string
	exists  bool
	counter string // as stored, for compare-and-set; empty when absent
	next    uint64 // the next moving factor
	damaged error  // why counter is none
	origin  origin // of the seed; zero when nothing tells
	notes   []string
	params  string
	serial  string
	csn     string // says which write it was that was read; empty if it may not be read
}

func (c *Connector) tokenDN(id device.TokenID) string {
	return "cn=" + ldap.EscapeDN(id.Central()) + "," + c.cfg.TokensBase
}

func (s *session) token(id device.TokenID) (entry, error) {
	e := entry{dn: s.tokenDN(id)}
	found, err := s.read(e.dn, attrCounter, attrParams, attrSerial, attrNote, attrCSN)
	if err != nil {
		return e, s.explain("read", e.dn, err)
	}
	if found == nil {
		base, err := s.read(s.cfg.TokensBase, "1.1")
		if err != nil {
			return e, s.explain("read", s.cfg.TokensBase, err)
		}
		if base == nil { // then nothing can be said about what is below it
			return e, fmt.Errorf("%w: there is no %s, or %s may not read it: create it or give the right, see tokendesk doctor", syncer.ErrRefused, s.cfg.TokensBase, s.identity)
		}
		return e, nil
	}
	e.exists = true
	e.counter = found.GetAttributeValue(attrCounter)
	e.params = found.GetAttributeValue(attrParams)
	e.serial = found.GetAttributeValue(attrSerial)
	e.notes = found.GetAttributeValues(attrNote)
	e.csn = found.GetAttributeValue(attrCSN)
	e.origin = originOf(e.notes)
	if e.next, err = parseCounter(e.counter); err != nil {
		e.damaged = fmt.Errorf("%w: %s of %s: %w", syncer.ErrRefused, attrCounter, e.dn, err)
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

// central is the name of a token by its DN: its cn directly below TokensBase, else the DN itself.
func (c *Connector) central(dn string) string {
	token, err := ldap.ParseDN(dn)
	if err != nil || len(token.RDNs) != len(c.tokensBase.RDNs)+1 || !c.tokensBase.AncestorOfFold(token) {
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
