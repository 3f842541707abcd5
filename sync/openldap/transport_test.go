package openldap_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
	"tokendesk/sync/openldap"
	"tokendesk/sync/synctest"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// What is wrong with a certificate is said, whether it is the first connection or a later one.
func TestCertificates(t *testing.T) {
	s := start(t)
	cfg := config(s)
	cfg.URLs, cfg.CAFile = []string{s.TLSURL}, s.CAFile
	used := connect(t, cfg)
	apply(t, used, secret.Random(20), change(vault.Put, "", 0))
	host := used.Providers()[0]
	for _, c := range []struct {
		kind  synctest.Certificate
		words []string
	}{
		{synctest.Expired, []string{host, "expired on", "clock", "renew"}},
		{synctest.OtherHost, []string{host, "another host", "ldap.example.net", "URL"}},
		{synctest.UnknownCA, []string{host, cfg.CAFile, "do not trust"}},
	} {
		if err := s.Recertify(c.kind); err != nil {
			t.Fatal(err)
		}
		for _, conn := range []*openldap.Connector{used, connect(t, cfg)} {
			_, err := conn.Apply(t.Context(), change(vault.Advance, "", 9), secret.Secret{})
			wantError(t, err, syncer.ErrUnavailable, append(c.words, "certificate")...)
		}
	}
	if err := s.Recertify(synctest.Valid); err != nil {
		t.Fatal(err)
	}
	apply(t, used, secret.Secret{}, change(vault.Advance, "", 9))
	cfg.CAFile = ""
	_, err := connect(t, cfg).Observe(t.Context(), token)
	wantError(t, err, syncer.ErrUnavailable, "the system's CAs", "name the CA file")
}

