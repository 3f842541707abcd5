package synctest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/sync/hotpscan"
	"tokendesk/sync/synctest"
	"tokendesk/vault/secret"
)

const central = "YK1234567-2"

var tokenDN = "cn=" + central + "," + synctest.TokensBase

func startPair(t *testing.T) *synctest.Pair {
	t.Helper()
	p, err := synctest.StartPair(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

func start(t *testing.T) *synctest.Slapd {
	t.Helper()
	s, err := synctest.StartSlapd(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// asProvisioner lends a connection with the desk's rights.
func asProvisioner(t *testing.T, s *synctest.Slapd, address string) *ldap.Conn {
	t.Helper()
	c, err := ldap.DialURL(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetTimeout(10 * time.Second)
	if err := c.Bind(s.BindDN, s.Password); err != nil {
		t.Fatal(err)
	}
	return c
}

func addToken(t *testing.T, c *ldap.Conn, seed secret.Secret) {
	t.Helper()
	a := ldap.NewAddRequest(tokenDN, nil)
	a.Attribute("objectClass", []string{"device", "oathHOTPToken"})
	a.Attribute("oathSecret", []string{string(seed.Reveal())})
	a.Attribute("oathHOTPParams", []string{synctest.Params6})
	if err := c.Add(a); err != nil {
		t.Fatal(err)
	}
	m := ldap.NewModifyRequest(synctest.UserDN("alice"), nil)
	m.Add("objectClass", []string{"oathHOTPUser"})
	m.Add("oathHOTPToken", []string{tokenDN})
	if err := c.Modify(m); err != nil {
		t.Fatal(err)
	}
}

func describe(t *testing.T, c *ldap.Conn, text string) {
	t.Helper()
	m := ldap.NewModifyRequest(tokenDN, nil)
	m.Replace("description", []string{text})
	if err := c.Modify(m); err != nil {
		t.Fatal(err)
	}
}

func description(t *testing.T, s *synctest.Slapd) (text string) {
	t.Helper()
	if err := s.AsAdmin(func(c *ldap.Conn) error {
		r, err := c.Search(ldap.NewSearchRequest(tokenDN, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)", []string{"description"}, nil))
		if err == nil {
			text = r.Entries[0].GetAttributeValue("description")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return text
}

func await(t *testing.T, p *synctest.Pair) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := p.AwaitSync(ctx); err != nil {
		t.Fatal(err)
	}
}

func stored(t *testing.T, s *synctest.Slapd, want int64) {
	t.Helper()
	if got, err := s.Stored(central); err != nil || got != want {
		t.Fatalf("the counter at server %d is %d, %v, want %d", s.Peer.ServerID, got, err, want)
	}
}

func login(t *testing.T, s *synctest.Slapd, seed secret.Secret, n uint64) {
	t.Helper()
	if err := s.Login("alice", hotpscan.Code(seed, 6, n)); err != nil {
		t.Fatalf("login with code %d at server %d: %v", n, s.Peer.ServerID, err)
	}
}

// The suite is about this: OpenLDAP 2.5 does not replicate what a login does to a counter, and takes it back with the next
// write elsewhere.
func TestHazardIsReal(t *testing.T) {
	p, seed := startPair(t), secret.Random(20)
	first, second := p.Providers[0], p.Providers[1]
	c := asProvisioner(t, first, first.URL)
	addToken(t, c, seed)
	await(t, p)
	login(t, second, seed, 5)
	stored(t, second, 5)
	stored(t, first, -1)
	login(t, first, seed, 3) // what was used there is good here
	describe(t, c, "a naive write, which says nothing of the counter")
	await(t, p)
	stored(t, second, 3)
	login(t, second, seed, 5) // and there again
	came, err := second.Writes(second.AdminDN)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(came, func(w synctest.Write) bool {
		return w.Lowers() && *w.Counter == synctest.CounterChange{Old: 5, New: 3}
	}) {
		t.Errorf("the access log does not show how it was taken back: %v", came[len(came)-3:])
	}

	// A write that has the highest counter in it takes nobody back.
	m := ldap.NewModifyRequest(tokenDN, nil)
	m.Replace("description", []string{"a careful one"})
	m.Replace("oathHOTPCounter", []string{"5"})
	if err := c.Modify(m); err != nil {
		t.Fatal(err)
	}
	await(t, p)
	for _, s := range p.Providers {
		stored(t, s, 5)
		if s.Login("alice", hotpscan.Code(seed, 6, 5)) == nil {
			t.Errorf("server %d takes a used code", s.Peer.ServerID)
		}
	}
}

func TestPairCutAndHealed(t *testing.T) {
	p := startPair(t)
	seed := secret.Random(20)
	ends := [2]*ldap.Conn{asProvisioner(t, p.Providers[0], p.Providers[0].URL), asProvisioner(t, p.Providers[1], p.Providers[1].URL)}
	addToken(t, ends[0], seed)
	await(t, p)
	for _, kind := range []synctest.CutKind{synctest.Vanish, synctest.Reset} {
		for i := range ends { // in both directions
			text := []string{"vanish", "reset"}[kind] + []string{" one", " two"}[i]
			before := description(t, p.Providers[1-i])
			p.Cut(kind)
			describe(t, ends[i], text) // clients notice nothing
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			if err := p.AwaitSync(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("%s: it was replicated over a cut line: %v", text, err)
			}
			cancel()
			if got := description(t, p.Providers[1-i]); got != before {
				t.Fatalf("%s went over a cut line", got)
			}
			p.Heal()
			await(t, p)
			if got := description(t, p.Providers[1-i]); got != text {
				t.Fatalf("after healing it has %q, want %q", got, text)
			}
		}
	}
}

func TestProviderAlone(t *testing.T) {
	p := startPair(t)
	addToken(t, asProvisioner(t, p.Providers[0], p.Providers[0].URL), secret.Random(20))
	await(t, p)
	for i, s := range p.Providers {
		other := p.Providers[1-i]
		s.Stop()
		describe(t, asProvisioner(t, other, other.URL), "while it was down")
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		await(t, p)
		if got := description(t, s); got != "while it was down" {
			t.Errorf("after its return server %d has %q", s.Peer.ServerID, got)
		}
	}
}

// However it is proven who the desk is: it is the provisioner, at either server.
func TestIdentities(t *testing.T) {
	p := startPair(t)
	for _, s := range p.Providers {
		c := asProvisioner(t, p.Providers[0], s.URL) // one configuration fits both
		whoIs(t, c, s.BindDN)

		local, err := ldap.DialURL(strings.ReplaceAll(s.LDAPIURL, "%2F", "/"))
		if err != nil {
			t.Fatal(err)
		}
		defer local.Close()
		if err := local.ExternalBind(); err != nil {
			t.Fatal(err)
		}
		whoIs(t, local, s.BindDN)

		cert, err := tls.LoadX509KeyPair(s.ClientCert, s.ClientKey)
		if err != nil {
			t.Fatal(err)
		}
		secured, err := ldap.DialURL(s.TLSURL, ldap.DialWithTLSConfig(&tls.Config{RootCAs: roots(t, s), Certificates: []tls.Certificate{cert}}))
		if err != nil {
			t.Fatal(err)
		}
		defer secured.Close()
		if err := secured.ExternalBind(); err != nil {
			t.Fatal(err)
		}
		whoIs(t, secured, s.BindDN)
	}
}

func whoIs(t *testing.T, c *ldap.Conn, want string) {
	t.Helper()
	if r, err := c.WhoAmI(nil); err != nil || r.AuthzID != "dn:"+want {
		t.Errorf("the server takes the desk for %+v, %v, want %s", r, err, want)
	}
}

func roots(t *testing.T, s *synctest.Slapd) *x509.CertPool {
	t.Helper()
	pem, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate in", s.CAFile)
	}
	return pool
}

func TestCertificates(t *testing.T) {
	s := start(t)
	for _, c := range []struct {
		kind synctest.Certificate
		word string
	}{{synctest.Expired, "expired"}, {synctest.OtherHost, "127.0.0.1"}, {synctest.UnknownCA, "unknown authority"}, {synctest.Valid, ""}} {
		if err := s.Recertify(c.kind); err != nil {
			t.Fatal(err)
		}
		conn, err := ldap.DialURL(s.TLSURL, ldap.DialWithTLSConfig(&tls.Config{RootCAs: roots(t, s)}))
		switch {
		case c.word == "" && err != nil:
			t.Error(err)
		case c.word == "":
			conn.Close()
		case err == nil || !strings.Contains(err.Error(), c.word):
			t.Errorf("got %v, want %q", err, c.word)
		}
	}
}
