package syncer_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"tokendesk/sync/synctest"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// operation is a request as the library takes it.
type operation func(*bare) error

// bare is a connection on which requests are made again. Where one asserts that an entry has not changed since it was read,
// what it was read at is that of this connection's directory.
type bare struct {
	*ldap.Conn
	csn map[string]string // by DN
}

func dialBare(b *testing.B, s *synctest.Slapd) *bare {
	b.Helper()
	c, err := ldap.DialURL(s.URL)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	if err := c.Bind(s.BindDN, s.Password); err != nil {
		b.Fatal(err)
	}
	return &bare{c, map[string]string{}}
}

func (c *bare) replay(list []operation) error {
	for i, do := range list {
		if err := do(c); err != nil {
			return fmt.Errorf("operation %d: %w", i, err)
		}
	}
	return nil
}

// record1 has the connector make each change of a desk once, and returns what it asks the directory for, by change.
func record1(b *testing.B, s *synctest.Slapd, d *benchDesk) map[uint64][]operation {
	b.Helper()
	w := &wire{}
	url := w.listen(b, strings.TrimPrefix(s.URL, "ldap://"))
	c := d.connect(b, s, url)
	out := map[uint64][]operation{}
	for i := range d.changes {
		ch := d.changes[i]
		var seed secret.Secret
		if ch.Kind != vault.Advance {
			if err := d.v.View(func(tx *vault.Tx) (err error) { seed, err = tx.Seed(ch.Token, 1); return err }); err != nil {
				b.Fatal(err)
			}
		}
		_, err := c.Apply(b.Context(), ch, seed)
		seed.Wipe()
		if err != nil {
			b.Fatal(err)
		}
		for _, p := range w.take() {
			do, err := parseOperation(p)
			if err != nil {
				b.Fatal(err)
			}
			if do != nil {
				out[ch.Seq] = append(out[ch.Seq], do)
			}
		}
	}
	return out
}

// wire passes everything on, and keeps the requests.
type wire struct {
	mu       sync.Mutex
	requests []*ber.Packet
}

func (w *wire) take() []*ber.Packet {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := w.requests
	w.requests = nil
	return taken
}

func (w *wire) listen(b *testing.B, server string) (url string) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", server)
			if err != nil {
				client.Close()
				return
			}
			go func() { io.Copy(client, up); client.Close() }()
			go func() { w.copy(up, client); up.Close() }()
		}
	}()
	return "ldap://" + l.Addr().String()
}

func (w *wire) copy(to io.Writer, from io.Reader) {
	for {
		p, err := ber.ReadPacket(from)
		if err != nil || len(p.Children) < 2 {
			return
		}
		w.mu.Lock()
		w.requests = append(w.requests, p)
		w.mu.Unlock()
		if _, err := to.Write(p.Bytes()); err != nil {
			return
		}
	}
}

// parseOperation makes a request of its bytes (RFC 4511); nil of a bind or unbind.
func parseOperation(p *ber.Packet) (operation, error) {
	op, asserts := p.Children[1], len(p.Children) > 2
	text := func(p *ber.Packet) string { return p.Data.String() }
	switch op.Tag {
	case ldap.ApplicationBindRequest, ldap.ApplicationUnbindRequest:
		return nil, nil
	case ldap.ApplicationSearchRequest:
		filter, err := ldap.DecompileFilter(op.Children[6])
		if err != nil {
			return nil, err
		}
		dn, attrs := text(op.Children[0]), texts(op.Children[7])
		scope, limit := int(op.Children[1].Value.(int64)), int(op.Children[3].Value.(int64))
		return func(c *bare) error { return c.search(dn, scope, limit, filter, attrs) }, nil
	case ldap.ApplicationCompareRequest:
		dn, assertion := text(op.Children[0]), op.Children[1].Children
		attr, value := text(assertion[0]), text(assertion[1])
		return func(c *bare) error { return c.compare(dn, attr, value) }, nil
	case ldap.ApplicationAddRequest:
		a := ldap.NewAddRequest(text(op.Children[0]), nil)
		for _, x := range op.Children[1].Children {
			a.Attribute(text(x.Children[0]), texts(x.Children[1]))
		}
		return func(c *bare) error { return c.Add(a) }, nil
	case ldap.ApplicationModifyRequest:
		dn, changes := text(op.Children[0]), []ldap.Change{}
		for _, x := range op.Children[1].Children {
			changes = append(changes, ldap.Change{Operation: uint(x.Children[0].Value.(int64)),
				Modification: ldap.PartialAttribute{Type: text(x.Children[1].Children[0]), Vals: texts(x.Children[1].Children[1])}})
		}
		return func(c *bare) error { return c.modify(dn, changes, asserts) }, nil
	}
	return nil, fmt.Errorf("there is no way to make request %d again", op.Tag)
}

func texts(set *ber.Packet) (all []string) {
	for _, v := range set.Children {
		all = append(all, v.Data.String())
	}
	return all
}

func (c *bare) search(dn string, scope, limit int, filter string, attrs []string) error {
	r, err := c.Search(ldap.NewSearchRequest(dn, scope, ldap.NeverDerefAliases, limit, 0, false, filter, attrs, nil))
	if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) {
		return nil
	}
	if err == nil && scope == ldap.ScopeBaseObject && len(r.Entries) == 1 {
		if csn := r.Entries[0].GetAttributeValue("entryCSN"); csn != "" {
			c.csn[dn] = csn
		}
	}
	return err
}

func (c *bare) compare(dn, attr, value string) error {
	_, err := c.Compare(dn, attr, value)
	if ldap.IsErrorAnyOf(err, ldap.LDAPResultNoSuchObject, ldap.LDAPResultNoSuchAttribute) {
		return nil
	}
	return err
}

func (c *bare) modify(dn string, changes []ldap.Change, asserts bool) error {
	m := ldap.NewModifyRequest(dn, nil)
	m.Changes = changes
	if asserts {
		filter, err := ldap.CompileFilter("(entryCSN=" + ldap.EscapeFilter(c.csn[dn]) + ")")
		if err != nil {
			return err
		}
		m.Controls = []ldap.Control{ldap.NewControlString("1.3.6.1.1.12", true, string(filter.Bytes()))}
	}
	return c.Modify(m)
}
