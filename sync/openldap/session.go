package openldap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
)

// do runs f with the connection, bounded by ctx and the configured timeout. f runs once more, on a new
// connection, if an idle one turns out to be dead: so f must start by reading.
func (c *Connector) do(ctx context.Context, f func(*session) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	select {
	case <-c.turn:
		defer func() { c.turn <- struct{}{} }()
	case <-ctx.Done():
		return c.unavailable(ctx.Err())
	}
	if c.closed {
		return c.unavailable(errors.New("the connector is closed"))
	}
	idle := c.conn != nil && !c.conn.IsClosing()
	err := c.once(ctx, f)
	if err != nil && idle && c.conn == nil && ctx.Err() == nil {
		err = c.once(ctx, f)
	}
	return err
}

func (c *Connector) once(ctx context.Context, f func(*session) error) error {
	if c.conn == nil || c.conn.IsClosing() {
		c.drop()
		if err := c.connect(ctx); err != nil {
			c.drop()
			return err
		}
	}
	conn := c.conn
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err := f(&session{c, conn})
	if !stop() || conn.IsClosing() || isNetwork(err) {
		c.drop()
	}
	if err != nil && ctx.Err() != nil {
		return c.unavailable(ctx.Err()) // what the cut connection says is only a consequence
	}
	return err
}

// connect dials and binds. A refused bind concerns every change alike, so it counts as unavailable:
// the entries wait and go out by themselves once the configuration is right.
func (c *Connector) connect(ctx context.Context) error {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.addr)
	if err != nil {
		return c.unavailable(err)
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	secured, err := c.secure(ctx, raw)
	if err != nil {
		raw.Close()
		return c.unavailable(err)
	}
	c.lender = &lender{Conn: secured}
	conn := ldap.NewConn(c.lender, c.tls != nil)
	conn.Start()
	c.conn = conn
	password, back := c.lender.lend(c.cfg.Password)
	err = conn.Bind(c.cfg.BindDN, password)
	back()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return c.unavailable(ctx.Err())
	case ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials):
		return fmt.Errorf("%w: %s does not accept %s with the configured password: correct bind DN or password", syncer.ErrUnavailable, c.addr, c.cfg.BindDN)
	case isNetwork(err):
		return c.unavailable(err)
	}
	return fmt.Errorf("%w: %s refuses the bind of %s: %s", syncer.ErrUnavailable, c.addr, c.cfg.BindDN, codeName(err))
}

// secure begins TLS, if it is to be. The library's own StartTLS would come between it and the lender.
func (c *Connector) secure(ctx context.Context, raw net.Conn) (net.Conn, error) {
	if c.tls == nil {
		return raw, nil
	}
	if c.startTLS {
		if err := requestTLS(raw); err != nil {
			return nil, err
		}
	}
	secured := tls.Client(raw, c.tls)
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

func (c *Connector) drop() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// session is the connection while somebody has it. Its methods return raw LDAP errors; explain
// turns them into words.
type session struct {
	*Connector
	conn *ldap.Conn
}

func (s *session) search(base string, scope int, filter string, limit int, attrs ...string) ([]*ldap.Entry, error) {
	r, err := s.conn.Search(ldap.NewSearchRequest(base, scope, ldap.NeverDerefAliases, limit, 0, false, filter, attrs, nil))
	if err != nil && !(ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded) && r != nil && len(r.Entries) > 0) {
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
