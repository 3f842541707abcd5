package openldap

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"tokendesk/vault/secret"
)

// defaultSocket is where Debian's slapd listens.
const defaultSocket = "/run/slapd/ldapi"

// endpoint is where a provider listens and how it is spoken to.
type endpoint struct {
	name     string      // as an officer knows it
	network  string      // tcp or unix
	addr     string      // for net.Dial
	tls      *tls.Config // nil: clear text, which stays on this machine
	startTLS bool
}

// endpoint reads a URL. It is not repeated in errors: it may hold a password.
func (c *Config) endpoint(text string, roots *x509.CertPool) (endpoint, error) {
	if socket, ok := strings.CutPrefix(text, "ldapi://"); ok {
		return socketEndpoint(socket)
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return endpoint{}, errors.New("the URL has the form ldaps://host:port and nothing more")
	}
	e := endpoint{name: u.Host, network: "tcp", startTLS: c.StartTLS}
	port := u.Port()
	switch {
	case u.Scheme == "ldaps" && !c.StartTLS:
		port = orDefault(port, "636")
	case u.Scheme == "ldaps":
		return endpoint{}, errors.New("StartTLS goes with ldap://, ldaps:// is encrypted from the start: choose one")
	case u.Scheme == "ldap" && (c.StartTLS || isLoopback(u.Hostname())):
		port = orDefault(port, "389")
	case u.Scheme == "ldap":
		return endpoint{}, fmt.Errorf("secrets would go to %s in clear text: use ldaps:// or StartTLS", u.Hostname())
	default:
		return endpoint{}, fmt.Errorf("%q is not a scheme of a directory URL: use ldaps://", u.Scheme)
	}
	e.addr = net.JoinHostPort(u.Hostname(), port)
	if u.Scheme == "ldap" && !c.StartTLS {
		return e, nil
	}
	e.tls = &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12, RootCAs: roots}
	if c.ClientCert != "" {
		e.tls.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.clientCertificate() }
	}
	return e, nil
}

func socketEndpoint(socket string) (endpoint, error) {
	path, err := url.PathUnescape(socket)
	switch {
	case err != nil:
		return endpoint{}, errors.New("the URL has the form ldapi://%2Frun%2Fslapd%2Fldapi and nothing more")
	case len(path) > 1:
		path = strings.TrimSuffix(path, "/")
	default:
		path = defaultSocket
	}
	if !filepath.IsAbs(path) {
		return endpoint{}, errors.New("the socket of ldapi:// needs its full path, such as ldapi://%2Frun%2Fslapd%2Fldapi")
	}
	return endpoint{name: path, network: "unix", addr: path}, nil
}

// roots are the CAs that may sign the servers' certificates; nil means the system's.
func (c *Config) roots() (*x509.CertPool, error) {
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

// clientCertificate is read whenever it is asked for: it is renewed more often than the desk is restarted, and the key
// is in memory for a handshake only.
func (c *Config) clientCertificate() (*tls.Certificate, error) {
	chain, err := os.ReadFile(c.ClientCert)
	if err != nil {
		return nil, fmt.Errorf("cannot read the client certificate: %w", err)
	}
	key, err := secret.ReadFile(c.ClientKey)
	if err != nil {
		return nil, fmt.Errorf("cannot read the client certificate's key: %w", err)
	}
	defer key.Wipe()
	var pair tls.Certificate
	secret.Do(func() { pair, err = tls.X509KeyPair(chain, key.Reveal()) })
	if err != nil {
		return nil, fmt.Errorf("%s and its key do not make a client certificate: %w", c.ClientCert, err)
	}
	return &pair, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func orDefault(port, standard string) string {
	if port == "" {
		return standard
	}
	return port
}
