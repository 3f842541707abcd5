package openldap

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/vault/secret"
)

const (
	// DefaultUserFilter finds a user by name.
	DefaultUserFilter = "(uid=%s)"
	// DefaultTimeout bounds one exchange with a provider, connecting included.
	DefaultTimeout = 10 * time.Second
)

// Config says where the directory is and how it is laid out.
type Config struct {
	// URLs are the providers, which replicate each other; writes go to the first that can be reached. Each is
	// ldaps://host[:port], ldap:// with StartTLS or on loopback, or ldapi://SOCKET, percent-encoded or not.
	URLs       []string
	StartTLS   bool           // on ldap://
	CAFile     string         // PEM certificates that sign the servers'; empty means the system's
	ClientCert string         // PEM certificate that the servers know the desk by; may be empty
	ClientKey  string         // PEM, its key; a file for this user only
	BindDN     string         // the provisioning identity; may be empty without Password
	Password   secret.Secret  // of BindDN; kept, not copied. Zero means SASL EXTERNAL
	PeopleBase string         // users are searched below it
	UserFilter string         // finds one user; %s is the name; empty means DefaultUserFilter
	TokensBase string         // token entries stand directly below it
	Params     map[int]string // digits to the DN of the oathHOTPParams entry
	Timeout    time.Duration  // 0 means DefaultTimeout
	// MailAttribute holds users' mail addresses; empty: they are not read.
	MailAttribute string
	Desk          string // names the vault whose generations are counted, in one word; may be empty
}

// external tells whether the server knows the desk by something else than a password.
func (c *Config) external() bool { return c.Password.IsZero() }

func (c *Config) check() error {
	if c.external() && (c.ClientCert == "" || slices.ContainsFunc(c.URLs, func(u string) bool { return strings.HasPrefix(u, "ldap:") && !c.StartTLS })) &&
		slices.ContainsFunc(c.URLs, func(u string) bool { return !strings.HasPrefix(u, "ldapi:") }) {
		return errors.New("the password of the bind DN is missing: without one a bind would be anonymous (RFC 4513 section 5.1.2); or name a client certificate, with TLS, or use ldapi://")
	}
	if (c.ClientCert == "") != (c.ClientKey == "") {
		return errors.New("a client certificate and its key go together: name both files")
	}
	if c.MailAttribute != "" && !attributeName.MatchString(c.MailAttribute) {
		return fmt.Errorf("%q is not the name of an attribute", c.MailAttribute)
	}
	if len(c.Params) == 0 {
		return errors.New("no oathHOTPParams entry is named, for example 6 = \"cn=hotp6,ou=tokens,dc=example,dc=org\"")
	}
	if desk := strings.Fields(c.Desk); len(desk) > 1 || len(desk) == 1 && desk[0] != c.Desk || !utf8.ValidString(c.Desk) {
		return fmt.Errorf("the desk's name %q is not one word", c.Desk)
	}
	names := map[string]string{"people base": c.PeopleBase, "tokens base": c.TokensBase}
	if c.BindDN != "" || !c.external() {
		names["bind DN"] = c.BindDN
	}
	for digits, dn := range c.Params {
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

// nameAttr is the attribute that UserFilter compares with the name.
func (c *Config) nameAttr() (string, error) {
	m := comparison.FindStringSubmatch(c.UserFilter)
	if m == nil || strings.Count(c.UserFilter, "%") != 1 {
		return "", fmt.Errorf("the user filter %q must compare one attribute with the name, as %s does", c.UserFilter, DefaultUserFilter)
	}
	if _, err := ldap.CompileFilter(c.userFilter("x")); err != nil {
		return "", fmt.Errorf("the user filter %q is not an LDAP filter (RFC 4515)", c.UserFilter)
	}
	return m[1], nil
}

func (c *Config) userFilter(name string) string {
	return strings.Replace(c.UserFilter, "%s", ldap.EscapeFilter(name), 1)
}
