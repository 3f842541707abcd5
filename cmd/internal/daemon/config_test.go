package daemon

import (
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"tokendesk/cmd/internal/api"
)

// complete has every key.
const complete = `
[vault]
path = "/srv/vault.db"
seal = "keyfile"
tpm = "unix:/run/swtpm.sock"
key_file = "/etc/tokendesk/key"
shred_after = "2h"

[backup]
dir = "/mnt/backup"
every = "12h"
keep = 7

[audit]
heads = "/mnt/heads"

[api]
socket = "/run/desk.sock"

[devices]
usb = false
emulator = "/run/emu.sock"
allow_emulated = true

[central]
retry_min = "200ms"
retry_max = "1h"
confirm_timeout = "20s"
refresh_every = "2m"

[roles]
officers = "officers"
approvers = "approvers"
auditors = "auditors"
administrators = "administrators"

[policy]
approve_last_token = true
approve_compromise_over = 5

[types.yubikey-hotp]
name = "Touch key"
description = "Types a code"
retired = true
instead = "a passkey"

[central.openldap]
urls = ["ldaps://ldap.example.org"]
start_tls = true
ca_file = "/etc/ssl/ca.pem"
bind_dn = "cn=desk"
password_file = "/etc/tokendesk/ldap"
people_base = "ou=people"
user_filter = "(mail=%s)"
tokens_base = "ou=tokens"
params = { 6 = "cn=six", 8 = "cn=eight" }
timeout = "3s"
`

func TestConfigDefaults(t *testing.T) {
	c, err := ParseConfig("desk.toml", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Vault:   VaultConfig{Path: "/var/lib/tokendesk/vault.db", Seal: "tpm", TPM: "/dev/tpmrm0", ShredAfter: Duration(time.Hour)},
		Backup:  BackupConfig{Every: Duration(24 * time.Hour), Keep: 30},
		API:     APIConfig{Socket: api.DefaultSocket},
		Devices: DevicesConfig{USB: true},
		Central: CentralConfig{RetryMin: Duration(time.Second), RetryMax: Duration(5 * time.Minute), ConfirmTimeout: Duration(15 * time.Second), RefreshEvery: Duration(time.Minute)},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("%+v", c)
	}
}

