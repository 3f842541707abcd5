package openldap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

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
	if c.tls != nil && !c.startTLS {
		secured := tls.Client(raw, c.tls)
		if err := secured.HandshakeContext(ctx); err != nil {
			raw.Close()
			return c.unavailable(err)
		}
		raw = secured
	}
	conn := ldap.NewConn(raw, c.tls != nil && !c.startTLS)
	conn.Start()
	c.conn = conn
	if c.startTLS {
		if err := conn.StartTLS(c.tls); err != nil {
			return c.unavailable(err)
		}
	}
	err = conn.Bind(c.cfg.BindDN, string(c.cfg.Password.Reveal()))
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
