package notice

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wneessen/go-mail/smtp"

	"tokendesk/vault/secret"
)

// chooseLogin takes one of the ways that the server offers. Both send the password itself: NewServer has seen to it that the line
// is secured, or ends on this machine.
func chooseLogin(offered string, c ServerConfig) (smtp.Auth, error) {
	ways := strings.Fields(strings.ToUpper(offered))
	switch {
	case slices.Contains(ways, "PLAIN"):
		return &plainLogin{c.Username, c.Password}, nil
	case slices.Contains(ways, "LOGIN"):
		return &promptedLogin{user: c.Username, password: c.Password}, nil
	}
	return nil, errors.New("it offers no login by PLAIN or LOGIN: take username and password_file out, or mend the server")
}

// plainLogin is PLAIN (RFC 4616).
type plainLogin struct {
	user     string
	password secret.Secret
}

// Start implements smtp.Auth.
func (l *plainLogin) Start(*smtp.ServerInfo) (string, []byte, error) {
	return "PLAIN", slices.Concat([]byte("\x00"+l.user+"\x00"), l.password.Reveal()), nil
}

// Next implements smtp.Auth.
func (l *plainLogin) Next(_ []byte, more bool) ([]byte, error) {
	if more {
		return nil, errors.New("it asks for more than user name and password")
	}
	return nil, nil
}

// promptedLogin is LOGIN, which older servers have: it asks for one after the other.
type promptedLogin struct {
	user     string
	password secret.Secret
	asked    int
}

// Start implements smtp.Auth.
func (l *promptedLogin) Start(*smtp.ServerInfo) (string, []byte, error) { return "LOGIN", nil, nil }

// Next implements smtp.Auth.
func (l *promptedLogin) Next(_ []byte, more bool) ([]byte, error) {
	if !more {
		return nil, nil
	}
	l.asked++
	switch l.asked {
	case 1:
		return []byte(l.user), nil
	case 2:
		return slices.Clone(l.password.Reveal()), nil
	}
	return nil, errors.New("it asks for more than user name and password")
}

// certificateTrouble says what is wrong with a certificate, and its cure; nil if it is something else.
func (s *Server) certificateTrouble(err error) error {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verify *tls.CertificateVerificationError
	switch {
	case errors.As(err, &unknown):
		where := "the system's CAs; name the CA in ca_file"
		if s.config.CAFile != "" {
			where = s.config.CAFile + "; put the CA's certificate there"
		}
		return fmt.Errorf("its certificate is signed by nobody in %s", where)
	case errors.As(err, &host):
		return errors.New("its certificate is for another host: correct the URL, or have one issued with this name")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("its certificate is valid from %s to %s, and this machine's clock says otherwise: check the clock, and renew the certificate",
			invalid.Cert.NotBefore.UTC().Format(time.DateTime), invalid.Cert.NotAfter.UTC().Format(time.DateTime))
	case errors.As(err, &verify), errors.As(err, &invalid):
		return fmt.Errorf("its certificate does not do: %w", err)
	}
	return nil
}
