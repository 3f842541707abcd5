package openldap_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/sync/openldap"
	"tokendesk/sync/synctest"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// rewrite restarts the server with another configuration.
func rewrite(t *testing.T, s *synctest.Slapd, old, new string) {
	t.Helper()
	s.Stop()
	path := filepath.Join(s.Dir(), "slapd.conf")
	conf, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(conf), old) {
		t.Fatalf("the configuration has no %q", old)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(conf), old, new)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
}

func TestCheckNamesEveryMissingRight(t *testing.T) {
	s := start(t)
	by := `by dn.exact="` + s.BindDN + `" `
	tokens := `access to dn.subtree="` + synctest.TokensBase + `" ` + by + "write"
	people := `access to dn.subtree="` + synctest.PeopleBase + `" attrs=objectClass,oathHOTPToken ` + by + "write"
	secrets := "access to attrs=oathSecret " + by + "=wc"
	original := func(c *openldap.Config) {}
	for _, c := range []struct {
		name     string
		old, new string
		config   func(*openldap.Config)
		what     string
		cure     string
	}{
		{"secret not writable", by + "=wc", by + "=c", original, "may not write oathSecret", secrets},
		{"secret not comparable", by + "=wc", by + "=w", original, "may not compare oathSecret", secrets},
		{"tokens not writable", "access to dn.subtree=\"ou=tokens", "access to dn.subtree=\"ou=tokens," + synctest.BaseDN + "\" " + by + "read\naccess to dn.subtree=\"ou=tokens", original, "may not add token entries", tokens},
		{"tokens not deletable", "access to dn.subtree=\"ou=tokens", "access to dn.subtree=\"ou=tokens," + synctest.BaseDN + "\" attrs=children " + by + "=rscxda\naccess to dn.subtree=\"ou=tokens", original, "may not delete cn=tokendesk-check-1", tokens},
		{"counter not writable", "access to dn.subtree=\"ou=tokens", "access to attrs=oathHOTPCounter " + by + "read\naccess to dn.subtree=\"ou=tokens", original, "may not write oathHOTPCounter", tokens},
		{"counter not readable", "access to dn.subtree=\"ou=tokens", "access to attrs=oathHOTPCounter " + by + "=w\naccess to dn.subtree=\"ou=tokens", original, "may not read and search oathHOTPCounter", tokens},
		{"links not writable", "attrs=objectClass,oathHOTPToken", "attrs=objectClass", original, "may not write oathHOTPToken", people},
		{"classes not writable", "attrs=objectClass,oathHOTPToken", "attrs=oathHOTPToken", original, "may not write objectClass", people},
		{"links not searchable", "attrs=objectClass,oathHOTPToken", "attrs=oathHOTPToken " + by + "=w\naccess to attrs=objectClass", original, "may not read and search oathHOTPToken", people},
		{"people not visible", "access to *", "access to attrs=uid by * none\naccess to *", original, "sees no user", "attrs=entry,children,uid"},
		{"no people base", "", "", func(c *openldap.Config) { c.PeopleBase = "ou=none," + synctest.BaseDN }, "there is no ou=none", "create it"},
		{"no tokens base", "", "", func(c *openldap.Config) { c.TokensBase = "ou=none," + synctest.BaseDN }, "there is no ou=none", "create it"},
		{"no params", "", "", func(c *openldap.Config) { c.Params = map[int]string{6: "cn=none," + synctest.TokensBase} }, "there is no cn=none", "oathOTPLength: 6"},
		{"wrong params", "", "", func(c *openldap.Config) { c.Params = map[int]string{6: synctest.Params8} }, `oathOTPLength "8"`, "oathOTPLength to 6"},
		{"wrong password", "", "", func(c *openldap.Config) { c.Password = secret.New([]byte("wrong")) }, "does not accept", "password"},
		{"no server", "", "", func(c *openldap.Config) { c.URLs = []string{"ldap://127.0.0.1:1"} }, "refused", "start the server"},
		{"mail in another attribute", "", "", func(c *openldap.Config) { c.MailAttribute = "mailbox" }, "sees no mail address", `attrs=mailbox ` + by + "read"},
		{"overlay off", "overlay otp", "database config\nrootdn " + s.BindDN, original, "overlay does not run", "overlay otp"},
		{"overlay on", "overlay otp", "overlay otp\n\ndatabase config\nrootdn " + s.BindDN, original, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t)
			if c.old != "" {
				rewrite(t, s, c.old, c.new)
			}
			cfg := config(s)
			c.config(&cfg)
			var texts []string
			for _, p := range connect(t, cfg).Check(t.Context()) {
				if c.what != "" && strings.Contains(p.What, c.what) && strings.Contains(p.Cure, c.cure) {
					return
				}
				texts = append(texts, p.What+" -> "+p.Cure)
			}
			if c.what != "" || len(texts) > 0 {
				t.Errorf("got\n%s\nwant %s -> %s", strings.Join(texts, "\n"), c.what, c.cure)
			}
		})
	}
}

