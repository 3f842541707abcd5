package openldap_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/sync/hotpscan"
	"tokendesk/sync/openldap"
	"tokendesk/sync/synctest"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

const token device.TokenID = "yk-1234567/otp2"

const desk = "desk-A"

var tokenDN = "cn=YK1234567-2," + synctest.TokensBase

func start(t *testing.T) *synctest.Slapd {
	t.Helper()
	s, err := synctest.StartSlapd(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func gate(t *testing.T, s *synctest.Slapd) *synctest.Gate {
	t.Helper()
	g, err := synctest.NewGate(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

func config(s *synctest.Slapd) openldap.Config {
	return openldap.Config{
		URLs: []string{s.URL}, BindDN: s.BindDN, Password: secret.New([]byte(s.Password)),
		PeopleBase: synctest.PeopleBase, TokensBase: synctest.TokensBase,
		Params:  map[int]string{6: synctest.Params6, 8: synctest.Params8},
		Timeout: 5 * time.Second, Desk: desk,
	}
}

func connect(t *testing.T, cfg openldap.Config) *openldap.Connector {
	t.Helper()
	c, err := openldap.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func through(t *testing.T, s *synctest.Slapd, g *synctest.Gate) *openldap.Connector {
	t.Helper()
	cfg := config(s)
	cfg.URLs = []string{g.URL}
	return connect(t, cfg)
}

func change(kind vault.ChangeKind, user string, counter uint64) vault.Change {
	return vault.Change{Kind: kind, Token: token, User: user, Generation: 1, Counter: counter, Digits: 6}
}

func apply(t *testing.T, c *openldap.Connector, seed secret.Secret, changes ...vault.Change) syncer.Observation {
	t.Helper()
	var seen syncer.Observation
	for _, ch := range changes {
		var err error
		if seen, err = c.Apply(t.Context(), ch, seed); err != nil {
			t.Fatalf("%s: %v", ch.Kind, err)
		}
	}
	return seen
}

func wantError(t *testing.T, err, kind error, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("got %v, want %q", err, kind)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not name %q", err, w)
		}
	}
}

func TestConformance(t *testing.T) {
	synctest.Conformance(t, func(t *testing.T) (syncer.Connector, synctest.Service) {
		s := start(t)
		g := gate(t, s)
		return through(t, s, g), s.Service(g)
	})
}

func TestConformanceOverTLS(t *testing.T) {
	for _, startTLS := range []bool{false, true} {
		s := start(t)
		cfg := config(s)
		cfg.CAFile, cfg.StartTLS = s.CAFile, startTLS
		if !startTLS {
			cfg.URLs = []string{s.TLSURL}
		}
		c, seed := connect(t, cfg), secret.Random(20)
		apply(t, c, seed, change(vault.Put, "", 0), change(vault.Assign, "alice", 0))
		if err := s.Login("alice", hotpscan.Code(seed, 6, 0)); err != nil {
			t.Error(err)
		}
		stranger := start(t)
		cfg.CAFile = stranger.CAFile
		_, err := connect(t, cfg).Observe(t.Context(), token)
		wantError(t, err, syncer.ErrUnavailable, "certificate")
	}
}

func TestConfigRefused(t *testing.T) {
	good := func() openldap.Config {
		return openldap.Config{URLs: []string{"ldaps://ldap.example.org"}, BindDN: "cn=p", Password: secret.New([]byte("p")),
			PeopleBase: "ou=p", TokensBase: "ou=t", Params: map[int]string{6: "cn=6"}}
	}
	if _, err := openldap.New(good()); err != nil {
		t.Fatal(err)
	}
	notPEM := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(notPEM, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for words, spoil := range map[string]func(*openldap.Config){
		"clear text":       func(c *openldap.Config) { c.URLs = []string{"ldap://ldap.example.org"} },
		"in clear text":    func(c *openldap.Config) { c.URLs = []string{"ldap://127.example.org:389"} },
		"choose one":       func(c *openldap.Config) { c.StartTLS = true },
		"scheme":           func(c *openldap.Config) { c.URLs = []string{"https://ldap.example.org"} },
		"form":             func(c *openldap.Config) { c.URLs = []string{"ldaps://user:hunter2@ldap.example.org"} },
		"and nothing more": func(c *openldap.Config) { c.URLs = []string{"ldaps://"} },
		"CA file":          func(c *openldap.Config) { c.CAFile = notPEM + ".missing" },
		"no PEM":           func(c *openldap.Config) { c.CAFile = notPEM },
		"password":         func(c *openldap.Config) { c.Password = secret.Secret{} },
		"bind DN":          func(c *openldap.Config) { c.BindDN = "" },
		"people base":      func(c *openldap.Config) { c.PeopleBase = "people" },
		"tokens base":      func(c *openldap.Config) { c.TokensBase = "=" },
		"oathHOTPParams":   func(c *openldap.Config) { c.Params = nil },
		"6 to 8 digits":    func(c *openldap.Config) { c.Params = map[int]string{9: "cn=9"} },
		"one attribute":    func(c *openldap.Config) { c.UserFilter = "(uid=*)" },
		"compare":          func(c *openldap.Config) { c.UserFilter = "(|(uid=%s)(mail=%s))" },
		"one word":         func(c *openldap.Config) { c.Desk = "front desk" },
		"RFC 4515":         func(c *openldap.Config) { c.UserFilter = "(uid=%s)(" },
	} {
		cfg := good()
		spoil(&cfg)
		_, err := openldap.New(cfg)
		if err == nil || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v, want words %q", err, words)
		}
	}
}

func TestUserFilterIsEscapedAndNamesTheOwner(t *testing.T) {
	s := start(t)
	cfg := config(s)
	cfg.UserFilter = "(&(objectClass=inetOrgPerson)(sn=%s))"
	c := connect(t, cfg)
	seen := apply(t, c, secret.Random(20), change(vault.Put, "", 0), change(vault.Assign, "bob", 0))
	if seen.Owner != "bob" {
		t.Errorf("the owner is %q", seen.Owner)
	}
	_, err := c.FindUser(t.Context(), "b*")
	wantError(t, err, syncer.ErrRefused, `"b*"`, synctest.PeopleBase)
}

func TestSchemaAllowsOneTokenPerUser(t *testing.T) {
	s := start(t)
	apply(t, connect(t, config(s)), secret.Random(20), change(vault.Put, "", 0), change(vault.Assign, "alice", 0))
	err := s.AsAdmin(func(c *ldap.Conn) error {
		m := ldap.NewModifyRequest(synctest.UserDN("alice"), nil)
		m.Add("oathHOTPToken", []string{"cn=second," + synctest.TokensBase})
		return c.Modify(m)
	})
	if !ldap.IsErrorWithCode(err, ldap.LDAPResultConstraintViolation) {
		t.Errorf("a second value: %v", err)
	}
}

// TestProvisionerCannotReadSeeds holds the package comment to its word: compare, but not read, search or substring search.
func TestProvisionerCannotReadSeeds(t *testing.T) {
	s := start(t)
	apply(t, connect(t, config(s)), secret.New([]byte("12345678901234567890")), change(vault.Put, "", 0))
	conn, err := ldap.DialURL(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Bind(s.BindDN, s.Password); err != nil {
		t.Fatal(err)
	}
	for _, filter := range []string{"(oathSecret=*)", "(oathSecret=1*)", "(oathSecret=12345678901234567890)", "(!(oathSecret=2*))"} {
		r, err := conn.Search(ldap.NewSearchRequest(synctest.TokensBase, ldap.ScopeWholeSubtree, 0, 0, 0, false, filter, nil, nil))
		if err != nil || len(r.Entries) != 0 {
			t.Errorf("%s: %d entries, %v", filter, len(r.Entries), err)
		}
	}
	r, err := conn.Search(ldap.NewSearchRequest(tokenDN, ldap.ScopeBaseObject, 0, 0, 0, false, "(objectClass=*)", []string{"*", "+", "oathSecret"}, nil))
	if err != nil || len(r.Entries) != 1 || len(r.Entries[0].GetRawAttributeValue("oathSecret")) != 0 {
		t.Errorf("the entry shows its secret, or nothing: %v", err)
	}
}

func TestSeveralUsersLinkOneToken(t *testing.T) {
	s := start(t)
	c, seed := connect(t, config(s)), secret.Random(20)
	apply(t, c, seed, change(vault.Put, "", 0), change(vault.Assign, "alice", 0))
	if err := s.AsAdmin(func(c *ldap.Conn) error {
		m := ldap.NewModifyRequest(synctest.UserDN("bob"), nil)
		m.Add("objectClass", []string{"oathHOTPUser"})
		m.Add("oathHOTPToken", []string{strings.ToUpper(tokenDN)})
		return c.Modify(m)
	}); err != nil {
		t.Fatal(err)
	}
	_, err := c.Observe(t.Context(), token)
	wantError(t, err, syncer.ErrRefused, "alice", "bob", "YK1234567-2")
	if seen := apply(t, c, seed, change(vault.Unassign, "alice", 0)); seen.Owner != "" {
		t.Errorf("still owned by %q", seen.Owner)
	}
	if s.Login("bob", hotpscan.Code(seed, 6, 0)) == nil {
		t.Error("bob still logs in")
	}
}

// A description that people wrote, or lost, neither disappears nor confuses generations.
func TestDescriptions(t *testing.T) {
	s := start(t)
	c, seed := connect(t, config(s)), secret.Random(20)
	describe := func(values ...string) {
		t.Helper()
		if err := s.AsAdmin(func(c *ldap.Conn) error {
			m := ldap.NewModifyRequest(tokenDN, nil)
			m.Replace("description", values)
			return c.Modify(m)
		}); err != nil {
			t.Fatal(err)
		}
	}
	apply(t, c, seed, change(vault.Put, "", 50))
	describe("in the drawer", "Tokendesk  Generation 1")
	if seen := apply(t, c, seed, change(vault.Put, "", 10)); seen.Counter != 50 {
		t.Errorf("the counter went from 50 to %d", seen.Counter)
	}
	describe("in the drawer")
	if seen := apply(t, c, seed, change(vault.Put, "", 10)); seen.Counter != 50 {
		t.Errorf("same secret without a note: the counter went from 50 to %d", seen.Counter)
	}
	describe("in the drawer")
	if seen := apply(t, c, secret.Random(20), change(vault.Put, "", 10)); seen.Counter != 10 {
		t.Errorf("another secret without a note: the counter is %d, want 10", seen.Counter)
	}
	if err := s.AsAdmin(func(c *ldap.Conn) error {
		same, err := c.Compare(tokenDN, "description", "in the drawer")
		if err == nil && !same {
			err = errors.New("the note of the people is gone")
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

func TestConcurrentUse(t *testing.T) {
	s := start(t)
	c := connect(t, config(s))
	failed := make(chan error)
	for i := range 6 {
		go func() {
			ch := change(vault.Put, "", uint64(i))
			ch.Token = device.SlotToken(device.YubiKeyID(device.Serial(i)), 1)
			_, err := c.Apply(t.Context(), ch, secret.Random(20))
			failed <- err
		}()
	}
	for range 6 {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Observe(ctx, token)
	wantError(t, err, context.Canceled)
}
