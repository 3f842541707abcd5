// Package synctest gives connectors something real to be tested against: a slapd process with the OTP
// overlay, a gate that disturbs the traffic to it, and one conformance suite that every connector runs.
//
// Nothing here imitates a directory: what a test sees is what OpenLDAP does. It needs Debian's slapd
// package, stays on loopback, keeps everything in the directory it is given, and stops its processes
// by the ids it started.
package synctest

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/go-ldap/ldap/v3"
	"golang.org/x/sys/unix"
)

// What is in every directory that StartSlapd fills.
const (
	BaseDN     = "dc=example,dc=org"
	PeopleBase = "ou=people," + BaseDN
	TokensBase = "ou=tokens," + BaseDN
	Params6    = "cn=hotp6," + TokensBase
	Params8    = "cn=hotp8," + TokensBase
	LookAhead  = 10 // of both parameter entries
)

// Users have the password "<name>-password" and no rights beyond reading.
var Users = []string{"alice", "bob", "carol"}

const (
	slapdProgram = "/usr/sbin/slapd" // not in every PATH
	startTimeout = 15 * time.Second
	stopTimeout  = 10 * time.Second
)

// Slapd is a directory server on a loopback port. The provisioner (BindDN) may do what
// package openldap asks for and no more: it writes and compares oathSecret, but cannot read it.
type Slapd struct {
	URL           string // ldap://, takes StartTLS
	TLSURL        string // ldaps://
	CAFile        string // signs the certificate of both
	BaseDN        string
	BindDN        string // the provisioner
	Password      string // new at every StartSlapd
	AdminDN       string // may do everything
	AdminPassword string // new at every StartSlapd
	LogFile       string

	dir    string
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has been waited for
}

// UserDN is the entry of one of Users.
func UserDN(name string) string { return "uid=" + name + "," + PeopleBase }

// UserPassword is the password of one of Users.
func UserPassword(name string) string { return name + "-password" }

// StartSlapd fills dir, which must exist and be empty, and starts a server on a free loopback port.
func StartSlapd(dir string) (*Slapd, error) {
	s := &Slapd{
		BaseDN: BaseDN, BindDN: "cn=provisioner," + BaseDN, Password: rand.Text(),
		AdminDN: "cn=admin," + BaseDN, AdminPassword: rand.Text(),
		LogFile: filepath.Join(dir, "slapd.log"), CAFile: filepath.Join(dir, "ca.pem"), dir: dir,
	}
	if err := s.fill(); err != nil {
		return nil, fmt.Errorf("cannot prepare slapd in %s: %w", dir, err)
	}
	var err error
	for range 3 { // another process may take the free port before slapd does
		if s.URL, s.TLSURL, err = freeURLs(); err != nil {
			return nil, err
		}
		if err = s.Start(); err == nil {
			return s, nil
		}
	}
	return nil, err
}

// Start runs the server again on the same data and port after Stop.
func (s *Slapd) Start() error {
	log, err := os.OpenFile(s.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	// -d keeps it in the foreground, so that the process we started is the server.
	cmd := exec.Command(slapdProgram, "-d", "none", "-h", s.URL+" "+s.TLSURL, "-f", s.conf())
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start slapd (Debian package slapd): %w", err)
	}
	exited := make(chan struct{})
	go func() { cmd.Wait(); close(exited) }()
	s.cmd, s.exited = cmd, exited
	if err := s.await(); err != nil {
		s.Stop()
		return fmt.Errorf("slapd does not answer, see %s: %w", s.LogFile, err)
	}
	return nil
}

// Stop ends the server, waits for it, and keeps the data. It may be called again.
func (s *Slapd) Stop() {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Signal(syscall.SIGCONT)
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(stopTimeout):
		s.cmd.Process.Kill()
		<-s.exited
	}
	s.cmd = nil
}

// Pause makes the server hang: connections are accepted by the kernel and never answered.
func (s *Slapd) Pause() error {
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for { // the signal alone does not say that it has stopped
		if err := unix.Waitid(unix.P_PID, s.cmd.Process.Pid, nil, unix.WSTOPPED, nil); err != unix.EINTR {
			return err
		}
	}
}

