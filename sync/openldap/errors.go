package openldap

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
)

// explain turns a result code into words. What the server says besides is never repeated: a diagnostic
// message may quote the request, and requests carry secrets.
func (c *Connector) explain(doing, dn string, err error) error {
	var e *ldap.Error
	if err == nil || errors.Is(err, syncer.ErrRefused) || errors.Is(err, syncer.ErrUnavailable) || errors.Is(err, syncer.ErrNotConfirmed) {
		return err
	}
	if !errors.As(err, &e) || isNetwork(err) {
		return c.unavailable(err)
	}
	refused := func(why string) error {
		return fmt.Errorf("%w: cannot %s %s: %s", syncer.ErrRefused, doing, dn, why)
	}
	switch e.ResultCode {
	case ldap.LDAPResultNoSuchObject:
		return refused("there is no such entry, or the bind identity may not see it: create its base entry or give the right, see tokendesk doctor")
	case ldap.LDAPResultInsufficientAccessRights:
		return refused(c.cfg.BindDN + " lacks a right: add the access rules that tokendesk doctor names")
	case ldap.LDAPResultConstraintViolation, ldap.LDAPResultAttributeOrValueExists:
		return refused("the entry holds another value in a place for one: somebody else changed it; look at the entry and retry")
	case ldap.LDAPResultObjectClassViolation, ldap.LDAPResultNamingViolation, ldap.LDAPResultNotAllowedOnRDN, ldap.LDAPResultObjectClassModsProhibited:
		return refused("the entry's object classes do not allow it: a token needs device and oathHOTPToken, a user entry must take oathHOTPUser")
	case ldap.LDAPResultUndefinedAttributeType, ldap.LDAPResultInvalidAttributeSyntax:
		return refused("the server does not know the OATH schema: load the module otp (moduleload otp.la)")
	case ldap.LDAPResultReferral, ldap.LDAPResultUnwillingToPerform:
		return refused(codeName(err) + ": the server does not take writes here; name a provider in the URL, not a read-only copy")
	case ldap.LDAPResultStrongAuthRequired, ldap.LDAPResultConfidentialityRequired:
		return refused(codeName(err) + ": the server wants encryption; use ldaps:// or StartTLS")
	case ldap.LDAPResultInvalidDNSyntax:
		return refused("the name is not a distinguished name: correct the configuration")
	case ldap.LDAPResultSizeLimitExceeded:
		return refused("too many entries match: narrow the user filter")
	}
	return fmt.Errorf("%w: cannot %s %s: %s", syncer.ErrUnavailable, doing, dn, codeName(err))
}

// unavailable is for what happened before or instead of an answer; such errors hold addresses and
// certificate names, never contents.
func (c *Connector) unavailable(err error) error {
	var e *ldap.Error
	if errors.As(err, &e) && e.Err != nil && isNetwork(err) {
		err = e.Err
	}
	return fmt.Errorf("%w: %s: %w", syncer.ErrUnavailable, c.addr, err)
}

func isNetwork(err error) bool { return ldap.IsErrorWithCode(err, ldap.ErrorNetwork) }

func codeName(err error) string {
	var e *ldap.Error
	if !errors.As(err, &e) {
		return "no LDAP answer"
	}
	name, ok := ldap.LDAPResultCodeMap[e.ResultCode]
	if !ok {
		return fmt.Sprintf("LDAP result %d", e.ResultCode)
	}
	return fmt.Sprintf("%s (%d)", strings.ToLower(name), e.ResultCode)
}
