package notice

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/wneessen/go-mail/smtp"

	"tokendesk/vault/secret"
)

// Ways of securing the line to the server.
const (
	StartTLSRequired = "required" // by STARTTLS (RFC 3207), or not at all
	StartTLSNone     = "none"     // in clear text
)

const (
	// DefaultTimeout bounds one command and its answer, connecting included.
	DefaultTimeout = 30 * time.Second
	// maxAnswer is how many bytes of answers one step may bring; a server has no more to say, and what it says is held in memory.
	maxAnswer = 256 << 10
	// maxWords is how much of an answer is repeated, in bytes.
	maxWords = 200
)

// ServerConfig says where mail is handed in.
type ServerConfig struct {
	URL      string        // smtp://host[:port], 587 unless said otherwise, or smtps://host[:port], 465, with TLS from the start
	StartTLS string        // with smtp://; empty means required, and on loopback none
	CAFile   string        // PEM certificates that sign the server's; empty means the system's
	Username string        // empty: without a login
	Password secret.Secret // kept, not copied
	Timeout  time.Duration // 0 means DefaultTimeout
}

// Server is a mail server that mail is handed in at. It is safe for concurrent use.
type Server struct {
	host, address string
	implicit      bool        // TLS from the start
	tls           *tls.Config // nil: clear text
	config        ServerConfig
}

// NewServer checks the configuration and connects to nothing. Its errors do not repeat the URL, which may hold a password.
func NewServer(c ServerConfig) (*Server, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("the URL has the form smtp://host:port and nothing more")
	}
	s := &Server{host: u.Hostname(), config: c}
	port := u.Port()
	secured := true
	switch {
	case u.Scheme == "smtps" && c.StartTLS != "":
		return nil, errors.New("starttls goes with smtp://; smtps:// is encrypted from the start: choose one")
	case u.Scheme == "smtps":
		s.implicit, port = true, orDefault(port, "465")
	case u.Scheme != "smtp":
		return nil, errors.New("the URL begins with smtp:// or smtps://")
	default:
		port = orDefault(port, "587") // RFC 6409
		if secured, err = c.secured(u.Hostname()); err != nil {
			return nil, err
		}
	}
	s.address = net.JoinHostPort(u.Hostname(), port)
	if s.config.Timeout <= 0 {
		s.config.Timeout = DefaultTimeout
	}
	switch {
	case (c.Username == "") != c.Password.IsZero():
		return nil, errors.New("a user name and a password go together")
	case c.Username != "" && !secured && !isLoopback(u.Hostname()):
		return nil, errors.New("the password would go there in clear text: use STARTTLS or smtps://")
	}
	if !secured {
		return s, nil
	}
	roots, err := c.roots()
	s.tls = &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12, RootCAs: roots}
	return s, err
}

// secured tells whether the line is to be secured by STARTTLS.
func (c ServerConfig) secured(host string) (bool, error) {
	switch c.StartTLS {
	case StartTLSRequired:
		return true, nil
	case StartTLSNone:
		return false, nil
	case "":
		return !isLoopback(host), nil
	}
	return false, fmt.Errorf("starttls is %q or %q", StartTLSRequired, StartTLSNone)
}

func (c ServerConfig) roots() (*x509.CertPool, error) {
	if c.CAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("cannot read the CA file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no PEM certificate", c.CAFile)
	}
	return pool, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// Name is the server's host and port.
func (s *Server) Name() string { return s.address }

// refusedError is what became of one mail. Any other error of a session is about the server.
type refusedError struct {
	permanent bool
	broken    bool // the line broke once the mail was under way, which may be this mail's doing
	text      string
}

func (e *refusedError) Error() string { return e.text }

// session is a connection to the server, ready for mail. It is used by one goroutine.
type session struct {
	server *Server
	line   *line
	client *smtp.Client
	stop   func() bool
}

// line is a connection that brings only so many bytes at a time.
type line struct {
	net.Conn
	left atomic.Int64
}

var errFlood = errors.New("it answers without end")

// Read implements io.Reader.
func (l *line) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if l.left.Add(-int64(n)) < 0 {
		return 0, errFlood
	}
	return n, err
}

// step gives the next command, and the answer to it, their time and their bytes.
func (x *session) step() error {
	x.line.left.Store(maxAnswer)
	return x.line.SetDeadline(time.Now().Add(x.server.config.Timeout))
}

// open connects, secures the line and logs in. The end of ctx breaks whatever is going on.
func (s *Server) open(ctx context.Context) (*session, error) {
	dialer := net.Dialer{Timeout: s.config.Timeout}
	conn, err := dialer.DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, s.trouble(err)
	}
	x := &session{server: s, line: &line{Conn: conn}, stop: context.AfterFunc(ctx, func() { conn.Close() })}
	if err := x.greet(ctx); err != nil {
		x.close()
		return nil, s.trouble(err)
	}
	return x, nil
}

