package notice

import (
	"bytes"
	"fmt"
	"net/mail"
	"strconv"
	"strings"

	gomail "github.com/wneessen/go-mail"

	"tokendesk/vault"
)

// compose makes the mail of a notice. Everything in it but the words comes from the notice, so that a twin is the same.
func compose(n vault.Notice, trail string, from, replyTo mail.Address, to string, t *Templates) ([]byte, error) {
	contact := replyTo.Address
	if contact == "" {
		contact = from.Address
	}
	subject, body, err := t.Render(n.Kind, factsOf(n, contact))
	if err != nil {
		return nil, err
	}
	m := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	if err := m.From(from.String()); err != nil {
		return nil, fmt.Errorf("the sender: %w", err)
	}
	if err := m.To(to); err != nil {
		return nil, fmt.Errorf("the recipient: %w", err)
	}
	if replyTo.Address != "" {
		if err := m.ReplyTo(replyTo.String()); err != nil {
			return nil, fmt.Errorf("the address for answers: %w", err)
		}
	}
	m.Subject(subject)
	m.SetMessageIDWithValue(messageID(n, trail, from.Address))
	m.SetDateWithValue(n.Created)
	m.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: nobody's holiday answers it
	m.SetBodyString(gomail.TypeTextPlain, body)
	var out bytes.Buffer
	if _, err := m.WriteTo(&out); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// messageID names a mail, the same at every attempt (RFC 5322 section 3.6.4). Numbers of notices alone would not do: a vault that
// was restored gives them out again.
func messageID(n vault.Notice, trail, from string) string {
	_, domain, _ := strings.Cut(from, "@")
	clean := strings.Map(func(c rune) rune {
		if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' {
			return c
		}
		return -1
	}, strings.ToLower(trail))
	return fmt.Sprintf("notice.%d.%s.%s@%s", n.ID, strconv.FormatInt(n.Created.UnixMicro(), 36), clean, domain)
}
