package openldap

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// secure begins TLS, if it is to be. The library's own StartTLS would come between it and the lender.
func (p *provider) secure(ctx context.Context, raw net.Conn) (net.Conn, error) {
	if p.tls == nil {
		return raw, nil
	}
	if p.startTLS {
		if err := requestTLS(raw); err != nil {
			return nil, err
		}
	}
	secured := tls.Client(raw, p.tls)
	return secured, secured.HandshakeContext(ctx)
}

// requestTLS has the server expect TLS (RFC 4511, 4.14).
func requestTLS(conn net.Conn) error {
	operation := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationExtendedRequest, nil, "")
	operation.AppendChild(ber.NewString(ber.ClassContext, ber.TypePrimitive, 0, "1.3.6.1.4.1.1466.20037", ""))
	request := ber.NewSequence("")
	request.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, 1, ""))
	request.AppendChild(operation)
	if _, err := conn.Write(request.Bytes()); err != nil {
		return err
	}
	answer, err := ber.ReadPacket(conn)
	if err != nil {
		return err
	}
	return ldap.GetLDAPError(answer)
}

// bind says who the desk is. A refusal concerns every change alike, so it counts as unavailable:
// the entries wait and go out by themselves once the configuration is right.
func (s *session) bind(ctx context.Context) error {
	err := s.introduce()
	switch {
	case err == nil && s.cfg.external():
		return s.learnIdentity()
	case err == nil:
		s.identity = s.cfg.BindDN
		return nil
	case ctx.Err() != nil:
		return s.unavailable(ctx.Err())
	case isNetwork(err):
		// With TLS 1.3 a server's complaint about the client certificate comes after the handshake.
		if cause := s.lender.broken(); cause != nil {
			err = cause
		}
		return s.unavailable(err)
	case ldap.IsErrorAnyOf(err, ldap.LDAPResultInvalidCredentials, ldap.LDAPResultInappropriateAuthentication),
		s.cfg.external() && ldap.IsErrorWithCode(err, ldap.LDAPResultAuthMethodNotSupported):
		return s.lockedOut(s.notAccepted())
	case ldap.IsErrorAnyOf(err, ldap.LDAPResultBusy, ldap.LDAPResultUnavailable):
		return s.unavailable(fmt.Errorf("it refuses the bind: %s", codeName(err)))
	}
	return s.lockedOut(fmt.Sprintf("it refuses the bind of %s: %s", s.cfg.who(), codeName(err)))
}

func (s *session) introduce() error {
	if s.cfg.external() {
		return s.conn.ExternalBind()
	}
	password, back := s.lender.lend(s.cfg.Password)
	defer back()
	return s.conn.Bind(s.cfg.BindDN, password)
}

func (s *session) notAccepted() string {
	does := "does not accept"
	if s.bound.Load() {
		does = "no longer accepts"
	}
	switch {
	case !s.cfg.external():
		return fmt.Sprintf("it %s %s with the configured password: correct bind DN or password", does, s.cfg.BindDN)
	case s.network == "unix":
		return fmt.Sprintf("it %s this process's user on its socket (SASL EXTERNAL): run as the right user, or map it by authz-regexp", does)
	}
	return fmt.Sprintf("it %s the client certificate %s (SASL EXTERNAL): set TLSVerifyClient there, with the CA that signed it", does, s.cfg.ClientCert)
}

// learnIdentity asks whom the server took the desk for (RFC 4532).
func (s *session) learnIdentity() error {
	who, err := s.conn.WhoAmI(nil)
	if err != nil {
		return s.explain("ask who I am at", s.name, err)
	}
	dn, isDN := strings.CutPrefix(who.AuthzID, "dn:")
	switch {
	case !isDN || dn == "":
		return s.lockedOut(fmt.Sprintf("it takes %s for nobody: map it to the provisioning identity by authz-regexp", s.cfg.who()))
	case s.cfg.BindDN != "" && !sameDN(dn, s.cfg.BindDN):
		return s.lockedOut(fmt.Sprintf("it takes %s for %s, and the configured bind DN is %s: map it by authz-regexp, or correct the bind DN", s.cfg.who(), dn, s.cfg.BindDN))
	}
	s.identity = dn
	return nil
}

// who is the bind identity before the server has said its name.
func (c *Config) who() string {
	switch {
	case !c.external():
		return c.BindDN
	case c.ClientCert != "":
		return "the client certificate " + c.ClientCert
	}
	return "this process's user"
}
