package daemon

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/pelletier/go-toml/v2"

	"tokendesk/provision"
)

// syntaxProblems says where a file is not what Config describes, each as "LINE: what".
func syntaxProblems(err error) (problems []string) {
	strict, decode := (*toml.StrictMissingError)(nil), (*toml.DecodeError)(nil)
	switch {
	case err == nil:
	case errors.As(err, &strict): // first, because it unwraps into DecodeErrors
		for _, e := range strict.Errors {
			line, _ := e.Position()
			problems = append(problems, fmt.Sprintf("%d: %s", line, unknown(keyName(e.Key()))))
		}
	case errors.As(err, &decode):
		line, column := decode.Position()
		what := plain(decode.Error())
		if key := decode.Key(); len(key) > 0 && !strings.Contains(what, "already") { // that names the key itself
			problems = append(problems, fmt.Sprintf("%d: %s: %s", line, keyName(key), what))
		} else {
			problems = append(problems, fmt.Sprintf("%d:%d: %s", line, column, what))
		}
	default: // from a value that go-toml does not place
		problems = append(problems, " "+plain(err.Error()))
	}
	return problems
}

// gone are keys of before, and what to say instead.
var gone = map[string]string{
	"vault.passphrase_file": `a passphrase is typed now (tokendesk vault unlock); for one that lies in a file, which is obfuscation, say seal = "keyfile" and name it in key_file`,
	"api.group":             "name the group in [roles], as officers",
}

func unknown(key string) string {
	if now, was := gone[key]; was {
		return key + " is gone: " + now
	}
	return "unknown key " + key
}

var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// keyName is a key as TOML writes it.
func keyName(key toml.Key) string {
	var parts []string
	for _, p := range key {
		if !bareKey.MatchString(p) {
			p = strconv.Quote(p)
		}
		parts = append(parts, p)
	}
	return strings.Join(parts, ".")
}

var (
	// What go-toml v2.4.3 repeats of values: the character at which it stops, and a number that it cannot parse.
	repeated  = regexp.MustCompile(`(?: but got|:)? U\+[0-9A-F]{4,}(?: '.')?|: strconv\..*`)
	wrongType = regexp.MustCompile(`^cannot decode TOML (.+) into .*?(\S+)$`)
)

// plain is a message of go-toml without values and without the names of Go's types.
func plain(message string) string {
	message = strings.TrimPrefix(message, "toml: ")
	message = repeated.ReplaceAllString(message, "")
	message = strings.Map(func(c rune) rune {
		if strconv.IsPrint(c) {
			return c
		}
		return '?' // of a key: keep the error in its line
	}, message)
	m := wrongType.FindStringSubmatch(message)
	if m == nil {
		return message
	}
	need, named := map[string]string{"bool": "true or false", "string": "a string in quotes"}[m[2]]
	if !named {
		need = "a table"
	}
	return fmt.Sprintf("needs %s, not this %s", need, m[1])
}

// check says what is wrong with a configuration that is well written.
func (c Config) check() []string {
	return slices.Concat(c.Desk.check(), c.Vault.check(), c.Backup.check(), c.paths(), c.Devices.check(), c.Central.check(), c.Notices.check(c.Central), c.Policy.check(), c.checkTypes(), c.checkTenants())
}

func (c DevicesConfig) check() (problems []string) {
	if len(c.EmulatedReaders) > 0 && !c.PCSC {
		problems = append(problems, "devices.emulated_readers without devices.pcsc = true: no reader is looked for")
	}
	if slices.Contains(c.EmulatedReaders, "") {
		problems = append(problems, "devices.emulated_readers: an empty name would mean every reader")
	}
	return problems
}

func (p PolicyConfig) check() (problems []string) {
	if p.ApproveCompromiseOver < 0 {
		problems = append(problems, "policy.approve_compromise_over must not be negative; 0 asks nobody")
	}
	return problems
}

// tenantName is what tokens and commands call a tenant.
var tenantName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

func (c Config) checkTenants() (problems []string) {
	for name, t := range c.Tenants {
		key := "tenants." + keyName(toml.Key{name})
		switch {
		case !tenantName.MatchString(name):
			problems = append(problems, key+": a tenant is named by up to 64 small letters, digits and -")
		case t == TenantConfig{}:
			problems = append(problems, key+" names no group: nobody would have a role in it")
		}
	}
	slices.Sort(problems) // a map has no order
	return problems
}

func (c Config) checkTypes() (problems []string) {
	for code, t := range c.Types {
		key := "types." + keyName(toml.Key{code})
		switch {
		case !slices.ContainsFunc(provision.Types(), func(t provision.Type) bool { return t.Code == code }):
			problems = append(problems, key+": there is no such type; tokendesk types shows them all")
		case t.Offered && code != provision.TypeMail && code != provision.TypePhone:
			problems = append(problems, key+".offered has no use: such tokens are always offered, unless they are retired")
		case t.Instead != "" && !t.Retired:
			problems = append(problems, key+".instead has no use without retired = true")
		}
		for name, text := range map[string]string{".name": t.Name, ".description": t.Description, ".instead": t.Instead} {
			if strings.ContainsFunc(text, unicode.IsControl) || len(text) > maxWords {
				problems = append(problems, fmt.Sprintf("%s%s must be one line of up to %d bytes", key, name, maxWords))
			}
		}
	}
	slices.Sort(problems) // a map has no order
	return problems
}

// maxWords is how long the administrator's words about a type may be, in bytes.
const maxWords = 200

// What a vault can be sealed by.
const (
	sealTPM        = "tpm"
	sealPassphrase = "passphrase"
	sealKeyFile    = "keyfile"
)

