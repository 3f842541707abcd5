package world

import (
	"fmt"
	"path/filepath"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/sync/notice/mailtest"
	"tokendesk/sync/synctest"
)

// startMail runs a mail server, and gives everybody in the directory an address there.
func (w *World) startMail() (err error) {
	if !w.options.Mail {
		return nil
	}
	if w.Mail, err = mailtest.Start(); err != nil {
		return err
	}
	for _, user := range synctest.Users {
		if err := w.Address(user, user+"@"+mailtest.Domain); err != nil {
			return err
		}
	}
	return nil
}

// Address sets the mail address of a user in the directory; an empty one takes it away.
func (w *World) Address(user, address string) error {
	m := ldap.NewModifyRequest(synctest.UserDN(user), nil)
	var values []string
	if address != "" {
		values = []string{address}
	}
	m.Replace("mail", values)
	return w.Slapd.AsAdmin(func(c *ldap.Conn) error { return c.Modify(m) })
}

// mailConfig writes what the desk needs to send mail, over TLS and with a login.
func (w *World) mailConfig() (string, error) {
	if w.Mail == nil {
		return "", nil
	}
	password := filepath.Join(w.Dir, "mail-password")
	if err := w.writeFile(password, w.Mail.Password+"\n"); err != nil {
		return "", err
	}
	return fmt.Sprintf(`
[notices]
server = %q
starttls = "required"
ca_file = %q
username = %q
password_file = %q
from = "Token desk <desk@example.org>"
reply_to = "security@example.org"
timeout = "2s"
retry_min = "100ms"
retry_max = "1s"
`, w.Mail.URL, w.Mail.CAFile, w.Mail.User, password), nil
}