func (x *session) greet(ctx context.Context) (err error) {
	s, conn := x.server, net.Conn(x.line)
	if err = x.step(); err != nil {
		return err
	}
	if s.implicit {
		secured := tls.Client(x.line, s.tls)
		if err := secured.HandshakeContext(ctx); err != nil {
			return err
		}
		conn = secured
	}
	if x.client, err = smtp.NewClient(conn, s.host); err != nil {
		return err
	}
	x.client.SkipSMTPUTF8(true) // addresses are ASCII
	if err := errors.Join(x.step(), x.client.Hello(hello())); err != nil {
		return err
	}
	if s.tls != nil && !s.implicit {
		if offered, _ := x.client.Extension("STARTTLS"); !offered {
			return errors.New(`it does not offer STARTTLS, and mail would go there in clear text: mend the server, or say starttls = "none"`)
		}
		if err := errors.Join(x.step(), x.client.StartTLS(s.tls)); err != nil {
			return err
		}
	}
	if s.config.Username == "" {
		return nil
	}
	return x.logIn()
}

// hello is what this machine is called.
func hello() string {
	name, err := os.Hostname()
	if err != nil || name == "" || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "localhost"
	}
	return name
}

func (x *session) logIn() error {
	_, offered := x.client.Extension("AUTH")
	way, err := chooseLogin(offered, x.server.config)
	if err == nil {
		err = x.step()
	}
	if err != nil {
		return err
	}
	if err := x.client.Auth(way); err != nil {
		if answer := (*textproto.Error)(nil); errors.As(err, &answer) { // whose words may repeat what was sent
			return fmt.Errorf("it does not accept the user name and password (%d): correct username or password_file", answer.Code)
		}
		return err
	}
	return nil
}

// trouble says that the server, or the line to it, is not as it should be.
func (s *Server) trouble(err error) error {
	if why := s.certificateTrouble(err); why != nil {
		err = why
	}
	return fmt.Errorf("the mail server %s: %w", s.address, said(err))
}

// send hands a mail in. What is wrong with this mail alone is a refusedError.
func (x *session) send(from, to string, message []byte) error {
	ask := func(command func() error) error { return errors.Join(x.step(), command()) }
	if err := ask(func() error { return x.client.Mail("<" + from + ">") }); err != nil {
		return x.server.trouble(err)
	}
	if err := ask(func() error { return x.client.Rcpt("<" + to + ">") }); err != nil {
		return x.answer(err)
	}
	return x.answer(ask(func() error {
		w, err := x.client.Data()
		if err != nil {
			return err
		}
		if _, err := w.Write(message); err != nil {
			return err
		}
		if err := x.step(); err != nil {
			return err
		}
		return w.Close()
	}))
}

// answer judges what became of a mail.
func (x *session) answer(err error) error {
	var answer *textproto.Error
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &answer), answer.Code == 421: // it closes the line (RFC 5321 section 3.8)
		return &refusedError{broken: true, text: x.server.trouble(err).Error()}
	}
	return &refusedError{permanent: answer.Code >= 500, text: fmt.Sprintf("the mail server %s answers: %v", x.server.address, said(err))}
}

// forget has the server forget a mail that it refused.
func (x *session) forget() error { return errors.Join(x.step(), x.client.Reset()) }

// close ends the session, politely if that takes no time.
func (x *session) close() {
	if x.client != nil {
		x.line.left.Store(maxAnswer)
		x.line.SetDeadline(time.Now().Add(time.Second))
		x.client.Quit()
	}
	x.stop()
	x.line.Close()
}

// Check opens a session as for a mail, and says what is wrong.
func (s *Server) Check(ctx context.Context) error {
	x, err := s.open(ctx)
	if err == nil {
		x.close()
	}
	return err
}

// spoken is an error with what a server has said made fit for a line.
type spoken struct {
	text string
	err  error
}

func (e *spoken) Error() string { return e.text }
func (e *spoken) Unwrap() error { return e.err }

// said makes an error that repeats a server's words printable, and cuts it.
func said(err error) error {
	text := err.Error()
	if answer := (*textproto.Error)(nil); errors.As(err, &answer) && answer.Error() == text { // which would quote the words
		text = fmt.Sprintf("%d %s", answer.Code, answer.Msg)
	}
	text = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, "?"), func(c rune) bool { return unicode.IsSpace(c) || !unicode.IsPrint(c) }), " ")
	if len(text) > maxWords+len("…") {
		text = strings.ToValidUTF8(text[:maxWords], "") + "…"
	}
	return &spoken{text, err}
}
