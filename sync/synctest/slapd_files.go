package synctest

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

// confTemplate has the access rules that package openldap documents, and one more where the server has a peer. The
// files of Debian's slapd package carry the schemas; the OTP schema is inside the module. The access log is for tests
// alone, and only the administrator reads it: it has the secrets in it. A checkpoint at every write matters to a server that is
// killed: after its return it passes on no change that is newer than the last contextCSN in its database.
const confTemplate = `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
pidfile "{{.Dir}}/slapd.pid"
TLSCACertificateFile "{{.CAFile}}"
TLSCertificateFile "{{.Dir}}/server.pem"
TLSCertificateKeyFile "{{.Dir}}/server-key.pem"
TLSVerifyClient try
modulepath /usr/lib/ldap
moduleload back_mdb.la
moduleload otp.la
moduleload accesslog.la
moduleload syncprov.la
authz-regexp "^gidNumber=[0-9]+\\+uidNumber={{uid}},cn=peercred,cn=external,cn=auth$" "{{.BindDN}}"
authz-regexp "^cn={{client}}$" "{{.BindDN}}"
{{with .Peer}}serverID {{.ServerID}}
{{end}}
database mdb
suffix "cn=accesslog"
rootdn "{{.AdminDN}}"
directory "{{.Dir}}/log"
maxsize 1073741824
dbnosync
index reqStart,reqAuthzID,objectClass eq
access to dn.subtree="cn=accesslog" by * none

database mdb
suffix "{{.BaseDN}}"
rootdn "{{.AdminDN}}"
rootpw {{hash .AdminPassword}}
directory "{{.Dir}}/db"
maxsize 1073741824
dbnosync
index objectClass,cn,uid,oathHOTPToken,entryCSN,entryUUID eq
limits dn.exact="{{.BindDN}}" size=unlimited size.prtotal=unlimited time=unlimited
{{with .Peer}}limits dn.exact="{{.DN}}" size=unlimited time=unlimited
syncrepl rid=00{{.ServerID}} provider=ldap://{{.Address}} bindmethod=simple binddn="{{.DN}}" credentials={{.Password}}
  searchbase="{{$.BaseDN}}" type=refreshAndPersist retry="1 +" timeout=2 network-timeout=2 keepalive=2:3:1
multiprovider on
{{end}}
overlay syncprov
syncprov-checkpoint 1 1
overlay accesslog
logdb "cn=accesslog"
logops writes
logsuccess TRUE
logold (objectClass=*)
logoldattr oathSecret

{{with .Peer}}access to dn.subtree="{{$.BaseDN}}"
  by dn.exact="{{.DN}}" read
  by * break
{{end}}access to attrs=oathSecret
  by dn.exact="{{.BindDN}}" =wc
  by * none
access to attrs=userPassword
  by anonymous auth
  by * none
access to dn.subtree="ou=tokens,{{.BaseDN}}"
  by dn.exact="{{.BindDN}}" write
  by * none
access to dn.subtree="ou=people,{{.BaseDN}}" attrs=objectClass,oathHOTPToken
  by dn.exact="{{.BindDN}}" write
  by * read
access to *
  by * read

overlay otp
`

const ldifTemplate = `dn: {{.BaseDN}}
objectClass: dcObject
objectClass: organization
o: example
dc: example

dn: {{.BindDN}}
objectClass: organizationalRole
objectClass: simpleSecurityObject
userPassword: {{hash .Password}}
{{with .Peer}}
dn: {{.DN}}
objectClass: organizationalRole
objectClass: simpleSecurityObject
userPassword: {{hash .Password}}
{{end}}
dn: ou=people,{{.BaseDN}}
objectClass: organizationalUnit

dn: ou=tokens,{{.BaseDN}}
objectClass: organizationalUnit

dn: cn=hotp6,ou=tokens,{{.BaseDN}}
objectClass: device
objectClass: oathHOTPParams
oathOTPLength: 6
oathHMACAlgorithm: 1.2.840.113549.2.7
oathHOTPLookAhead: 10

dn: cn=hotp8,ou=tokens,{{.BaseDN}}
objectClass: device
objectClass: oathHOTPParams
oathOTPLength: 8
oathHMACAlgorithm: 1.2.840.113549.2.7
oathHOTPLookAhead: 10
{{range users}}
dn: {{dn .}}
objectClass: inetOrgPerson
cn: {{.}}
sn: {{.}}
userPassword: {{hash (password .)}}
{{end}}`

// configure writes what the server needs to start.
func (s *Slapd) configure() error {
	for _, name := range []string{"db", "log"} {
		if err := os.Mkdir(filepath.Join(s.dir, name), 0o700); err != nil {
			return err
		}
	}
	if err := s.writeCertificate(Valid); err != nil {
		return err
	}
	conf, err := render(confTemplate, s)
	if err != nil {
		return err
	}
	return os.WriteFile(s.conf(), conf, 0o600)
}

// fill loads the first entries; only one of several providers is filled.
func (s *Slapd) fill() error {
	ldif, err := render(ldifTemplate, s)
	if err != nil {
		return err
	}
	args := []string{"-T", "add", "-q", "-b", s.BaseDN, "-f", s.conf()} // slapadd is slapd under another name
	if s.Peer != nil {
		args = append(args, "-S", fmt.Sprint(s.Peer.ServerID), "-w") // as if the entries were written here
	}
	add := exec.Command(slapdProgram, args...)
	add.Stdin = bytes.NewReader(ldif)
	if out, err := add.CombinedOutput(); err != nil {
		return fmt.Errorf("slapadd: %w: %s", err, cmp.Or(strings.TrimSpace(string(out)), "no message"))
	}
	return nil
}

func (s *Slapd) conf() string { return filepath.Join(s.dir, "slapd.conf") }

// Dir is the directory that the server lives in.
func (s *Slapd) Dir() string { return s.dir }

func render(text string, s *Slapd) ([]byte, error) {
	t, err := template.New("slapd").Funcs(template.FuncMap{"hash": hashed, "users": func() []string { return Users },
		"password": UserPassword, "dn": UserDN, "uid": os.Getuid, "client": func() string { return clientName }}).Parse(text)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, s)
	return b.Bytes(), err
}

// hashed is the {SSHA} form. Only what a replica presents to its peer must stand in a file as it is.
func hashed(password string) string {
	salt := make([]byte, 8)
	rand.Read(salt)
	sum := sha1.Sum(append([]byte(password), salt...))
	return "{SSHA}" + base64.StdEncoding.EncodeToString(append(sum[:], salt...))
}