// Resume ends Pause.
func (s *Slapd) Resume() error { return s.cmd.Process.Signal(syscall.SIGCONT) }

// Login does what a user's application does: it looks the user up, wherever the entry is, and makes a simple bind
// with the password and the code behind it.
func (s *Slapd) Login(user, code string) error {
	return s.withConn(func(c *ldap.Conn) error {
		r, err := c.Search(ldap.NewSearchRequest(BaseDN, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false,
			"(uid="+ldap.EscapeFilter(user)+")", []string{"1.1"}, nil))
		if err != nil {
			return err
		}
		if len(r.Entries) != 1 {
			return fmt.Errorf("%s has %d entries", user, len(r.Entries))
		}
		return c.Bind(r.Entries[0].DN, UserPassword(user)+code)
	})
}

// Move takes a user's entry out of PeopleBase, as for somebody who left.
func (s *Slapd) Move(user string) error {
	const former = "ou=former," + BaseDN
	return s.AsAdmin(func(c *ldap.Conn) error {
		a := ldap.NewAddRequest(former, nil)
		a.Attribute("objectClass", []string{"organizationalUnit"})
		if err := c.Add(a); err != nil && !ldap.IsErrorWithCode(err, ldap.LDAPResultEntryAlreadyExists) {
			return err
		}
		return c.ModifyDN(ldap.NewModifyDNRequest(UserDN(user), "uid="+user, true, former))
	})
}

// AsAdmin lends a connection that may do everything.
func (s *Slapd) AsAdmin(do func(*ldap.Conn) error) error {
	return s.withConn(func(c *ldap.Conn) error {
		if err := c.Bind(s.AdminDN, s.AdminPassword); err != nil {
			return err
		}
		return do(c)
	})
}

func (s *Slapd) withConn(do func(*ldap.Conn) error) error {
	conn, err := ldap.DialURL(s.URL, ldap.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}))
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetTimeout(5 * time.Second)
	return do(conn)
}

// await tries real binds until one works or the process is gone.
func (s *Slapd) await() error {
	deadline := time.After(startTimeout)
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		err := s.AsAdmin(func(*ldap.Conn) error { return nil })
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return errors.New("it ended at once")
		case <-deadline:
			return err
		case <-retry.C:
		}
	}
}

func (s *Slapd) conf() string { return filepath.Join(s.dir, "slapd.conf") }

func (s *Slapd) fill() error {
	if err := os.Mkdir(filepath.Join(s.dir, "db"), 0o700); err != nil {
		return err
	}
	if err := s.writeCertificate(); err != nil {
		return err
	}
	conf, err := render(confTemplate, s)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.conf(), conf, 0o600); err != nil {
		return err
	}
	ldif, err := render(ldifTemplate, s)
	if err != nil {
		return err
	}
	// slapadd is slapd under another name.
	add := exec.Command(slapdProgram, "-T", "add", "-q", "-f", s.conf())
	add.Stdin = bytes.NewReader(ldif)
	if out, err := add.CombinedOutput(); err != nil {
		return fmt.Errorf("slapadd: %w: %s", err, cmp.Or(strings.TrimSpace(string(out)), "no message"))
	}
	return nil
}

// Dir is the directory that the server lives in.
func (s *Slapd) Dir() string { return s.dir }

func render(text string, s *Slapd) ([]byte, error) {
	t, err := template.New("slapd").Funcs(template.FuncMap{"hash": hashed, "users": func() []string { return Users },
		"password": UserPassword, "dn": UserDN}).Parse(text)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, s)
	return b.Bytes(), err
}

// hashed is the {SSHA} form, so that no password stands in a file.
func hashed(password string) string {
	salt := make([]byte, 8)
	rand.Read(salt)
	sum := sha1.Sum(append([]byte(password), salt...))
	return "{SSHA}" + base64.StdEncoding.EncodeToString(append(sum[:], salt...))
}

func freeURLs() (plain, secured string, err error) {
	var addr [2]string
	for i := range addr {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", err
		}
		defer l.Close() // not before both are found
		addr[i] = l.Addr().String()
	}
	return "ldap://" + addr[0], "ldaps://" + addr[1], nil
}
