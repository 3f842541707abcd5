package openldap_test

import (
	"testing"

	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
	"tokendesk/sync/synctest"
)

// reaches gives a user mail addresses.
func reaches(t *testing.T, s *synctest.Slapd, user string, addresses ...string) {
	t.Helper()
	m := ldap.NewModifyRequest(synctest.UserDN(user), nil)
	m.Replace("mail", addresses)
	if err := s.AsAdmin(func(c *ldap.Conn) error { return c.Modify(m) }); err != nil {
		t.Fatal(err)
	}
}

func TestMail(t *testing.T) {
	s := start(t)
	reaches(t, s, "alice", "alice@example.org", "a@example.org")
	reaches(t, s, "bob", "bob@example.org>\r\nDATA")
	cfg := config(s)
	c := connect(t, cfg)
	if _, err := c.Mail(t.Context(), "alice"); err == nil || err.Error() != "no attribute with mail addresses is configured" {
		t.Error(err)
	}
	cfg.MailAttribute = "MAIL"
	c = connect(t, cfg)
	for user, want := range map[string]string{"alice": "alice@example.org", "ALICE": "alice@example.org", "bob": "bob@example.org>\r\nDATA", "carol": ""} {
		if got, err := c.Mail(t.Context(), user); got != want || err != nil {
			t.Errorf("%s: %q, %v", user, got, err)
		}
	}
	_, err := c.Mail(t.Context(), "ghost")
	wantError(t, err, syncer.ErrRefused, `there is no user "ghost"`)
	if problems := c.Check(t.Context()); len(problems) > 0 {
		t.Error(problems)
	}
	rewrite(t, s, "access to *", "access to attrs=mail by * none\naccess to *")
	if got, err := c.Mail(t.Context(), "alice"); got != "" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	problems := c.Check(t.Context())
	if want := `access to dn.subtree="` + synctest.PeopleBase + `" attrs=MAIL by dn.exact="` + s.BindDN + `" read by * break`; len(problems) != 1 || problems[0].Cure[len(problems[0].Cure)-len(want):] != want {
		t.Error(problems)
	}
	s.Stop()
	_, err = c.Mail(t.Context(), "alice")
	wantError(t, err, syncer.ErrUnavailable)
}
