package synctest

import (
	"io"
	"net"
	"net/url"
	"sync"

	ber "github.com/go-asn1-ber/asn1-ber"
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
// before a modify arrives, say. It reads whole LDAP messages (RFC 4511 section 4.1.1).
type Gate struct {
	URL string

	server string
	l      net.Listener
	wg     sync.WaitGroup
	mu     sync.Mutex
	judge  func(op uint8) Verdict
	conns  map[net.Conn]bool
	closed bool
}

// NewGate listens on loopback and passes everything to the server. Close it.
func NewGate(s *Slapd) (*Gate, error) {
	u, err := url.Parse(s.URL)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &Gate{URL: "ldap://" + l.Addr().String(), server: u.Host, l: l, conns: make(map[net.Conn]bool)}
	g.Judge(func(uint8) Verdict { return Pass })
	g.wg.Go(g.accept)
	return g, nil
}

// Judge sets what happens to requests from now on; op is the LDAP application tag, such as
// ldap.ApplicationModifyRequest.
func (g *Gate) Judge(f func(op uint8) Verdict) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.judge = f
}

// Close ends all connections and waits for them.
func (g *Gate) Close() {
	g.mu.Lock()
	g.closed = true
	g.l.Close()
	for c := range g.conns {
		c.Close()
	}
	g.mu.Unlock()
	g.wg.Wait()
}

func (g *Gate) accept() {
	for {
		client, err := g.l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", g.server)
		if err != nil {
			client.Close()
			continue
		}
		if !g.adopt(client, server) {
			return
		}
		out := &writer{w: client}
		g.wg.Go(func() { io.Copy(out, server); g.drop(client, server) })
		g.wg.Go(func() { g.requests(client, server, out); g.drop(client, server) })
	}
}

func (g *Gate) requests(client, server net.Conn, out io.Writer) {
	for {
		p, err := ber.ReadPacket(client)
		if err != nil || len(p.Children) < 2 {
			return
		}
		g.mu.Lock()
		judge := g.judge
		g.mu.Unlock()
		op := uint8(p.Children[1].Tag)
		switch judge(op) {
		case Pass:
			if _, err := server.Write(p.Bytes()); err != nil {
				return
			}
		case Busy:
			out.Write(answer(p, ldap.LDAPResultBusy, ""))
		case Lose:
			out.Write(answer(p, ldap.LDAPResultSuccess, ""))
		case Echo:
			out.Write(answer(p, ldap.LDAPResultOther, string(p.Bytes())))
		case Cut:
			return
		}
	}
}

// answer is the LDAPResult to request p. Every response tag is the request's plus one, except that
// a search ends with SearchResultDone (5).
func answer(p *ber.Packet, code uint16, message string) []byte {
	tag := p.Children[1].Tag + 1
	if p.Children[1].Tag == ldap.ApplicationSearchRequest {
		tag = ldap.ApplicationSearchResultDone
	}
	r := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
	r.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, p.Children[0].Value, ""))
	result := ber.Encode(ber.ClassApplication, ber.TypeConstructed, tag, nil, "")
	result.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, uint64(code), ""))
	for _, s := range []string{"", message} {
		result.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, s, ""))
	}
	r.AppendChild(result)
	return r.Bytes()
}

func (g *Gate) adopt(conns ...net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range conns {
		if g.closed {
			c.Close()
			continue
		}
		g.conns[c] = true
	}
	return !g.closed
}

func (g *Gate) drop(conns ...net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range conns {
		c.Close()
		delete(g.conns, c)
	}
}

// writer keeps the server's answers and the gate's own apart.
type writer struct {
	mu sync.Mutex
	w  io.Writer
}

func (w *writer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(b)
}
