package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"tokendesk/cmd/internal/api"
)

// maxConfig is more than any configuration needs, in bytes.
const maxConfig = 1 << 20

// DefaultConfigPath is where the configuration is looked for.
const DefaultConfigPath = "/etc/tokendesk/tokendesk.toml"

// Config is the one configuration file, in TOML. Unknown keys are refused.
type Config struct {
	Desk    DeskConfig     `toml:"desk"`
	Vault   VaultConfig    `toml:"vault"`
	Backup  BackupConfig   `toml:"backup"`
	Audit   AuditConfig    `toml:"audit"`
	API     APIConfig      `toml:"api"`
	Devices DevicesConfig  `toml:"devices"`
	Central CentralConfig  `toml:"central"`
	Roles   RolesConfig    `toml:"roles"`
	Notices *NoticesConfig `toml:"notices"`
	Policy  PolicyConfig   `toml:"policy"`
	// Tenants names the groups whose members have a role for the tokens of one tenant only, by its name.
	Tenants map[string]TenantConfig `toml:"tenants"`
	// Types says what the administrator makes of types of tokens, by their codes.
	Types map[string]TypeConfig `toml:"types"`
}

// VaultConfig says where the vault is and what it is sealed by. Whether it needs a PIN is chosen when it is made.
type VaultConfig struct {
	Path       string   `toml:"path"`        // the vault file
	Seal       string   `toml:"seal"`        // "tpm", "passphrase" or "keyfile"
	TPM        string   `toml:"tpm"`         // a device node, or unix:PATH for a software TPM's socket
	KeyFile    string   `toml:"key_file"`    // readable by its owner only; lies beside what it opens: obfuscation
	ShredAfter Duration `toml:"shred_after"` // how long destroyed seeds may stay, sealed, in unused pages of the file
}

// BackupConfig says where encrypted backups go.
type BackupConfig struct {
	Dir   string   `toml:"dir"`   // none are made if it is empty
	Every Duration `toml:"every"` // since the last one
	Keep  int      `toml:"keep"`  // older ones are removed; 0 keeps all
}

// AuditConfig says where signed heads of the audit trail go, beside the journal.
type AuditConfig struct {
	Heads string `toml:"heads"` // a file that they are added to
}

// APIConfig says where the daemon is spoken to. Who may do so is in RolesConfig.
type APIConfig struct {
	Socket string `toml:"socket"` // the daemon's Unix socket
}

// DevicesConfig says where keys are looked for.
type DevicesConfig struct {
	USB           bool   `toml:"usb"`
	Emulator      string `toml:"emulator"`       // the bus socket of tokenemu
	AllowEmulated bool   `toml:"allow_emulated"` // allow emulated keys, from there, on USB or in a reader, beside a vault sealed by a hardware TPM
	PCSC          bool   `toml:"pcsc"`           // look for smart cards by pcscd, for PIV
	// EmulatedReaders are names of readers, or what they begin with, whose cards are no hardware tokens.
	EmulatedReaders []string `toml:"emulated_readers"`
}

// RolesConfig says who may do what, by Unix groups. Root and the daemon's own user may do everything; where no group is named,
// nobody else may.
type RolesConfig struct {
	Officers       string `toml:"officers"`       // work with tokens and with what the central service is told
	Approvers      string `toml:"approvers"`      // approve what takes a second officer
	Auditors       string `toml:"auditors"`       // see everything, export the audit trail; officers may, if none is named
	Administrators string `toml:"administrators"` // make, move and restore the vault
}

// TenantConfig says who may do what with the tokens of one tenant. Whoever has a role in RolesConfig has it for these, too.
type TenantConfig struct {
	Officers  string `toml:"officers"`
	Approvers string `toml:"approvers"`
	Auditors  string `toml:"auditors"`
}

// PolicyConfig says what takes a second officer, beside giving up a cut-off.
type PolicyConfig struct {
	ApproveLastToken      bool `toml:"approve_last_token"`      // whatever leaves a user without an active token
	ApproveCompromiseOver int  `toml:"approve_compromise_over"` // the compromise of more tokens than this at a time; 0: never
}

