package notice

import (
	"bytes"
	"net"
	"net/mail"
	"strings"
	"testing"
	"time"
	"unicode"

	"tokendesk/vault"
)

// Whatever a server says, a session ends in time, and what it leaves behind fits into a line of a terminal.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte("220 hi\r\n250 hello\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n221 bye\r\n"))
	f.Add([]byte("220 hi\r\n250-hello\r\n250 AUTH PLAIN\r\n550 \x1b[2J no\r\n"))
	f.Add([]byte("220 hi\r\n250 hello\r\n250 ok\r\n451-later\r\n451 \xff\xfe\r\n250 reset\r\n"))
	f.Add([]byte("220 hi\r\n250 hello\r\n421 closing\r\n"))
	f.Add([]byte("220-" + strings.Repeat("x", 5000) + "\r\n"))
	f.Fuzz(func(t *testing.T, answers []byte) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		go func() {
			defer theirs.Close()
			theirs.Write(answers)
		}()
		go func() { // until the session ends
			b := make([]byte, 4096)
			for {
				if _, err := theirs.Read(b); err != nil {
					return
				}
			}
		}()
		s := &Server{host: "mail.example.org", address: "mail.example.org:25", config: ServerConfig{Timeout: 5 * time.Second}}
		x := &session{server: s, line: &line{Conn: ours}, stop: func() bool { return true }}
		defer x.close()
		err := x.greet(t.Context())
		if err == nil {
			err = x.send("desk@example.org", "alice@example.org", []byte(mailText))
		} else {
			err = s.trouble(err)
		}
		if err != nil && (strings.ContainsFunc(err.Error(), unicode.IsControl) || len(err.Error()) > 2*maxWords) {
			t.Errorf("%q", err)
		}
	})
}

// Whatever a directory says about a user, a mail has one recipient and no header that the desk did not write.
func FuzzMail(f *testing.F) {
	f.Add("alice", "alice@example.org", "words")
	f.Add("alice\r\nBcc: bob@example.org", "alice@example.org>\r\nDATA", "\r\n.\r\n")
	f.Add("=?utf-8?q?x?=", "a@b", "ä\n\nBcc: c@d")
	words := &Templates{kinds: map[string]words{}}
	if err := words.add("disabled", "Subject: about {{.User}}\n\n{{.User}} {{.Reason}} {{.Successor}}\n"); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, user, address, reason string) {
		if CheckAddress(address) != nil {
			return
		}
		n := vault.Notice{ID: 1, Kind: "disabled", User: user, Token: "yk-1/otp2", Reason: reason, Successor: user, Created: time.Now()}
		message, err := compose(n, user, mail.Address{Address: "desk@example.org"}, mail.Address{}, address, words)
		if err != nil {
			return
		}
		m, err := mail.ReadMessage(bytes.NewReader(message))
		if err != nil {
			t.Fatal(err)
		}
		for name, values := range m.Header {
			switch name {
			case "Auto-Submitted", "Content-Transfer-Encoding", "Content-Type", "Date", "From", "Message-Id", "Mime-Version", "Subject", "To":
			default:
				t.Errorf("it has a header %q", name)
			}
			if len(values) != 1 {
				t.Errorf("%s: %q", name, values)
			}
		}
		if to, err := m.Header.AddressList("To"); err != nil || len(to) != 1 || to[0].Address != address {
			t.Errorf("it goes to %v, not %s: %v", to, address, err)
		}
		for l := range bytes.Lines(message) {
			if len(l) > 1000 || !bytes.HasSuffix(l, []byte("\r\n")) || bytes.ContainsFunc(l[:len(l)-2], func(c rune) bool { return unicode.IsControl(c) && c != '\t' }) {
				t.Errorf("not a line of a mail: %q", l)
			}
		}
	})
}