func TestConfigTakesEveryKey(t *testing.T) {
	c, err := ParseConfig("desk.toml", []byte(complete))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Vault: VaultConfig{Path: "/srv/vault.db", Seal: "keyfile", TPM: "unix:/run/swtpm.sock", KeyFile: "/etc/tokendesk/key",
			ShredAfter: Duration(2 * time.Hour)},
		Backup:  BackupConfig{Dir: "/mnt/backup", Every: Duration(12 * time.Hour), Keep: 7},
		Audit:   AuditConfig{Heads: "/mnt/heads"},
		API:     APIConfig{Socket: "/run/desk.sock"},
		Devices: DevicesConfig{Emulator: "/run/emu.sock", AllowEmulated: true},
		Roles:   RolesConfig{Officers: "officers", Approvers: "approvers", Auditors: "auditors", Administrators: "administrators"},
		Policy:  PolicyConfig{ApproveLastToken: true, ApproveCompromiseOver: 5},
		Types:   map[string]TypeConfig{"yubikey-hotp": {Name: "Touch key", Description: "Types a code", Retired: true, Instead: "a passkey"}},
		Central: CentralConfig{
			RetryMin: Duration(200 * time.Millisecond), RetryMax: Duration(time.Hour), ConfirmTimeout: Duration(20 * time.Second), RefreshEvery: Duration(2 * time.Minute),
			OpenLDAP: &OpenLDAPConfig{
				URLs: []string{"ldaps://ldap.example.org"}, StartTLS: true, CAFile: "/etc/ssl/ca.pem", BindDN: "cn=desk", PasswordFile: "/etc/tokendesk/ldap",
				PeopleBase: "ou=people", UserFilter: "(mail=%s)", TokensBase: "ou=tokens",
				Params: map[string]string{"6": "cn=six", "8": "cn=eight"}, Timeout: Duration(3 * time.Second),
			},
		},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("%+v", c)
	}
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"a = 1\n[vault]\nb = 2\nc.d = 3\n[central.openldap]\npassword = 'hunter2'\n[foo]\nx = 1\n",
			"desk.toml:1: unknown key a\ndesk.toml:3: unknown key vault.b\ndesk.toml:4: unknown key vault.c.d\n" +
				"desk.toml:6: unknown key central.openldap.password\ndesk.toml:7: unknown key foo"},
		{"\n\"strange\\nkey\" = 1", `desk.toml:2: unknown key "strange\nkey"`},
		{"[devices]\nusb = 'hunter2'", "desk.toml:2: devices.usb: needs true or false, not this string"},
		{"[devices]\nusb = 1e400", "desk.toml:2: devices.usb: unable to parse float"},
		{"[vault]\n\npath = 3", "desk.toml:3: vault.path: needs a string in quotes, not this integer"},
		{"vault = 3", "desk.toml:1: vault: needs a table, not this integer"},
		{"central.openldap = 'hunter2'", "desk.toml:1: central.openldap: needs a table, not this string"},
		{"[central.openldap]\nparams = 'hunter2'", "desk.toml:2: central.openldap.params: needs a table, not this string"},
		{"[central.openldap]\nparams = { 6 = 7 }", "desk.toml:2: central.openldap.params: needs a string in quotes, not this integer"},
		{"[central]\nretry_min = 'hunter2'", `desk.toml:2: central.retry_min: a time span is written with its unit and in quotes, such as "30s"`},
		{"[central]\nretry_min = '-1s'", `desk.toml:2: central.retry_min: a time span is written with its unit and in quotes, such as "30s"`},
		{"[central]\nretry_min = 1.5", `desk.toml: a time span is written with its unit and in quotes, such as "30s"`},
		{"[vault]\npath = '/run/x'\n[api]\nsocket = '/run//x'", "desk.toml: vault.path and api.socket are the same path"},
		{"[central]\nretry_min = 5", `desk.toml: central.retry_min, central.retry_max, central.confirm_timeout and central.refresh_every need a time span with its unit, such as "30s"`},
		{"[central]\nretry_min = '0s'", `desk.toml: central.retry_min, central.retry_max, central.confirm_timeout and central.refresh_every need a time span with its unit, such as "30s"`},
		{"[central]\nretry_max = '10ms'", "desk.toml: central.retry_max must not be less than central.retry_min"},
		{"[vault]\npath = '/a'\npath = '/b'", "desk.toml:3:1: key path is already defined"},
		{"\"a\\nb\" = 1\n\"a\\nb\" = 1", "desk.toml:2:1: key a?b is already defined"},
		{"[vault]\npath = hunter2", "desk.toml:2:8: unexpected character at start of value"},
		{"[vault]\npath = 'a' hunter2", "desk.toml:2:12: expected newline"},
		{"[vault]\npath = \"\\q\"", "desk.toml:2:9: invalid escape character"},
		{"=", "desk.toml:1:1: invalid character at start of key"},

		{"vault.path = ''", "desk.toml: vault.path must not be empty"},
		{"vault.path = 'vault.db'", "desk.toml: vault.path needs an absolute path"},
		{"vault.tpm = 'unix:tpm.sock'", "desk.toml: vault.tpm needs an absolute path"},
		{"vault.tpm = ''", `desk.toml: vault.seal = "tpm" needs vault.tpm`},
		{"vault.seal = 'hunter2'", `desk.toml: vault.seal must be "tpm", "passphrase" or "keyfile"`},
		{"vault.key_file = '/p'", `desk.toml: vault.key_file has no use with vault.seal = "tpm": remove one of them`},
		{"vault.seal = 'passphrase'\nvault.key_file = '/p'", `desk.toml: vault.key_file has no use with vault.seal = "passphrase": remove one of them`},
		{"vault.seal = 'keyfile'", `desk.toml: vault.seal = "keyfile" needs vault.key_file`},
		{"vault.seal = 'keyfile'\nvault.key_file = 'hunter2'", "desk.toml: vault.key_file needs an absolute path"},
		{"[vault]\npassphrase_file = '/hunter2'", "desk.toml:2: vault.passphrase_file is gone: a passphrase is typed now (tokendesk vault unlock); " +
			`for one that lies in a file, which is obfuscation, say seal = "keyfile" and name it in key_file`},
		{"vault.shred_after = 5", `desk.toml: vault.shred_after needs a time span with its unit, such as "1h"`},
		{"backup.every = '0s'", `desk.toml: backup.every needs a time span with its unit, such as "24h"`},
		{"backup.keep = -1", "desk.toml: backup.keep must not be negative; 0 keeps all"},
		{"backup.dir = 'hunter2'", "desk.toml: backup.dir needs an absolute path"},
		{"audit.heads = '/x'\nvault.path = '/x'", "desk.toml: vault.path and audit.heads are the same path"},
		{"[api]\ngroup = 'hunter2'", "desk.toml:2: api.group is gone: name the group in [roles], as officers"},
		{"policy.approve_compromise_over = -1", "desk.toml: policy.approve_compromise_over must not be negative; 0 asks nobody"},
		{"[types.abacus]\nname = 'hunter2'", "desk.toml: types.abacus: there is no such type; tokendesk types shows them all"},
		{"[types.yubikey-hotp]\ninstead = 'hunter2'", "desk.toml: types.yubikey-hotp.instead has no use without retired = true"},
		{"[types.yubikey-hotp]\nname = \"hunter2\\n\"", "desk.toml: types.yubikey-hotp.name must be one line of up to 200 bytes"},
		{"[types.yubikey-hotp]\ncolour = 'hunter2'", "desk.toml:2: unknown key types.yubikey-hotp.colour"},
		{"types = 3", "desk.toml:1: types: needs a table, not this integer"},
		{"api.socket = ''", "desk.toml: api.socket must not be empty"},
		{"api.socket = 'desk.sock'", "desk.toml: api.socket needs an absolute path"},
		{"devices.emulator = 'emu.sock'", "desk.toml: devices.emulator needs an absolute path"},
		{"devices.emulated_readers = ['Virtual']", "desk.toml: devices.emulated_readers without devices.pcsc = true: no reader is looked for"},
		{"[devices]\npcsc = true\nemulated_readers = ['']", "desk.toml: devices.emulated_readers: an empty name would mean every reader"},
		{"api.socket = 'a'\nvault.path = 'b'", "desk.toml: vault.path needs an absolute path\ndesk.toml: api.socket needs an absolute path"},
		{"[central.openldap]", "desk.toml: central.openldap.bind_dn is missing\n" +
			"desk.toml: central.openldap.params is missing: name the oathHOTPParams entries for 6 and 8 digits\n" +
			"desk.toml: central.openldap.people_base is missing\ndesk.toml: central.openldap.tokens_base is missing\n" +
			`desk.toml: central.openldap.urls is missing: name every provider, such as ["ldaps://a.example.org", "ldaps://b.example.org"]`},
		{strings.Replace(complete, "password_file", "client_cert", 1), "desk.toml: central.openldap.client_cert and central.openldap.client_key go together"},
		{complete + "client_cert = '/c'\nclient_key = '/k'\n", "desk.toml: central.openldap: the desk is known either by password_file or by client_cert and client_key: choose one"},
		{strings.Replace(complete, `password_file = "/etc/tokendesk/ldap"`, "", 1), "desk.toml: central.openldap.password_file is missing; only ldapi:// and a client_cert need none"},
		{strings.Replace(complete, `"/etc/tokendesk/ldap"`, `"hunter2"`, 1), "desk.toml: central.openldap.password_file needs an absolute path"},
		{strings.Replace(complete, `"/etc/ssl/ca.pem"`, `"ca.pem"`, 1), "desk.toml: central.openldap.ca_file needs an absolute path"},
		{strings.Replace(complete, `"3s"`, `3`, 1), `desk.toml: central.openldap.timeout needs a time span with its unit, such as "30s"`},
		{strings.Replace(complete, "6 =", "7 =", 1), "desk.toml: central.openldap.params: tokens have 6 or 8 digits, there is no 7"},
		{strings.Replace(complete, `"cn=six"`, `""`, 1), "desk.toml: central.openldap.params.6 is empty"},
	} {
		_, err := ParseConfig("desk.toml", []byte(c.text))
		if err == nil || err.Error() != c.want {
			t.Errorf("%s\n got %v\nwant %s", c.text, err, c.want)
		}
	}
}

