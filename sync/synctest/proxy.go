package synctest

import (
	"net"
	"net/url"
	"sync"
)

// proxy is what gate, flaky server and replication link have in common: a listener on loopback, the connections that
// come in and go on, and their end.
type proxy struct {
	addr string
	done chan struct{} // closed by Close

	server func() string // where to, asked for every connection
	l      net.Listener
	wg     sync.WaitGroup
	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
}

// newProxy listens; nobody is let in before run.
func newProxy(server func() string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &proxy{addr: l.Addr().String(), done: make(chan struct{}), server: server, l: l, conns: make(map[net.Conn]bool)}, nil
}

// run has serve called for every connection that comes in; serve must drop it.
func (p *proxy) run(serve func(client net.Conn)) {
	p.wg.Go(func() {
		for {
			client, err := p.l.Accept()
			if err != nil {
				return
			}
			if p.adopt(client) {
				p.wg.Go(func() { serve(client) })
			}
		}
	})
}

// Close ends all connections and waits for them. It may be called again.
func (p *proxy) Close() {
	p.mu.Lock()
	if !p.closed {
		close(p.done)
	}
	p.closed = true
	p.l.Close()
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// dial opens a connection to the server.
func (p *proxy) dial() (net.Conn, bool) {
	c, err := net.Dial("tcp", p.server())
	return c, err == nil && p.adopt(c)
}

func (p *proxy) adopt(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

func (p *proxy) drop(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		c.Close()
		delete(p.conns, c)
	}
}

// reset drops connections so that both ends see a reset, not an orderly end.
func (p *proxy) reset(conns ...net.Conn) {
	for _, c := range conns {
		c.(*net.TCPConn).SetLinger(0)
	}
	p.drop(conns...)
}

// resetAll resets what is connected now.
func (p *proxy) resetAll() {
	p.mu.Lock()
	var all []net.Conn
	for c := range p.conns {
		all = append(all, c)
	}
	p.mu.Unlock()
	p.reset(all...)
}

// host is the address in a URL of ours.
func host(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}
