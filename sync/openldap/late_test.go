package openldap_test

import (
	"net"
	"strings"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
	"tokendesk/sync/synctest"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// keeper stands before a server and keeps one modify back, whatever becomes of the connection that it came over.
type keeper struct {
	net.Listener
	server string
	armed  chan struct{} // holds one value while the next modify is to be kept
	kept   chan func() uint16
}

func newKeeper(t *testing.T, s *synctest.Slapd) *keeper {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &keeper{l, strings.TrimPrefix(s.URL, "ldap://"), make(chan struct{}, 1), make(chan func() uint16, 1)}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go k.serve(client)
		}
	}()
	return k
}

func (k *keeper) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", k.server)
	if err != nil {
		return
	}
	go k.requests(client, server)
	for {
		p, err := ber.ReadPacket(server)
		if err != nil {
			return
		}
		client.Write(p.Bytes())
	}
}

func (k *keeper) requests(client, server net.Conn) {
	var bind []byte
	for {
		p, err := ber.ReadPacket(client)
		if err != nil {
			server.Close()
			return
		}
		switch p.Children[1].Tag {
		case ldap.ApplicationBindRequest:
			bind = p.Bytes()
		case ldap.ApplicationModifyRequest:
			select {
			case <-k.armed:
				k.kept <- func() uint16 { return k.send(bind, p.Bytes()) }
				continue
			default:
			}
		}
		server.Write(p.Bytes())
	}
}

// send has the server get the modify after all, from the same identity, and returns what it answers.
func (k *keeper) send(bind, modify []byte) uint16 {
	server, err := net.Dial("tcp", k.server)
	if err != nil {
		return ldap.ErrorNetwork
	}
	defer server.Close()
	server.Write(bind)
	ber.ReadPacket(server)
	server.Write(modify)
	answer, err := ber.ReadPacket(server)
	if err != nil {
		return ldap.ErrorNetwork
	}
	if e, ok := ldap.GetLDAPError(answer).(*ldap.Error); ok {
		return e.ResultCode
	}
	return ldap.LDAPResultSuccess
}

// A write that was given up and arrives late does not open what was closed meanwhile.
func TestLateWriteDoesNotReopen(t *testing.T) {
	for _, before := range []bool{false, true} { // whether a secret is there already
		s := start(t)
		k := newKeeper(t, s)
		cfg := config(s)
		cfg.URLs = []string{"ldap://" + k.Addr().String()}
		cfg.Timeout = 300 * time.Millisecond
		c, seed := connect(t, cfg), secret.Random(20)
		apply(t, c, secret.Secret{}, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
		if before {
			apply(t, c, secret.Random(20), change(vault.Put, "alice", 0))
		}
		k.armed <- struct{}{}
		_, err := c.Apply(t.Context(), change(vault.Put, "alice", 0), seed)
		wantError(t, err, syncer.ErrUnavailable)
		arrive := <-k.kept
		apply(t, c, secret.Secret{}, change(vault.Disable, "alice", 0))
		if code := arrive(); code != ldap.LDAPResultAssertionFailed {
			t.Errorf("a late write is answered with %d", code)
		}
		for n := range uint64(3) {
			noLogin(t, s, "alice", seed, n, "the token was disabled")
		}
	}
}
