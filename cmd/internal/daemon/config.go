package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"tokendesk/cmd/internal/api"
)

// DefaultConfigPath is where the configuration is looked for.
const DefaultConfigPath = "/etc/tokendesk/tokendesk.toml"

// Config is the one configuration file, in TOML. Unknown keys are refused.
type Config struct {
	Vault   VaultConfig   `toml:"vault"`
	API     APIConfig     `toml:"api"`
	Devices DevicesConfig `toml:"devices"`
	Central CentralConfig `toml:"central"`
}

// VaultConfig says where the vault is and what it is sealed by.
type VaultConfig struct {
	Path           string `toml:"path"`            // the vault file
	Seal           string `toml:"seal"`            // "tpm" or "passphrase"
	TPM            string `toml:"tpm"`             // a device node, or unix:PATH for a software TPM's socket
	PassphraseFile string `toml:"passphrase_file"` // readable by its owner only
}

// APIConfig says who may speak to the daemon.
type APIConfig struct {
	Socket string `toml:"socket"` // the daemon's Unix socket
	Group  string `toml:"group"`  // members may use the desk, beside root and the daemon's own user
}

// DevicesConfig says where keys are looked for.
type DevicesConfig struct {
	USB           bool   `toml:"usb"`
	Emulator      string `toml:"emulator"`       // the bus socket of tokenemu
	AllowEmulated bool   `toml:"allow_emulated"` // allow that socket beside a vault sealed by a hardware TPM
}

// CentralConfig says which central service is pushed to, if any.
type CentralConfig struct {
	OpenLDAP *OpenLDAPConfig `toml:"openldap"`
	RetryMin Duration        `toml:"retry_min"` // first pause after a failed push
	RetryMax Duration        `toml:"retry_max"` // longest pause
}

// OpenLDAPConfig says how to reach an OpenLDAP server with the OTP overlay.
type OpenLDAPConfig struct {
	URL          string            `toml:"url"`
	StartTLS     bool              `toml:"start_tls"`
	CAFile       string            `toml:"ca_file"`
	BindDN       string            `toml:"bind_dn"`
	PasswordFile string            `toml:"password_file"` // readable by its owner only
	PeopleBase   string            `toml:"people_base"`
	UserFilter   string            `toml:"user_filter"` // %s stands for the user; "(uid=%s)" if empty
	TokensBase   string            `toml:"tokens_base"`
	Params       map[string]string `toml:"params"` // DN of the oathHOTPParams entry, by number of digits
	Timeout      Duration          `toml:"timeout"`
}

// Duration is a time span such as "30s".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err == nil && v < 0 {
		err = errors.New("a duration is not negative")
	}
	*d = Duration(v)
	return err
}

// LoadConfig reads and checks a configuration file. Every error names the file and, where there is one, the line.
func LoadConfig(path string) (Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("cannot read the configuration: %w", err)
	}
	c, err := ParseConfig(text)
	if err != nil {
		return Config{}, fmt.Errorf("%s:%w", path, err)
	}
	return c, nil
}

// ParseConfig reads and checks a configuration.
func ParseConfig(text []byte) (Config, error) {
	c := Config{
		Vault:   VaultConfig{Path: "/var/lib/tokendesk/vault.db", Seal: "tpm", TPM: "/dev/tpmrm0"},
		API:     APIConfig{Socket: api.DefaultSocket},
		Devices: DevicesConfig{USB: true},
		Central: CentralConfig{RetryMin: Duration(time.Second), RetryMax: Duration(5 * time.Minute)},
	}
	d := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Config{}, parseError(err)
	}
	if err := c.check(); err != nil {
		return Config{}, fmt.Errorf(" %w", err)
	}
	return c, nil
}

// parseError says in one line where the file is wrong. It names keys, never values.
func parseError(err error) error {
	if strict := (*toml.StrictMissingError)(nil); errors.As(err, &strict) && len(strict.Errors) > 0 {
		var all []string
		for _, e := range strict.Errors {
			line, _ := e.Position()
			all = append(all, fmt.Sprintf("%d: unknown key %s", line, strings.Join(e.Key(), ".")))
		}
		return errors.New(strings.Join(all, "\n"))
	}
	if decode := (*toml.DecodeError)(nil); errors.As(err, &decode) {
		line, column := decode.Position()
		return fmt.Errorf("%d:%d: %s", line, column, strings.TrimPrefix(decode.Error(), "toml: "))
	}
	return fmt.Errorf(" %w", err)
}

func (c Config) check() error {
	switch c.Vault.Seal {
	case "tpm":
		if c.Vault.PassphraseFile != "" {
			return errors.New(`vault.passphrase_file has no use with vault.seal = "tpm": remove one of them`)
		}
	case "passphrase":
		if c.Vault.PassphraseFile == "" {
			return errors.New(`vault.seal = "passphrase" needs vault.passphrase_file`)
		}
	default:
		return fmt.Errorf(`vault.seal is "tpm" or "passphrase", not %q`, c.Vault.Seal)
	}
	for name, path := range map[string]string{
		"vault.path": c.Vault.Path, "api.socket": c.API.Socket,
		"vault.passphrase_file": c.Vault.PassphraseFile, "devices.emulator": c.Devices.Emulator,
	} {
		if path != "" && !filepath.IsAbs(path) {
			return fmt.Errorf("%s needs an absolute path, not %q", name, path)
		}
	}
	if c.Vault.Path == "" || c.API.Socket == "" {
		return errors.New("vault.path and api.socket must not be empty")
	}
	if c.Central.RetryMin == 0 || c.Central.RetryMax < c.Central.RetryMin {
		return errors.New("central.retry_min must be more than 0 and at most central.retry_max")
	}
	if o := c.Central.OpenLDAP; o != nil {
		for name, value := range map[string]string{
			"url": o.URL, "bind_dn": o.BindDN, "password_file": o.PasswordFile,
			"people_base": o.PeopleBase, "tokens_base": o.TokensBase,
		} {
			if value == "" {
				return fmt.Errorf("central.openldap.%s is missing", name)
			}
		}
		for digits := range o.Params {
			if digits != "6" && digits != "8" {
				return fmt.Errorf("central.openldap.params: tokens have 6 or 8 digits, not %q", digits)
			}
		}
		if len(o.Params) == 0 {
			return errors.New("central.openldap.params is missing: name the oathHOTPParams entries for 6 and 8 digits")
		}
	}
	return nil
}
