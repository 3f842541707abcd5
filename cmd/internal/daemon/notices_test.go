package daemon

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tokendesk/provision"
	syncer "tokendesk/sync"
	"tokendesk/sync/notice"
	"tokendesk/sync/openldap"
	"tokendesk/sync/synctest"
	"tokendesk/vault/secret"
)

const withNotices = complete + `mail_attribute = "mailbox"

[notices]
server = "smtp://mail.example.org:587"
starttls = "required"
ca_file = "/etc/ssl/mail.pem"
username = "desk"
password_file = "/etc/tokendesk/mail"
from = "Token desk <desk@example.org>"
reply_to = "security@example.org"
templates = "/etc/tokendesk/words"
timeout = "5s"
retry_min = "2m"
retry_max = "4h"
`

func TestConfigOfNotices(t *testing.T) {
	c, err := ParseConfig("desk.toml", []byte(withNotices))
	want := NoticesConfig{
		Server: "smtp://mail.example.org:587", StartTLS: "required", CAFile: "/etc/ssl/mail.pem", Username: "desk", PasswordFile: "/etc/tokendesk/mail",
		From: "Token desk <desk@example.org>", ReplyTo: "security@example.org", Templates: "/etc/tokendesk/words",
		Timeout: Duration(5 * time.Second), RetryMin: Duration(2 * time.Minute), RetryMax: Duration(4 * time.Hour),
	}
	if err != nil || c.Notices == nil || *c.Notices != want || c.Central.OpenLDAP.MailAttribute != "mailbox" {
		t.Fatalf("%+v, %v", c.Notices, err)
	}
	if d := (&Daemon{Config: c}); d.mailAttribute() != "mailbox" {
		t.Error(d.mailAttribute())
	}
	c.Central.OpenLDAP.MailAttribute = ""
	if d := (&Daemon{Config: c}); d.mailAttribute() != "mail" {
		t.Error(d.mailAttribute())
	}
	c.Notices = nil
	if d := (&Daemon{Config: c}); d.mailAttribute() != "" {
		t.Error("addresses are read for nothing")
	}
}

func TestConfigErrorsOfNotices(t *testing.T) {
	with := func(old, new string) string { return strings.Replace(withNotices, old, new, 1) }
	for _, c := range []struct{ text, want string }{
		{"[notices]", "desk.toml: notices needs central.openldap: holders' addresses are read there\n" +
			"desk.toml: notices.server is missing: name it, such as \"smtp://mail.example.org:587\"\n" +
			"desk.toml: notices.from is missing: say who writes, such as \"Token desk <desk@example.org>\""},
		{"notices = 'hunter2'", "desk.toml:1: notices: needs a table, not this string"},
		{"[notices]\npassword = 'hunter2'", "desk.toml:2: unknown key notices.password"},
		{with("smtp://mail", "smtp://desk:hunter2@mail"), "desk.toml: notices.server: the URL has the form smtp://host:port and nothing more"},
		{with("smtp://mail", "hunter2://mail"), "desk.toml: notices.server: the URL begins with smtp:// or smtps://"},
		{with(`"required"`, `"hunter2"`), `desk.toml: notices.server: starttls is "required" or "none"`},
		{with("smtp://mail", "smtps://mail"), "desk.toml: notices.server: starttls goes with smtp://; smtps:// is encrypted from the start: choose one"},
		{with("<desk@example.org>", "hunter2"), "desk.toml: notices.from: an address has the form name@domain or Words <name@domain>"},
		{with("security@", "hunter2 "), "desk.toml: notices.reply_to: an address has the form name@domain or Words <name@domain>"},
		{with(`username = "desk"`, ""), "desk.toml: notices.username and notices.password_file go together"},
		{with(`retry_min = "2m"`, "retry_min = 2"), `desk.toml: notices.timeout, notices.retry_min and notices.retry_max need a time span with its unit, such as "30s"`},
		{with(`"/etc/tokendesk/words"`, `"hunter2"`), "desk.toml: notices.templates needs an absolute path"},
		{with(`"/etc/tokendesk/mail"`, `"hunter2"`), "desk.toml: notices.password_file needs an absolute path"},
		{with(`"/etc/ssl/mail.pem"`, `"hunter2"`), "desk.toml: notices.ca_file needs an absolute path"},
	} {
		_, err := ParseConfig("desk.toml", []byte(c.text))
		if err == nil || err.Error() != c.want {
			t.Errorf("%s\n got %v\nwant %s", c.text, err, c.want)
		}
	}
}