// TypeConfig is what the administrator makes of a type of token.
type TypeConfig struct {
	Name        string `toml:"name"`        // empty: the desk's
	Description string `toml:"description"` // empty: the desk's
	Retired     bool   `toml:"retired"`     // none is enrolled any more, and those that are there are shown as out of date
	Instead     string `toml:"instead"`     // what to register instead of a retired one
	Offered     bool   `toml:"offered"`     // of mail and phone: somebody sends such codes, so that tokens of the type can be added
}

// CentralConfig says which central service is pushed to, if any.
type CentralConfig struct {
	OpenLDAP *OpenLDAPConfig `toml:"openldap"`
	RetryMin Duration        `toml:"retry_min"` // first pause after a failed push
	RetryMax Duration        `toml:"retry_max"` // longest pause
	// ConfirmTimeout is how long a reissue waits for the service to confirm that the old owner is cut off.
	ConfirmTimeout Duration `toml:"confirm_timeout"`
	RefreshEvery   Duration `toml:"refresh_every"` // how often all counters are read back, and levelled between providers
}

// OpenLDAPConfig says how to reach OpenLDAP servers with the OTP overlay, which replicate one another. The desk is known
// to them by a password, by a client certificate, or on ldapi:// by its user.
type OpenLDAPConfig struct {
	URLs         []string          `toml:"urls"`
	StartTLS     bool              `toml:"start_tls"`
	CAFile       string            `toml:"ca_file"`
	BindDN       string            `toml:"bind_dn"`
	PasswordFile string            `toml:"password_file"` // readable by its owner only
	ClientCert   string            `toml:"client_cert"`   // PEM
	ClientKey    string            `toml:"client_key"`    // PEM, readable by its owner only
	PeopleBase   string            `toml:"people_base"`
	UserFilter   string            `toml:"user_filter"` // %s stands for the user; "(uid=%s)" if empty
	TokensBase   string            `toml:"tokens_base"`
	Params       map[string]string `toml:"params"` // DN of the oathHOTPParams entry, by number of digits
	Timeout      Duration          `toml:"timeout"`
	// MailAttribute holds users' mail addresses, for notices; "mail" if empty.
	MailAttribute string `toml:"mail_attribute"`
}

// Duration is a time span such as "30s".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler. Its error does not repeat the text.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return errors.New(`a time span is written with its unit and in quotes, such as "30s"`)
	}
	*d = Duration(v)
	return nil
}

// LoadConfig reads and checks a configuration file.
func LoadConfig(path string) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, fmt.Errorf("cannot read the configuration: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Config{}, fmt.Errorf("cannot read the configuration: %w", err)
	}
	if m := info.Mode().Perm(); m&0o022 != 0 {
		return Config{}, fmt.Errorf("%s: others could change the configuration (mode %04o): look at it, and run chmod go-w %s", path, m, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxConfig))
	if err != nil {
		return Config{}, fmt.Errorf("cannot read the configuration: %w", err)
	}
	return ParseConfig(path, text)
}

// ParseConfig reads and checks a configuration. Every line of its error starts with the name of the file
// and, where there is one, the line: NAME:LINE: unknown key a.b. It names keys and never repeats a value,
// because a password may stand in the wrong place.
func ParseConfig(name string, text []byte) (Config, error) {
	c := Config{
		Vault:   VaultConfig{Path: "/var/lib/tokendesk/vault.db", Seal: sealTPM, TPM: "/dev/tpmrm0", ShredAfter: Duration(time.Hour)},
		Backup:  BackupConfig{Every: Duration(24 * time.Hour), Keep: 30},
		API:     APIConfig{Socket: api.DefaultSocket},
		Devices: DevicesConfig{USB: true},
		Central: CentralConfig{RetryMin: Duration(time.Second), RetryMax: Duration(5 * time.Minute), ConfirmTimeout: Duration(15 * time.Second), RefreshEvery: Duration(time.Minute)},
	}
	d := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	problems := syntaxProblems(d.Decode(&c))
	if len(problems) == 0 {
		for _, p := range c.check() {
			problems = append(problems, " "+p)
		}
	}
	if len(problems) > 0 {
		return Config{}, errors.New(name + ":" + strings.Join(problems, "\n"+name+":"))
	}
	return c, nil
}
