// Package openldap keeps tokens in an OpenLDAP 2.5 directory whose OTP overlay (slapo-otp) checks the
// codes at every simple bind with password‖code.
//
// A token is the entry cn=YK12345678-2 below TokensBase (device + oathHOTPToken); a user's entry links
// to it by oathHOTPToken in the auxiliary class oathHOTPUser. The schema makes that link
// single-valued, so a user has one token (a second value is refused with constraintViolation). The
// overlay stores the last used counter, absent before the first; everything outside this package
// counts the next one. The overlay takes no resync and keeps no failure count: the counter is
// computed by the desk and written by compare-and-set, against logins that happen meanwhile.
//
// Everything fails closed. An entry has its oathSecret only while the token is active and somebody's. Disabling
// deletes it. Unassigning deletes it and the links that can be seen: a user's entry that was moved out of
// PeopleBase, or is hidden by an access rule, keeps its link and cannot log in any more either. Both
// count as done when compare finds no secret in the entry (noSuchAttribute), or there is no entry. The class
// oathHOTPUser stays: a user of that class without a usable token cannot log in, whereas
// removing it would let the bare password in. It is therefore never removed here.
//
// The counter belongs to a seed, and is never lowered for the same one. Whether it is the same one is told by comparing
// the secrets and, where there is none, by the entry's description, "tokendesk generation 2 of DESK". Another
// seed, such as that of a desk whose vault was lost, is replaced together with its counter; but not a later generation
// of this desk. A token that somebody else's entry still links is left alone until that link is gone.
//
// # Rights of the bind identity
//
// In slapd.conf syntax (olcAccess takes the same words), with BIND, TOKENS and PEOPLE for the
// configured names; Check verifies each and names the missing line:
//
//	access to attrs=oathSecret by dn.exact="BIND" =wc by * none
//	access to dn.subtree="TOKENS" by dn.exact="BIND" write by * none
//	access to dn.subtree="PEOPLE" attrs=objectClass,oathHOTPToken by dn.exact="BIND" write by * read
//	access to dn.subtree="PEOPLE" attrs=entry,children,uid by dn.exact="BIND" read by * read
//
// On oathSecret that is write and compare (=wc), and neither read nor search, on purpose: whoever may
// search it can find a seed out byte by byte with substring filters, for which the schema has a matching
// rule. Compare is enough to confirm that a secret is there and that it is the right one. The overlay
// itself needs no rights.
//
// What this package does not do: several providers, whose counters drift apart in 2.5 (ITS#10169),
// and deleting entries.
package openldap

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/vault/secret"
)

const (
	// DefaultUserFilter finds a user by name.
	DefaultUserFilter = "(uid=%s)"
	// DefaultTimeout bounds one operation, connecting included.
	DefaultTimeout = 10 * time.Second
)

// Config says where the directory is and how it is laid out.
type Config struct {
	URL        string         // ldaps://host[:port], or ldap:// with StartTLS or on loopback
	StartTLS   bool           // only with ldap://
	CAFile     string         // PEM certificates that sign the server's; empty means the system's
	BindDN     string         // the provisioning identity
	Password   secret.Secret  // of BindDN; kept, not copied
	PeopleBase string         // users are searched below it
	UserFilter string         // finds one user; %s is the name; empty means DefaultUserFilter
	TokensBase string         // token entries stand directly below it
	Params     map[int]string // digits to the DN of the oathHOTPParams entry
	Timeout    time.Duration  // 0 means DefaultTimeout
	Desk       string         // names the vault whose generations are counted, in one word; may be empty
}

// Connector speaks to one directory server over one connection, which it makes when it is first
// needed and again after a failure. It is safe for concurrent use.
type Connector struct {
	cfg      Config
	addr     string
	tls      *tls.Config // nil means clear text, on loopback
	startTLS bool
	userAttr string        // the attribute that UserFilter compares with the name
	turn     chan struct{} // holds one value; whoever took it has the connection
	conn     *ldap.Conn    // nil when not connected
	lender   *lender       // below conn
	closed   bool
}

// New checks the configuration and connects to nothing.
func New(cfg Config) (*Connector, error) {
	c := &Connector{cfg: cfg, turn: make(chan struct{}, 1), startTLS: cfg.StartTLS}
	c.cfg.Params = maps.Clone(cfg.Params)
	if c.cfg.Timeout <= 0 {
		c.cfg.Timeout = DefaultTimeout
	}
	if c.cfg.UserFilter == "" {
		c.cfg.UserFilter = DefaultUserFilter
	}
	for _, check := range []func() error{c.setTransport, c.checkNames, c.setUserFilter} {
		if err := check(); err != nil {
			return nil, fmt.Errorf("cannot use the OpenLDAP configuration: %w", err)
		}
	}
	c.turn <- struct{}{}
	return c, nil
}