// One of two providers lets nobody in: the change is made at the other one, and is not delivered.
func TestOneProviderLockedOut(t *testing.T) {
	p := startPair(t)
	cfg := toPair(p, p.Providers[0].TLSURL, p.Providers[1].TLSURL)
	cfg.CAFile = p.Providers[0].CAFile
	c, seed := connect(t, cfg), secret.Random(20)
	apply(t, c, seed, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
	if err := p.Providers[1].Recertify(synctest.Expired); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []vault.ChangeKind{vault.Advance, vault.Disable} {
		_, err := c.Apply(t.Context(), change(kind, "alice", 5), seed)
		wantError(t, err, syncer.ErrUnavailable, c.Providers()[1], "expired")
	}
	noLogin(t, p.Providers[0], "alice", seed, 5, "what can be closed is")
	if seen, err := c.Observe(t.Context(), token); err != nil || seen.Enabled || seen.Counter != 5 {
		t.Errorf("the service shows %+v, %v", seen, err)
	}
	if err := p.Providers[1].Recertify(synctest.Valid); err != nil {
		t.Fatal(err)
	}
	apply(t, c, seed, change(vault.Disable, "alice", 5))
}

func setPassword(t *testing.T, s *synctest.Slapd, password string) {
	t.Helper()
	if err := s.AsAdmin(func(c *ldap.Conn) error {
		m := ldap.NewModifyRequest(s.BindDN, nil)
		m.Replace("userPassword", []string{password})
		return c.Modify(m)
	}); err != nil {
		t.Fatal(err)
	}
}

func TestPasswordIsChangedInMidRun(t *testing.T) {
	s := start(t)
	c := connect(t, config(s))
	apply(t, c, secret.Random(20), change(vault.Put, "", 0))
	setPassword(t, s, "another one")
	apply(t, c, secret.Secret{}, change(vault.Advance, "", 3)) // who is in stays in
	s.Stop()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	_, err := c.Apply(t.Context(), change(vault.Advance, "", 6), secret.Secret{})
	wantError(t, err, syncer.ErrUnavailable, s.BindDN, "no longer accepts", "password")
	noSecret(t, err.Error(), []byte(s.Password))
	setPassword(t, s, s.Password)
	apply(t, c, secret.Secret{}, change(vault.Advance, "", 6))
}

// external has the server know the desk by something else than a password.
func external(s *synctest.Slapd, url string) openldap.Config {
	cfg := config(s)
	cfg.URLs, cfg.Password, cfg.BindDN = []string{url}, secret.Secret{}, ""
	return cfg
}

func TestExternal(t *testing.T) {
	s := start(t)
	byTLS := external(s, s.TLSURL)
	byTLS.CAFile, byTLS.ClientCert, byTLS.ClientKey = s.CAFile, s.ClientCert, s.ClientKey
	byStartTLS := byTLS
	byStartTLS.URLs, byStartTLS.StartTLS = []string{s.URL}, true
	named := byTLS
	named.BindDN = s.BindDN
	for name, cfg := range map[string]openldap.Config{"ldaps": byTLS, "StartTLS": byStartTLS, "ldapi": external(s, s.LDAPIURL), "named": named} {
		t.Run(name, func(t *testing.T) {
			c, seed := connect(t, cfg), secret.Random(20)
			seen := apply(t, c, seed, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
			login(t, s, "alice", seed, seen.Counter)
			apply(t, c, seed, change(vault.Unassign, "alice", 0))
			for _, p := range c.Check(t.Context()) {
				t.Errorf("%s (cure: %s)", p.What, p.Cure)
			}
		})
	}
	t.Run("both in one", func(t *testing.T) {
		cfg := byTLS
		cfg.URLs = []string{s.LDAPIURL, s.TLSURL}
		if seen, err := connect(t, cfg).Observe(t.Context(), token); err != nil || !seen.Exists {
			t.Errorf("%+v, %v", seen, err)
		}
	})
	t.Run("with a password", func(t *testing.T) {
		cfg := config(s)
		cfg.URLs = []string{s.LDAPIURL}
		if seen, err := connect(t, cfg).Observe(t.Context(), token); err != nil || !seen.Exists {
			t.Errorf("%+v, %v", seen, err)
		}
	})
	t.Run("as somebody else", func(t *testing.T) {
		cfg := named
		cfg.BindDN = s.AdminDN
		_, err := connect(t, cfg).Observe(t.Context(), token)
		wantError(t, err, syncer.ErrUnavailable, s.BindDN, s.AdminDN, "authz-regexp")
	})
	t.Run("no certificate is asked for", func(t *testing.T) {
		s := start(t)
		rewrite(t, s, "TLSVerifyClient try", "TLSVerifyClient never")
		cfg := external(s, s.TLSURL)
		cfg.CAFile, cfg.ClientCert, cfg.ClientKey = s.CAFile, s.ClientCert, s.ClientKey
		_, err := connect(t, cfg).Observe(t.Context(), token)
		wantError(t, err, syncer.ErrUnavailable, "client certificate", "TLSVerifyClient")
	})
	t.Run("a certificate of another CA", func(t *testing.T) {
		stranger := start(t)
		rewrite(t, s, "TLSVerifyClient try", "TLSVerifyClient demand")
		cfg := byTLS
		cfg.ClientCert, cfg.ClientKey = stranger.ClientCert, stranger.ClientKey
		_, err := connect(t, cfg).Observe(t.Context(), token)
		wantError(t, err, syncer.ErrUnavailable, "client certificate")
	})
}

func TestExternalConfigRefused(t *testing.T) {
	s := start(t)
	open := filepath.Join(t.TempDir(), "key.pem")
	key, err := os.ReadFile(s.ClientKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(open, key, 0o644); err != nil {
		t.Fatal(err)
	}
	for words, spoil := range map[string]func(*openldap.Config){
		"go together":      func(c *openldap.Config) { c.ClientKey = "" },
		"not this user's":  func(c *openldap.Config) { c.ClientKey = open },
		"do not make":      func(c *openldap.Config) { c.ClientCert = s.CAFile },
		"password":         func(c *openldap.Config) { c.ClientCert, c.ClientKey = "", "" },
		"with TLS":         func(c *openldap.Config) { c.URLs = []string{s.URL} },
		"named twice":      func(c *openldap.Config) { c.URLs = append(c.URLs, c.URLs...) },
		"provider 2":       func(c *openldap.Config) { c.URLs = append(c.URLs, "ldap://ldap.example.org") },
		"no URL":           func(c *openldap.Config) { c.URLs = nil },
		"full path":        func(c *openldap.Config) { c.URLs = []string{"ldapi://slapd.sock"} },
		"ldapi://%2Frun":   func(c *openldap.Config) { c.URLs = []string{"ldapi://%zz"} },
		"cannot read the ": func(c *openldap.Config) { c.ClientCert += ".missing" },
	} {
		cfg := external(s, s.TLSURL)
		cfg.CAFile, cfg.ClientCert, cfg.ClientKey = s.CAFile, s.ClientCert, s.ClientKey
		spoil(&cfg)
		if _, err := openldap.New(cfg); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("got %v, want words %q", err, words)
		}
	}
}
