package openldap

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
)

// goneError says that a provider cannot be reached, or does not answer.
type goneError struct {
	addr      string
	cause     error
	unreached bool // it accepts no connection
}

// isBroken tells whether a connection broke that had been accepted: another one may do better.
func isBroken(err error) bool {
	gone := (*goneError)(nil)
	return isNetwork(err) || errors.As(err, &gone) && !gone.unreached
}

func (e *goneError) Error() string   { return syncer.ErrUnavailable.Error() + ": " + e.short() }
func (e *goneError) short() string   { return e.addr + ": " + e.cause.Error() }
func (e *goneError) Unwrap() []error { return []error{syncer.ErrUnavailable, e.cause} }

// lockedOutError says that a provider answers and does not let the desk in, so that nothing can be said about it.
type lockedOutError struct{ goneError }

// together makes one error of those of several providers, each of which says which one it is about.
func together(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	texts := make([]string, 0, len(errs))
	for _, err := range errs {
		texts = append(texts, strings.TrimPrefix(err.Error(), syncer.ErrUnavailable.Error()+": "))
	}
	return &joinedError{syncer.ErrUnavailable.Error() + ": " + strings.Join(texts, "; "), errs}
}

// withheld is together with what the others show, which does not suffice as long as those are left out.
func withheld(left []error, shown string) error {
	return &joinedError{together(left).Error() + "; until then: " + shown, left}
}

// partialError is a refusal that rests on what a provider shows: one that has seen more could lift it.
type partialError struct{ error }

func (e *partialError) Unwrap() error { return e.error }

type joinedError struct {
	text string
	errs []error
}

func (e *joinedError) Error() string   { return e.text }
func (e *joinedError) Unwrap() []error { return e.errs }

// explain turns a result code into words. What the server says besides is never repeated: a diagnostic
// message may quote the request, and requests carry secrets.
func (s *session) explain(doing, dn string, err error) error {
	var e *ldap.Error
	if err == nil || errors.Is(err, syncer.ErrRefused) || errors.Is(err, syncer.ErrUnavailable) || errors.Is(err, syncer.ErrNotConfirmed) {
		return err
	}
	if !errors.As(err, &e) || isNetwork(err) {
		return s.unavailable(err)
	}
	refused := func(why string) error {
		return fmt.Errorf("%w: cannot %s %s: %s", syncer.ErrRefused, doing, dn, why)
	}
	switch e.ResultCode {
	case ldap.LDAPResultNoSuchObject:
		return refused("there is no such entry, or the bind identity may not see it: create its base entry or give the right, see tokendesk doctor")
	case ldap.LDAPResultInsufficientAccessRights:
		return refused(s.identity + " lacks a right: add the access rules that tokendesk doctor names")
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
	case ldap.LDAPResultNotAllowedOnNonLeaf:
		return refused("it has entries below it: look what they are, and remove them first")
	case ldap.LDAPResultInvalidDNSyntax:
		return refused("the name is not a distinguished name: correct the configuration")
	case ldap.LDAPResultSizeLimitExceeded:
		return refused("too many entries match: narrow the user filter, or raise the limit: " + s.limit())
	}
	return fmt.Errorf("%w: cannot %s %s: %s", syncer.ErrUnavailable, doing, dn, codeName(err))
}

// limit is the line that lets the bind identity read everything page by page.
func (s *session) limit() string {
	return fmt.Sprintf(`limits dn.exact="%s" size.prtotal=unlimited`, s.identity)
}

// unavailable is for what happened before or instead of an answer; such errors hold addresses and
// certificate names, never contents.
func (p *provider) unavailable(err error) error {
	var e *ldap.Error
	if errors.As(err, &e) && e.Err != nil && isNetwork(err) {
		err = e.Err
	}
	if why := p.certificateTrouble(err); why != nil {
		return &lockedOutError{goneError{addr: p.name, cause: why}}
	}
	return &goneError{addr: p.name, cause: err}
}

func (p *provider) lockedOut(why string) error {
	return &lockedOutError{goneError{addr: p.name, cause: errors.New(why)}}
}

// certificateTrouble says what is wrong with a certificate, and its cure; nil if it is something else.
func (p *provider) certificateTrouble(err error) error {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verify *tls.CertificateVerificationError
	var alert *net.OpError
	now := time.Now().UTC().Format(time.DateTime)
	switch {
	case errors.As(err, &unknown):
		where := "the system's CAs; name the CA file"
		if p.cfg.CAFile != "" {
			where = p.cfg.CAFile + "; put the CA's certificate there"
		}
		return fmt.Errorf("its certificate is signed by nobody in %s, and do not trust this server until it is explained: %w", where, err)
	case errors.As(err, &host):
		return fmt.Errorf("its certificate is for another host (%s): correct the URL, or have one issued with this name: %w", hostsOf(host.Certificate), err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && time.Now().Before(invalid.Cert.NotBefore):
		return fmt.Errorf("the certificate of %q is not valid before %s, and this machine's clock says %s UTC: check the clock, here and where it was issued",
			invalid.Cert.Subject.CommonName, invalid.Cert.NotBefore.UTC().Format(time.DateTime), now)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("the certificate of %q has expired on %s, and this machine's clock says %s UTC: check the clock, and renew the certificate",
			invalid.Cert.Subject.CommonName, invalid.Cert.NotAfter.UTC().Format(time.DateTime), now)
	case errors.As(err, &verify), errors.As(err, &invalid):
		return fmt.Errorf("its certificate does not do: %w", err)
	case errors.As(err, &alert) && alert.Op == "remote error":
		return fmt.Errorf("it breaks TLS off, as for a client certificate that is missing, expired or of an unknown CA (%s): check it, and the clock: %w", p.cfg.who(), err)
	}
	return nil
}

// hostsOf are the names that a certificate is for.
func hostsOf(c *x509.Certificate) string {
	hosts := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	if len(hosts) == 0 {
		return "it names none"
	}
	return strings.Join(hosts, ", ")
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
