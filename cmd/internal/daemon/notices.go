package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/localapi"
	syncer "tokendesk/sync"
	"tokendesk/sync/notice"
	"tokendesk/sync/openldap"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// NoticesConfig says how holders are told by mail of what becomes of their tokens.
type NoticesConfig struct {
	Server       string   `toml:"server"`        // smtp://host[:port] or smtps://host[:port]
	StartTLS     string   `toml:"starttls"`      // with smtp://: "required", or "none"; on loopback none is asked for
	CAFile       string   `toml:"ca_file"`       // signs the server's certificate
	Username     string   `toml:"username"`      // to log in with
	PasswordFile string   `toml:"password_file"` // readable by its owner only
	From         string   `toml:"from"`
	ReplyTo      string   `toml:"reply_to"`  // whom holders ask
	Templates    string   `toml:"templates"` // a directory of NAME.txt, in place of the desk's words
	Timeout      Duration `toml:"timeout"`
	RetryMin     Duration `toml:"retry_min"` // first pause after a failure
	RetryMax     Duration `toml:"retry_max"` // longest pause
}

// check reads no file. It repeats no value.
func (n *NoticesConfig) check(c CentralConfig) (problems []string) {
	if n == nil {
		return nil
	}
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if c.OpenLDAP == nil {
		add("notices needs central.openldap: holders' addresses are read there")
	}
	if _, err := notice.NewServer(notice.ServerConfig{URL: n.Server, StartTLS: n.StartTLS}); n.Server == "" {
		add(`notices.server is missing: name it, such as "smtp://mail.example.org:587"`)
	} else if err != nil {
		add("notices.server: %v", err)
	}
	if _, err := notice.ParseSender(n.From); n.From == "" {
		add("notices.from is missing: say who writes, such as \"Token desk <desk@example.org>\"")
	} else if err != nil {
		add("notices.from: %v", err)
	}
	if _, err := notice.ParseSender(n.ReplyTo); n.ReplyTo != "" && err != nil {
		add("notices.reply_to: %v", err)
	}
	if (n.Username == "") != (n.PasswordFile == "") {
		add("notices.username and notices.password_file go together")
	}
	for _, d := range []Duration{n.Timeout, n.RetryMin, n.RetryMax} {
		if d != 0 && !d.sensible() {
			add(`notices.timeout, notices.retry_min and notices.retry_max need a time span with its unit, such as "30s"`)
			break
		}
	}
	return problems
}

// notices reads everything that sending takes; nil if nothing is to be sent.
func (d *Daemon) notices(directory *directory) (*notice.Config, error) {
	n := d.Config.Notices
	if n == nil {
		return nil, nil
	}
	server := notice.ServerConfig{URL: n.Server, StartTLS: n.StartTLS, CAFile: n.CAFile, Username: n.Username, Timeout: time.Duration(n.Timeout)}
	var err error
	if n.PasswordFile != "" {
		if server.Password, err = secret.ReadFile(n.PasswordFile); err != nil {
			return nil, fmt.Errorf("notices.password_file: %w", err)
		}
	}
	c := notice.Config{RetryMin: time.Duration(n.RetryMin), RetryMax: time.Duration(n.RetryMax), Address: directory.address}
	if c.Server, err = notice.NewServer(server); err != nil {
		return nil, fmt.Errorf("notices.server: %w", err)
	}
	if c.From, err = notice.ParseSender(n.From); err != nil {
		return nil, fmt.Errorf("notices.from: %w", err)
	}
	if n.ReplyTo != "" {
		if c.ReplyTo, err = notice.ParseSender(n.ReplyTo); err != nil {
			return nil, fmt.Errorf("notices.reply_to: %w", err)
		}
	}
	if c.Templates, err = notice.LoadTemplates(n.Templates); err != nil {
		return nil, fmt.Errorf("notices.templates: %w", err)
	}
	return &c, nil
}

// tellHolders gives the desk what sends notices. The vault keeps what is to be sent, and nothing waits for it.
func (d *Daemon) tellHolders(desk *localapi.Desk, c *notice.Config) {
	desk.Notices = notice.New(desk.Vault, d.Log, c)
	desk.Runner.Notices = c != nil
	desk.Runner.Wake = func() {
		desk.Outbox.Wake()
		desk.Notices.Wake()
	}
}

// mailAttribute is the attribute to be read; empty if nobody is written to.
func (d *Daemon) mailAttribute() string {
	if d.Config.Notices == nil {
		return ""
	}
	return cmp.Or(d.Config.Central.OpenLDAP.MailAttribute, openldap.DefaultMailAttribute)
}

// address is the mail address of a user, as the directory has it.
func (d *directory) address(ctx context.Context, user string) (string, error) {
	address, err := d.connector().Mail(ctx, user)
	switch {
	case errors.Is(err, syncer.ErrRefused):
		return "", fmt.Errorf("%w: %v", notice.ErrNoAddress, err)
	case err == nil && address == "":
		return "", fmt.Errorf("%w: the directory has none of %s (%s), or does not show it: see tokendesk doctor", notice.ErrNoAddress, user, d.config.MailAttribute)
	}
	return address, err
}

// checkNotices looks whether notices can be sent, and what waits for an officer.
func (d *Daemon) checkNotices(ctx context.Context, desk *localapi.Desk) (found []api.Finding) {
	if desk.Notices.Configured() {
		if err := desk.Notices.Check(ctx); err != nil {
			found = append(found, bad("notices", "start the server, or correct [notices] in the configuration", "%v", err))
		} else {
			found = append(found, good("notices", "%s takes mail", desk.Notices.Server()))
		}
	}
	err := desk.Vault.View(func(tx *vault.Tx) error {
		if n := tx.Counts().Notices; n > 0 && !desk.Notices.Configured() {
			found = append(found, bad("notices", "configure [notices] again, or discard them: tokendesk notices", "%s cannot be sent: no mail server is configured any more", noticesOf(n)))
		}
		if n := tx.Counts().NoticesParked; n > 0 {
			found = append(found, bad("notices", "see why: tokendesk notices list --parked", "%s could not be sent: an officer is to decide", noticesOf(n)))
		}
		return nil
	})
	if state := (*vault.StateError)(nil); err != nil && !errors.As(err, &state) { // a state is told as that of the vault
		found = append(found, bad("vault", "see the log", "%v", err))
	}
	return found
}

func noticesOf(n int) string {
	if n == 1 {
		return "1 notice"
	}
	return fmt.Sprintf("%d notices", n)
}
