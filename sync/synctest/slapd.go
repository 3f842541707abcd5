// Package synctest gives connectors something real to be tested against: slapd processes with the OTP overlay, alone or
// replicating each other, proxies that disturb the traffic to them, their access logs as a judge of what was
// written, and one conformance suite that every connector runs.
//
// Nothing here imitates a directory: what a test sees is what OpenLDAP does. It needs Debian's slapd
// package, stays on loopback, keeps everything in the directory it is given, and stops its processes
// by the ids it started.
package synctest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/go-ldap/ldap/v3"
	"golang.org/x/sys/unix"
)

// What is in every directory that StartSlapd and StartPair fill.
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
	socketFile   = "ldapi"
	longestPath  = 107 // of a Unix socket (unix(7))
)

// Slapd is a directory server on a loopback port. The provisioner may do what
// package openldap asks for and no more: it writes and compares oathSecret, but cannot read it. It is
// known by BindDN and Password, by its TLS client certificate, and on the Unix socket by this process's user (the
// latter two by SASL EXTERNAL).
type Slapd struct {
	URL           string // ldap://, takes StartTLS
	TLSURL        string // ldaps://
	LDAPIURL      string // ldapi://
	CAFile        string // signs the server's certificate
	ClientCert    string // file of the provisioner's certificate
	ClientKey     string // file of its key
	BaseDN        string
	BindDN        string // the provisioner
	Password      string // new at every StartSlapd
	AdminDN       string // may do everything
	AdminPassword string // new at every StartSlapd
	LogFile       string
	Peer          *Peer // nil if it stands alone

	dir    string
	ca     *authority
	site   *site // nil: on loopback
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has been waited for
}

// site is where else than on loopback a server runs.
type site struct {
	address net.IP                                      // of it
	peer    string                                      // where it reaches the other one
	listen  string                                      // URLs, as slapd takes them
	command func(name string, args ...string) *exec.Cmd // runs something there
}

// UserDN is the entry of one of Users.
func UserDN(name string) string { return "uid=" + name + "," + PeopleBase }

// UserPassword is the password of one of Users.
func UserPassword(name string) string { return name + "-password" }

// StartSlapd fills dir, which must exist and be empty, and starts a server on a free loopback port.
func StartSlapd(dir string) (*Slapd, error) {
	s, err := prepare(dir, nil)
	if err == nil {
		err = s.configure()
	}
	if err == nil {
		err = s.fill()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot prepare slapd in %s: %w", dir, err)
	}
	if err := s.startSomewhere(); err != nil {
		return nil, err
	}
	return s, nil
}

// prepare makes a server's files; like gives it another one's identities, which is then to be its peer.
func prepare(dir string, like *Slapd) (*Slapd, error) {
	socket := filepath.Join(dir, socketFile)
	if len(socket) > longestPath {
		return nil, fmt.Errorf("%s is too long for a Unix socket: choose a shorter TMPDIR", socket)
	}
	s := &Slapd{
		BaseDN: BaseDN, BindDN: "cn=provisioner," + BaseDN, Password: rand.Text(),
		AdminDN: "cn=admin," + BaseDN, AdminPassword: rand.Text(),
		LDAPIURL: "ldapi://" + url.PathEscape(socket), LogFile: filepath.Join(dir, "slapd.log"), dir: dir,
	}
	var err error
	if like != nil {
		s.Password, s.AdminPassword, s.ca = like.Password, like.AdminPassword, like.ca
	} else if s.ca, err = newAuthority(); err != nil {
		return nil, err
	}
	return s, s.ca.publish(s)
}

// startSomewhere starts on free ports; another process may take one before slapd does.
func (s *Slapd) startSomewhere() (err error) {
	if s.site != nil {
		s.URL, s.TLSURL = fmt.Sprintf("ldap://%s:%d", s.site.address, plainPort), fmt.Sprintf("ldaps://%s:%d", s.site.address, securePort)
		return s.Start()
	}
	for range 3 {
		if s.URL, s.TLSURL, err = freeURLs(); err != nil {
			return err
		}
		if err = s.Start(); err == nil {
			return nil
		}
	}
	return err
}

// Start runs the server again on the same data and port after Stop.
func (s *Slapd) Start() error {
	log, err := os.OpenFile(s.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	// -d keeps it in the foreground, so that the process we started is the server.
	command, listen := exec.Command, s.URL+" "+s.TLSURL
	if s.site != nil {
		command, listen = s.site.command, s.site.listen
	}
	cmd := command(slapdProgram, "-d", "none", "-h", listen+" "+s.LDAPIURL, "-f", s.conf())
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

// Kill ends the server as a crash would, and keeps what it has written. It may be called again.
func (s *Slapd) Kill() {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Kill()
	<-s.exited
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