// A password may stand anywhere in the file; an error that repeats it would end up in a log.
func TestConfigErrorsRepeatNoValue(t *testing.T) {
	keys := []string{
		"vault.path", "vault.seal", "vault.tpm", "vault.passphrase_file", "vault.key_file", "vault.shred_after", "backup.dir", "backup.every", "backup.keep", "audit.heads", "api.socket", "api.group", "roles.officers", "policy.approve_last_token", "policy.approve_compromise_over", "types", "types.yubikey-hotp", "types.yubikey-hotp.retired", "types.yubikey-hotp.name", "types.x.name", "devices.usb", "devices.emulator",
		"devices.allow_emulated", "devices.pcsc", "devices.emulated_readers", "central.retry_min", "central.openldap.password_file", "central.openldap.password",
		"central.openldap.params", "central.openldap.params.6", "central.openldap.timeout", "central.openldap.start_tls", "password",
	}
	values := []string{
		"'hunter2'", `"hunter2"`, "hunter2", "+hunter2", "'hunter2", "[ 'hunter2' ]", "[ hunter2 ]", "{ x = 'hunter2' }", "{ x = hunter2 }",
		"'''\nhunter2", "'x' 'hunter2'", "'x'\nhunter2", `"hunter2\q"`, "true hunter2", "1hunter2", "'x' # hunter2", "'\x00hunter2'",
		"8242735619", "8242735619e400", "8242735619_", "0x8242735619zz", "8242735619.5", "2020-01-01T8242735619",
	}
	for _, key := range keys {
		for _, value := range values {
			text := key + " = " + value
			_, err := ParseConfig("desk.toml", []byte(text))
			if err == nil {
				continue // not every key has a wrong value
			}
			if strings.Contains(err.Error(), "hunter") || strings.Contains(err.Error(), "8242735619") {
				t.Errorf("%s\n%v", text, err)
			}
		}
	}
}