// What is named in the configuration is read before the desk starts, and what is wrong with it is said then.
func TestNoticesThatCannotBeSent(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := NoticesConfig{Server: "smtp://127.0.0.1:25", From: "desk@example.org"}
	build := func(change func(*NoticesConfig)) (*notice.Config, error) {
		c := good
		change(&c)
		d := &Daemon{Config: Config{Notices: &c}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
		return d.notices(&directory{})
	}
	if c, err := build(func(*NoticesConfig) {}); err != nil || c.Server.Name() != "127.0.0.1:25" || c.From.Address != "desk@example.org" {
		t.Errorf("%+v, %v", c, err)
	}
	open := file("open", "hunter2\n", 0o644)
	empty := file("ca", "hunter2", 0o644)
	file("disabled.txt", "hunter2", 0o644)
	for want, change := range map[string]func(*NoticesConfig){
		"notices.password_file: ":                                func(c *NoticesConfig) { c.Username, c.PasswordFile = "desk", open },
		"notices.server: " + empty + " holds no PEM certificate": func(c *NoticesConfig) { c.StartTLS, c.CAFile = "required", empty },
		"notices.server: the password would go there in clear text: use STARTTLS or smtps://": func(c *NoticesConfig) {
			c.Server, c.StartTLS, c.Username, c.PasswordFile = "smtp://mail.example.org", "none", "desk", file("secret", "hunter2\n", 0o600)
		},
		`notices.templates: template "` + filepath.Join(dir, "disabled.txt") + `": its first line must begin with "Subject: "`: func(c *NoticesConfig) { c.Templates = dir },
	} {
		if _, err := build(change); err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// Whatever provision tells of, there are words for, and nothing else.
func TestWordsForEveryNotice(t *testing.T) {
	kinds := provision.NoticeKinds()
	slices.Sort(kinds)
	if !slices.Equal(kinds, notice.Kinds()) {
		t.Errorf("%q are written, and there are words for %q", kinds, notice.Kinds())
	}
}

// Who has no address waits for an officer; a directory that is away is not their fault.
func TestAddressOfAHolder(t *testing.T) {
	s, err := synctest.StartSlapd(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	config := openldap.Config{
		URLs: []string{s.URL}, BindDN: s.BindDN, Password: secret.New([]byte(s.Password)), PeopleBase: synctest.PeopleBase, TokensBase: synctest.TokensBase,
		Params: map[int]string{6: synctest.Params6}, Timeout: 2 * time.Second, MailAttribute: "sn",
	}
	c, err := openldap.New(config)
	if err != nil {
		t.Fatal(err)
	}
	d := &directory{config: config, now: c}
	t.Cleanup(func() { d.Close() })
	if address, err := d.address(t.Context(), "alice"); address != "alice" || err != nil {
		t.Errorf("%q, %v", address, err)
	}
	if _, err := d.address(t.Context(), "ghost"); !errors.Is(err, notice.ErrNoAddress) || !strings.Contains(err.Error(), `no user "ghost"`) {
		t.Error(err)
	}
	config.MailAttribute = "mail"
	if d.now, err = openldap.New(config); err != nil {
		t.Fatal(err)
	}
	d.config = config
	want := "there is no address to write to: the directory has none of alice (mail), or does not show it: see tokendesk doctor"
	if _, err := d.address(t.Context(), "alice"); !errors.Is(err, notice.ErrNoAddress) || err.Error() != want {
		t.Error(err)
	}
	s.Stop()
	if _, err := d.address(t.Context(), "alice"); !errors.Is(err, syncer.ErrUnavailable) || errors.Is(err, notice.ErrNoAddress) {
		t.Error(err)
	}
}
