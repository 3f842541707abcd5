package openldap

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// A provider that cannot be reached is left alone for restFactor times as long as finding out took: one that refuses
// connections is tried again almost at once, one that lets them hang costs a fraction of the time.
const (
	restFactor = 5
	leastRest  = 50 * time.Millisecond
	mostRest   = 30 * time.Second
)

// breaks is how many connections to a provider that accepts them may break in one exchange before it counts as gone.
const breaks = 4

// provider is one directory server, reached over one connection, which is made when it is first
// needed and again after a failure.
type provider struct {
	*Connector
	endpoint

	turn   chan struct{} // holds one value; whoever took it has what follows
	now    *session      // nil when not connected
	closed bool
	doubt  map[string]bool // tokens for which a write was sent and not answered

	bound  atomic.Bool // it has let the desk in before
	mu     sync.Mutex
	rest   time.Time // it is left alone until then
	behind time.Time // replication is not waited for until then
}

func newProvider(c *Connector, e endpoint) *provider {
	p := &provider{Connector: c, endpoint: e, turn: make(chan struct{}, 1), doubt: make(map[string]bool)}
	p.turn <- struct{}{}
	return p
}

// resting tells whether the provider could not be reached a moment ago.
func (p *provider) resting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.rest)
}

// isBehind tells whether replication did not reach the provider a moment ago.
func (p *provider) isBehind() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.behind)
}

func (p *provider) setBehind() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.behind = time.Now().Add(impatience)
}

// remember notes whether the provider could be reached. That ctx ended is not its fault.
func (p *provider) remember(ctx context.Context, began time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch gone := (*goneError)(nil); {
	case !errors.As(err, &gone):
		p.rest = time.Time{}
	case ctx.Err() == nil:
		p.rest = time.Now().Add(min(max(restFactor*time.Since(began), leastRest), mostRest))
	}
}

// do runs f with the connection, bounded by ctx and the configured timeout. f runs again, on a new
// connection, if the connection breaks: so f must start by reading, or write only over what was read.
func (p *provider) do(ctx context.Context, f func(*session) error) error {
	bounded, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	select {
	case <-p.turn:
		defer func() { p.turn <- struct{}{} }()
	case <-bounded.Done():
		return p.unavailable(bounded.Err())
	}
	if p.closed {
		return p.unavailable(errors.New("the connector is closed"))
	}
	began := time.Now()
	var err error
	for range breaks {
		err = p.once(bounded, f)
		if err == nil || p.now != nil || bounded.Err() != nil || !isBroken(err) {
			break
		}
	}
	p.remember(ctx, began, err)
	return err
}

func (p *provider) once(ctx context.Context, f func(*session) error) error {
	if p.now == nil || p.now.conn.IsClosing() {
		p.drop()
		var err error
		if p.now, err = p.open(ctx); err != nil {
			return err
		}
		p.bound.Store(true)
	}
	s := p.now
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	err := f(s)
	if !stop() || s.conn.IsClosing() || isNetwork(err) {
		p.drop()
	}
	if err != nil && ctx.Err() != nil {
		return p.unavailable(ctx.Err()) // what the cut connection says is only a consequence
	}
	return err
}

// open makes a connection. Without the turn it may only be called through apart.
func (p *provider) open(ctx context.Context) (*session, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, p.network, p.addr)
	if err != nil {
		return nil, &goneError{addr: p.name, cause: err, unreached: true}
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		// A write that was given up would otherwise be sent for minutes after the connection was closed (orphaned
		// sockets, tcp(7)), also after this process ended.
		tcp.SetLinger(0)
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	secured, err := p.secure(ctx, raw)
	if err != nil {
		raw.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, p.unavailable(err)
	}
	l := &lender{Conn: secured}
	s := &session{provider: p, lender: l, conn: ldap.NewConn(l, p.tls != nil)}
	s.conn.Start()
	if err := s.bind(ctx); err != nil {
		s.conn.Close()
		return nil, err
	}
	return s, nil
}

// apart runs f with a connection of its own, so that what takes long holds up nothing else. There is no bound but ctx
// and, for connecting, the configured timeout.
func (p *provider) apart(ctx context.Context, f func(*session) error) error {
	bounded, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	s, err := p.open(bounded)
	if err != nil {
		return err
	}
	defer s.conn.Close()
	s.conn.SetTimeout(p.cfg.Timeout)
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	defer stop()
	if err = f(s); err != nil && ctx.Err() != nil {
		return p.unavailable(ctx.Err())
	}
	return err
}

func (p *provider) drop() {
	if p.now != nil {
		p.now.conn.Close()
		p.now = nil
	}
}

func (p *provider) close() {
	<-p.turn
	p.closed = true
	p.drop()
	p.turn <- struct{}{}
}

// up are the providers that are worth asking, in configured order: all, if none is.
func (c *Connector) up() []*provider {
	var up []*provider
	for _, p := range c.providers {
		if !p.resting() {
			up = append(up, p)
		}
	}
	if len(up) == 0 {
		return c.providers
	}
	return up
}