func (v VaultConfig) check() (problems []string) {
	switch {
	case v.Seal != sealTPM && v.Seal != sealPassphrase && v.Seal != sealKeyFile:
		problems = append(problems, `vault.seal must be "tpm", "passphrase" or "keyfile"`)
	case v.Seal != sealKeyFile && v.KeyFile != "":
		problems = append(problems, fmt.Sprintf("vault.key_file has no use with vault.seal = %q: remove one of them", v.Seal))
	case v.Seal == sealTPM && v.TPM == "":
		problems = append(problems, `vault.seal = "tpm" needs vault.tpm`)
	case v.Seal == sealKeyFile && v.KeyFile == "":
		problems = append(problems, `vault.seal = "keyfile" needs vault.key_file`)
	}
	if !v.ShredAfter.sensible() {
		problems = append(problems, `vault.shred_after needs a time span with its unit, such as "1h"`)
	}
	return problems
}

func (b BackupConfig) check() (problems []string) {
	if !b.Every.sensible() {
		problems = append(problems, `backup.every needs a time span with its unit, such as "24h"`)
	}
	if b.Keep < 0 {
		problems = append(problems, "backup.keep must not be negative; 0 keeps all")
	}
	return problems
}

// paths checks that no path depends on the directory in which the daemon was started, and that none stands for two things.
func (c Config) paths() (problems []string) {
	if c.Vault.Path == "" {
		problems = append(problems, "vault.path must not be empty")
	}
	if c.API.Socket == "" {
		problems = append(problems, "api.socket must not be empty")
	}
	type entry struct{ key, path string }
	entries := []entry{
		{"vault.path", c.Vault.Path}, {"vault.tpm", strings.TrimPrefix(c.Vault.TPM, "unix:")}, {"vault.key_file", c.Vault.KeyFile},
		{"backup.dir", c.Backup.Dir}, {"audit.heads", c.Audit.Heads},
		{"api.socket", c.API.Socket}, {"devices.emulator", c.Devices.Emulator},
	}
	if o := c.Central.OpenLDAP; o != nil {
		entries = append(entries, entry{"central.openldap.ca_file", o.CAFile}, entry{"central.openldap.password_file", o.PasswordFile},
			entry{"central.openldap.client_cert", o.ClientCert}, entry{"central.openldap.client_key", o.ClientKey})
	}
	if n := c.Notices; n != nil {
		entries = append(entries, entry{"notices.ca_file", n.CAFile}, entry{"notices.password_file", n.PasswordFile}, entry{"notices.templates", n.Templates})
	}
	keys := map[string]string{}
	for _, e := range entries {
		switch {
		case e.path == "":
			continue
		case !filepath.IsAbs(e.path):
			problems = append(problems, e.key+" needs an absolute path")
		case keys[filepath.Clean(e.path)] != "":
			problems = append(problems, fmt.Sprintf("%s and %s are the same path", keys[filepath.Clean(e.path)], e.key))
		}
		keys[filepath.Clean(e.path)] = e.key
	}
	return problems
}

func (c CentralConfig) check() (problems []string) {
	if !c.RetryMin.sensible() || !c.RetryMax.sensible() || !c.ConfirmTimeout.sensible() || !c.RefreshEvery.sensible() {
		problems = append(problems, `central.retry_min, central.retry_max, central.confirm_timeout and central.refresh_every need a time span with its unit, such as "30s"`)
	} else if c.RetryMax < c.RetryMin {
		problems = append(problems, "central.retry_max must not be less than central.retry_min")
	}
	if c.OpenLDAP != nil {
		problems = append(problems, c.OpenLDAP.check()...)
	}
	return problems
}

// sensible: go-toml takes a bare number as nanoseconds, which is what nobody means by "retry_min = 5".
func (d Duration) sensible() bool { return time.Duration(d) >= time.Millisecond }

func (o *OpenLDAPConfig) check() (problems []string) {
	for _, e := range []struct{ key, value string }{
		{"bind_dn", o.BindDN},
		{"people_base", o.PeopleBase}, {"tokens_base", o.TokensBase},
	} {
		if e.value == "" {
			problems = append(problems, "central.openldap."+e.key+" is missing")
		}
	}
	if len(o.URLs) == 0 {
		problems = append(problems, `central.openldap.urls is missing: name every provider, such as ["ldaps://a.example.org", "ldaps://b.example.org"]`)
	}
	if (o.ClientCert == "") != (o.ClientKey == "") {
		problems = append(problems, "central.openldap.client_cert and central.openldap.client_key go together")
	}
	if o.PasswordFile != "" && o.ClientCert != "" {
		problems = append(problems, "central.openldap: the desk is known either by password_file or by client_cert and client_key: choose one")
	}
	if o.PasswordFile == "" && o.ClientCert == "" && slices.ContainsFunc(o.URLs, func(u string) bool { return !strings.HasPrefix(u, "ldapi:") }) {
		problems = append(problems, "central.openldap.password_file is missing; only ldapi:// and a client_cert need none")
	}
	if o.Timeout != 0 && !o.Timeout.sensible() {
		problems = append(problems, `central.openldap.timeout needs a time span with its unit, such as "30s"`)
	}
	if len(o.Params) == 0 {
		problems = append(problems, "central.openldap.params is missing: name the oathHOTPParams entries for 6 and 8 digits")
	}
	for digits, dn := range o.Params {
		switch {
		case digits != "6" && digits != "8":
			problems = append(problems, "central.openldap.params: tokens have 6 or 8 digits, there is no "+keyName(toml.Key{digits}))
		case dn == "":
			problems = append(problems, "central.openldap.params."+digits+" is empty")
		}
	}
	slices.Sort(problems) // a map has no order
	return problems
}