// Name implements syncer.Connector.
func (c *Connector) Name() string { return "openldap" }

// TokensPerUser implements syncer.Connector: oathHOTPToken is single-valued.
func (c *Connector) TokensPerUser() int { return 1 }

// Close ends the connection. Later calls fail.
func (c *Connector) Close() error {
	<-c.turn
	c.closed = true
	c.drop()
	c.turn <- struct{}{}
	return nil
}

func (c *Connector) setTransport() error {
	u, err := url.Parse(c.cfg.URL)
	if err != nil || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return errors.New("the URL has the form ldaps://host:port and nothing more") // it is not repeated: it may hold a password
	}
	port := u.Port()
	switch {
	case u.Scheme == "ldaps" && !c.cfg.StartTLS:
		port = orDefault(port, "636")
	case u.Scheme == "ldaps":
		return errors.New("StartTLS goes with ldap://, ldaps:// is encrypted from the start: choose one")
	case u.Scheme == "ldap" && (c.cfg.StartTLS || isLoopback(u.Hostname())):
		port = orDefault(port, "389")
	case u.Scheme == "ldap":
		return fmt.Errorf("secrets would go to %s in clear text: use ldaps:// or StartTLS", u.Hostname())
	default:
		return fmt.Errorf("%q is not a scheme of a directory URL: use ldaps://", u.Scheme)
	}
	c.addr = net.JoinHostPort(u.Hostname(), port)
	if u.Scheme == "ldap" && !c.cfg.StartTLS {
		return nil
	}
	c.tls = &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
	if c.cfg.CAFile == "" {
		return nil
	}
	pem, err := os.ReadFile(c.cfg.CAFile)
	if err != nil {
		return fmt.Errorf("cannot read the CA file: %w", err)
	}
	c.tls.RootCAs = x509.NewCertPool()
	if !c.tls.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no PEM certificate", c.cfg.CAFile)
	}
	return nil
}

func (c *Connector) checkNames() error {
	if c.cfg.Password.IsZero() {
		return errors.New("the password of the bind DN is missing: without one a bind would be anonymous (RFC 4513 section 5.1.2)")
	}
	if len(c.cfg.Params) == 0 {
		return errors.New("no oathHOTPParams entry is named, for example 6 = \"cn=hotp6,ou=tokens,dc=example,dc=org\"")
	}
	if desk := strings.Fields(c.cfg.Desk); len(desk) > 1 || len(desk) == 1 && desk[0] != c.cfg.Desk || !utf8.ValidString(c.cfg.Desk) {
		return fmt.Errorf("the desk's name %q is not one word", c.cfg.Desk)
	}
	names := map[string]string{"bind DN": c.cfg.BindDN, "people base": c.cfg.PeopleBase, "tokens base": c.cfg.TokensBase}
	for digits, dn := range c.cfg.Params {
		if digits < 6 || digits > 8 {
			return fmt.Errorf("codes have 6 to 8 digits, not %d (RFC 4226 section 5.3)", digits)
		}
		names[fmt.Sprintf("parameters for %d digits", digits)] = dn
	}
	for what, dn := range names {
		if dn == "" {
			return fmt.Errorf("the %s is missing", what)
		}
		if _, err := ldap.ParseDN(dn); err != nil {
			return fmt.Errorf("the %s %q is not a distinguished name", what, dn)
		}
	}
	return nil
}

var comparison = regexp.MustCompile(`\(([A-Za-z][A-Za-z0-9-]*)=%s\)`)

func (c *Connector) setUserFilter() error {
	m := comparison.FindStringSubmatch(c.cfg.UserFilter)
	if m == nil || strings.Count(c.cfg.UserFilter, "%") != 1 {
		return fmt.Errorf("the user filter %q must compare one attribute with the name, as %s does", c.cfg.UserFilter, DefaultUserFilter)
	}
	c.userAttr = m[1]
	if _, err := ldap.CompileFilter(c.userFilter("x")); err != nil {
		return fmt.Errorf("the user filter %q is not an LDAP filter (RFC 4515)", c.cfg.UserFilter)
	}
	return nil
}

func (c *Connector) userFilter(name string) string {
	return strings.Replace(c.cfg.UserFilter, "%s", ldap.EscapeFilter(name), 1)
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
