package notice

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"tokendesk/sync/notice/mailtest"
	"tokendesk/vault/secret"
)

// server starts a mail server for a test.
func server(t *testing.T) *mailtest.Server {
	t.Helper()
	s, err := mailtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func to(t *testing.T, c ServerConfig) *Server {
	t.Helper()
	s, err := NewServer(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// set turns a switch for the rest of a test.
func set(t *testing.T, s *mailtest.Server, w mailtest.Switch, on bool) {
	t.Helper()
	if err := s.Set(w, on); err != nil {
		t.Fatal(err)
	}
}

const mailText = "From: desk@example.org\r\nSubject: hello\r\nMessage-ID: <1@example.org>\r\n\r\n.one line\r\n..and another\r\n"

// handIn sends a mail in a session of its own.
func handIn(ctx context.Context, s *Server, to string) error {
	x, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer x.close()
	return x.send("desk@example.org", to, []byte(mailText))
}

func TestServerTakesMail(t *testing.T) {
	m := server(t)
	password := secret.New([]byte(m.Password))
	defer password.Wipe()
	for name, c := range map[string]ServerConfig{
		"clear":           {URL: m.URL},
		"starttls":        {URL: m.URL, StartTLS: StartTLSRequired, CAFile: m.CAFile},
		"starttls, login": {URL: m.URL, StartTLS: StartTLSRequired, CAFile: m.CAFile, Username: m.User, Password: password},
		"tls":             {URL: m.TLSURL, CAFile: m.CAFile},
		"tls, login":      {URL: m.TLSURL, CAFile: m.CAFile, Username: m.User, Password: password},
		"tls, old login":  {URL: m.TLSURL, CAFile: m.CAFile, Username: m.User, Password: password},
	} {
		t.Run(name, func(t *testing.T) {
			set(t, m, mailtest.MustLogIn, strings.Contains(name, "login"))
			set(t, m, mailtest.OldLogin, strings.Contains(name, "old"))
			user := strings.NewReplacer(" ", "", ",", "-").Replace(name) + "@example.org"
			s := to(t, c)
			if err := s.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := handIn(t.Context(), s, user); err != nil {
				t.Fatal(err)
			}
			all, err := m.Await(t.Context(), user, 1)
			if err != nil {
				t.Fatal(err)
			}
			if got := all[0]; got.Subject() != "hello" || got.Body != ".one line\n..and another\n" || got.Header.Get("Return-Path") != "<desk@example.org>" {
				t.Errorf("%+v", got)
			}
			secured := strings.Contains(all[0].Header.Get("Received"), "TLS")
			if secured != (name != "clear") {
				t.Errorf("Received: %s", all[0].Header.Get("Received"))
			}
		})
	}
}

func TestServerRefuses(t *testing.T) {
	m := server(t)
	wrong := secret.New([]byte("wrong password"))
	defer wrong.Wipe()
	clear := ServerConfig{URL: m.URL}
	for name, tc := range map[string]struct {
		config    ServerConfig
		on        []mailtest.Switch
		mail      bool // it is about this mail
		permanent bool
		want      string
	}{
		"greylisting":         {clear, []mailtest.Switch{mailtest.Greylist}, true, false, "answers: 451 4.7.1 Greylisted, come back later"},
		"no such mailbox":     {clear, []mailtest.Switch{mailtest.Without("alice")}, true, true, "answers: 550 5.1.1 no such mailbox"},
		"not these words":     {clear, []mailtest.Switch{mailtest.Censor}, true, true, "answers: 550 5.7.0 no words of that kind here"},
		"no login":            {clear, []mailtest.Switch{mailtest.MustLogIn}, false, false, "550 5.7.1 log in first"},
		"no TLS":              {ServerConfig{URL: m.URL, StartTLS: StartTLSRequired, CAFile: m.CAFile}, []mailtest.Switch{mailtest.NoTLS}, false, false, "does not offer STARTTLS"},
		"unknown CA":          {ServerConfig{URL: m.URL, StartTLS: StartTLSRequired}, nil, false, false, "its certificate is signed by nobody in the system's CAs; name the CA in ca_file"},
		"unknown CA, smtps":   {ServerConfig{URL: m.TLSURL}, nil, false, false, "its certificate is signed by nobody in the system's CAs"},
		"another host":        {ServerConfig{URL: strings.Replace(m.TLSURL, "127.0.0.1", "localhost", 1), CAFile: m.CAFile}, nil, false, false, "its certificate is for another host"},
		"wrong password":      {ServerConfig{URL: m.TLSURL, CAFile: m.CAFile, Username: m.User, Password: wrong}, nil, false, false, "it does not accept the user name and password (535)"},
		"wrong password, old": {ServerConfig{URL: m.TLSURL, CAFile: m.CAFile, Username: m.User, Password: wrong}, []mailtest.Switch{mailtest.OldLogin}, false, false, "it does not accept the user name and password (535)"},
		"login in clear text": {ServerConfig{URL: m.URL, Username: m.User, Password: wrong}, nil, false, false, "it offers no login by PLAIN or LOGIN"},
		"nobody listens":      {ServerConfig{URL: "smtp://127.0.0.1:1"}, nil, false, false, "connection refused"},
		"TLS where none is":   {ServerConfig{URL: strings.Replace(m.URL, "smtp:", "smtps:", 1), Timeout: time.Second}, nil, false, false, "the mail server 127.0.0.1:"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, w := range tc.on {
				set(t, m, w, true)
				defer set(t, m, w, false)
			}
			err := handIn(t.Context(), to(t, tc.config), "alice@example.org")
			refused := (*refusedError)(nil)
			if err == nil || !strings.Contains(err.Error(), tc.want) || errors.As(err, &refused) != tc.mail || tc.mail && refused.permanent != tc.permanent {
				t.Errorf("%v, want %s", err, tc.want)
			}
			if err != nil && (strings.Contains(err.Error(), "wrong password") || strings.Contains(err.Error(), "d3Jvbmc")) {
				t.Errorf("it repeats the password: %v", err)
			}
		})
	}
	if all, err := m.Arrived(""); err != nil || len(all) > 0 {
		t.Errorf("%+v, %v", all, err)
	}
}

// A server that takes the connection and says nothing costs one timeout, and none once the desk is stopped.
func TestServerHangs(t *testing.T) {
	m := server(t)
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	s := to(t, ServerConfig{URL: m.URL, Timeout: 100 * time.Millisecond})
	if err := s.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "i/o timeout") || time.Since(begin) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(begin))
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- to(t, ServerConfig{URL: m.URL, Timeout: time.Hour}).Check(ctx) }()
	cancel()
	if err := <-ended; err == nil {
		t.Error("a server that hangs is in order")
	}
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestServerConfig(t *testing.T) {
	password := secret.New([]byte("pass"))
	defer password.Wipe()
	for _, tc := range []struct {
		c    ServerConfig
		want string
	}{
		{ServerConfig{}, "the URL has the form smtp://host:port and nothing more"},
		{ServerConfig{URL: "smtp://user:hunter2@mail.example.org"}, "the URL has the form smtp://host:port and nothing more"},
		{ServerConfig{URL: "smtp://mail.example.org/hunter2"}, "the URL has the form smtp://host:port and nothing more"},
		{ServerConfig{URL: "smtp://mail.example.org?hunter2"}, "the URL has the form smtp://host:port and nothing more"},
		{ServerConfig{URL: "https://mail.example.org"}, "the URL begins with smtp:// or smtps://"},
		{ServerConfig{URL: "smtps://mail.example.org", StartTLS: "required"}, "starttls goes with smtp://; smtps:// is encrypted from the start: choose one"},
		{ServerConfig{URL: "smtp://mail.example.org", StartTLS: "hunter2"}, `starttls is "required" or "none"`},
		{ServerConfig{URL: "smtp://mail.example.org", Username: "desk"}, "a user name and a password go together"},
		{ServerConfig{URL: "smtp://mail.example.org", Password: password}, "a user name and a password go together"},
		{ServerConfig{URL: "smtp://mail.example.org", StartTLS: "none", Username: "desk", Password: password}, "the password would go there in clear text: use STARTTLS or smtps://"},
		{ServerConfig{URL: "smtp://mail.example.org", CAFile: "/nowhere"}, "cannot read the CA file: open /nowhere: no such file or directory"},
		{ServerConfig{URL: "smtp://mail.example.org", CAFile: "/dev/null"}, "/dev/null holds no PEM certificate"},
	} {
		if _, err := NewServer(tc.c); err == nil || err.Error() != tc.want {
			t.Errorf("%+v: %v", tc.c, err)
		}
	}
	for url, want := range map[string]struct {
		address string
		tls     bool
	}{
		"smtp://mail.example.org":    {"mail.example.org:587", true},
		"smtp://mail.example.org:25": {"mail.example.org:25", true},
		"smtps://mail.example.org":   {"mail.example.org:465", true},
		"smtp://localhost:25":        {"localhost:25", false},
		"smtp://[::1]":               {"[::1]:587", false},
	} {
		if s := to(t, ServerConfig{URL: url}); s.Name() != want.address || (s.tls != nil) != want.tls {
			t.Errorf("%s: %s, TLS %v", url, s.Name(), s.tls != nil)
		}
	}
}