func TestLoadConfig(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "desk.toml")
	if err := os.WriteFile(path, []byte(complete+"nonsense = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	line := strings.Count(complete, "\n") + 1
	if _, err := LoadConfig(path); err == nil || err.Error() != path+":"+strconv.Itoa(line)+": unknown key central.openldap.nonsense" {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(path, []byte(complete), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := LoadConfig(path); err != nil || c.Roles.Officers != "officers" {
		t.Errorf("%+v, %v", c, err)
	}
	for _, c := range []struct{ path, want string }{
		{dir, "is a directory"},
		{filepath.Join(dir, "absent.toml"), "no such file"},
		{filepath.Join(path, "below"), "not a directory"},
	} {
		_, err := LoadConfig(c.path)
		if err == nil || !strings.HasPrefix(err.Error(), "cannot read the configuration: ") || !strings.Contains(err.Error(), c.path) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v", err)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	for _, seed := range []string{
		"", complete, "a = 1", "[devices]\nusb = 1", "vault = 3", "[[vault]]\n", "[central]\nretry_min = 'x'", "[central.openldap]\n",
		"params = {6='a', 6='b'}", "central.openldap.params.6 = 'x'", "\xff", "x = '''\n", "[vault.seal]\nx = 1", "\"\\u0000\" = 1",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseConfig("desk.toml", text)
		if err == nil {
			if problems := c.check(); len(problems) > 0 {
				t.Errorf("accepted in spite of %q", problems)
			}
			return
		}
		if !reflect.DeepEqual(c, Config{}) {
			t.Errorf("an error and %+v", c)
		}
		for line := range strings.Lines(err.Error()) {
			if !strings.HasPrefix(line, "desk.toml:") {
				t.Errorf("%q names no file", line)
			}
		}
	})
}
