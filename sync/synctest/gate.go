package synctest

import (
	"net"
	"sync"

	"github.com/go-ldap/ldap/v3"
)

// Verdict is what the gate does with one request.
type Verdict int

// Verdicts.
const (
	Pass Verdict = iota // hand it to the server
	Busy                // answer busy (51) instead of the server
	Lose                // drop it and say that it succeeded
	Cut                 // close the connection before the server sees it
	Echo                // refuse it (80) with a diagnostic message that repeats the whole request
)

// Gate stands between a connector and the server and lets a test act on the very request it wants:
// before a modify arrives, say. It reads whole LDAP messages, so it takes no TLS.
type Gate struct {
	URL string

	*proxy
	hook
	judging sync.Mutex
	judge   func(op uint8) Verdict
}

// NewGate listens on loopback and passes everything to the server. Close it.
func NewGate(s *Slapd) (*Gate, error) {
	p, err := newProxy(func() string { return host(s.URL) })
	if err != nil {
		return nil, err
	}
	g := &Gate{URL: "ldap://" + p.addr, proxy: p, judge: func(uint8) Verdict { return Pass }}
	g.run(g.serve)
	return g, nil
}

// Judge sets what happens to requests from now on; op is the LDAP application tag, such as
// ldap.ApplicationModifyRequest.
func (g *Gate) Judge(f func(op uint8) Verdict) {
	g.judging.Lock()
	defer g.judging.Unlock()
	g.judge = f
}

func (g *Gate) verdict(op uint8) Verdict {
	g.judging.Lock()
	judge := g.judge
	g.judging.Unlock()
	return judge(op)
}

func (g *Gate) serve(client net.Conn) {
	server, ok := g.dial()
	if !ok {
		g.drop(client)
		return
	}
	out := &writer{conn: client}
	g.wg.Go(func() {
		defer g.drop(client, server)
		for {
			m, err := readMessage(server)
			if err != nil || !out.write(m.raw) {
				return
			}
		}
	})
	defer g.drop(client, server)
	for {
		m, err := readMessage(client)
		if err != nil {
			return
		}
		switch g.verdict(m.op) {
		case Pass:
			g.meet(m.op)
			if _, err := server.Write(m.raw); err != nil {
				return
			}
		case Busy:
			out.write(answer(m, ldap.LDAPResultBusy, ""))
		case Lose:
			out.write(answer(m, ldap.LDAPResultSuccess, ""))
		case Echo:
			out.write(answer(m, ldap.LDAPResultOther, string(m.raw)))
		case Cut:
			return
		}
	}
}

// writer keeps whole messages from several sources apart.
type writer struct {
	mu   sync.Mutex
	conn net.Conn
}

func (w *writer) write(messages ...[]byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range messages {
		if _, err := w.conn.Write(m); err != nil {
			return false
		}
	}
	return true
}

// hook has something happen before a write arrives.
type hook struct {
	mu     sync.Mutex
	before func()
}

// BeforeWrite runs f once, just before the next write is handed to the server: after the connector has read what it
// writes by.
func (h *hook) BeforeWrite(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before = f
}

func (h *hook) meet(op uint8) {
	if !isWrite(op) {
		return
	}
	h.mu.Lock()
	f := h.before
	h.before = nil
	h.mu.Unlock()
	if f != nil {
		f()
	}
}