// The cure that Check gives, followed to the letter, cures.
func TestCheckCuresWork(t *testing.T) {
	s := start(t)
	conf := filepath.Join(s.Dir(), "slapd.conf")
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	rules := string(text)[strings.Index(string(text), "access to attrs=oathSecret"):strings.Index(string(text), "overlay otp")]
	rewrite(t, s, rules, "access to attrs=oathSecret by * none\naccess to * by * read\n\n")
	seen := make(map[string]bool)
	for {
		c := connect(t, config(s))
		problems := c.Check(t.Context())
		c.Close()
		if len(problems) == 0 {
			break
		}
		for _, p := range problems {
			line, _, _ := strings.Cut(p.Cure, " (")
			if seen[line] {
				continue
			}
			seen[line] = true
			rewrite(t, s, "\naccess to * by * read", "\n"+line+"\naccess to * by * read") // in the order given
			if strings.Contains(line, "attrs=oathSecret") {
				rewrite(t, s, "access to attrs=oathSecret by * none\n", "")
			}
		}
		if len(seen) > 6 {
			t.Fatalf("still there: %v", problems)
		}
	}
	if len(seen) != 3 {
		t.Errorf("%d rules were asked for: %v", len(seen), seen)
	}
	apply(t, connect(t, config(s)), secret.Random(20), change(vault.Put, "", 0), change(vault.Assign, "alice", 0),
		change(vault.Disable, "", 0), change(vault.Enable, "alice", 0), change(vault.Unassign, "alice", 0), change(vault.Remove, "", 0))
}

// Where there is a token, the right to delete is tried on it; and it stays.
func TestCheckOfTheRightToDelete(t *testing.T) {
	s, seed := start(t), secret.Random(20)
	c := connect(t, config(s))
	apply(t, c, seed, change(vault.Put, "alice", 0), change(vault.Assign, "alice", 0))
	for _, p := range c.Check(t.Context()) {
		t.Error(p)
	}
	login(t, s, "alice", seed, 0)
	rule := `access to dn.subtree="ou=tokens`
	rewrite(t, s, rule, `access to dn.subtree="`+synctest.TokensBase+`" attrs=entry by dn.exact="`+s.BindDN+`" =rscxda`+"\n"+rule)
	problems := c.Check(t.Context())
	if len(problems) != 1 || !strings.Contains(problems[0].What, "may not delete "+tokenDN) || !strings.Contains(problems[0].Cure, "write") {
		t.Errorf("without the right: %v", problems)
	}
	login(t, s, "alice", seed, 1)
}

// Without any token there is nothing to try rights on; what Check makes for that purpose does not stay.
func TestCheckLeavesNothingBehind(t *testing.T) {
	s := start(t)
	for _, p := range connect(t, config(s)).Check(t.Context()) {
		t.Error(p)
	}
	if err := s.AsAdmin(func(c *ldap.Conn) error {
		r, err := c.Search(ldap.NewSearchRequest(synctest.TokensBase, ldap.ScopeWholeSubtree, 0, 0, 0, false, "(objectClass=oathHOTPToken)", nil, nil))
		if err == nil && len(r.Entries) > 0 {
			t.Errorf("%s is left", r.Entries[0].DN)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
