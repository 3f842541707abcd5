// Package mailtest gives tests a real mail server: Debian's Exim, on loopback, with STARTTLS, TLS from the start and logins.
//
// What is handed in there is delivered into a directory, where tests read it. The server defers, refuses, hangs and goes
// away when a test says so. It needs Debian's package exim4-daemon-light, keeps everything in a directory of its own, and
// its processes are ended by the ids that were started. It is not for production.
package mailtest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"text/template"
	"time"

	"golang.org/x/sys/unix"
)

const (
	program      = "/usr/sbin/exim4" // not in every PATH
	account      = "Debian-exim"     // what the package runs it as; Exim delivers nothing as root
	startTimeout = 15 * time.Second
	stopTimeout  = 10 * time.Second
	// Domain is the one that it takes mail for.
	Domain = "example.org"
)

// Server is a mail server.
type Server struct {
	URL      string // smtp://, offers STARTTLS
	TLSURL   string // smtps://
	CAFile   string // signs its certificate
	User     string // may log in, but over TLS only
	Password string // new at every Start
	LogFile  string

	dir    string
	ports  [2]int
	owner  *syscall.Credential // nil: this process's user
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has been waited for
}

// A switch is there or not; Exim looks at every command.
const config = `primary_hostname = mail.{{.Domain}}
spool_directory = {{.Dir}}/spool
log_file_path = {{.Dir}}/%slog
pid_file_path = {{.Dir}}/pid
local_interfaces = <; [127.0.0.1]:{{index .Ports 0}} ; [127.0.0.1]:{{index .Ports 1}}
tls_on_connect_ports = {{index .Ports 1}}
{{with .Account}}exim_user = {{.}}
{{end}}deliver_drop_privilege
keep_environment =
qualify_domain = {{.Domain}}
host_lookup =
rfc1413_query_timeout = 0s
smtp_enforce_sync = false
smtp_accept_max_per_connection = 5
tls_advertise_hosts = ${if exists{{"{"}}{{.Dir}}/switches/clear}{}{*}}
tls_certificate = {{.Dir}}/server.pem
tls_privatekey = {{.Dir}}/server-key.pem
auth_advertise_hosts = *
acl_smtp_mail = sender
acl_smtp_rcpt = recipient
acl_smtp_data = content

begin acl
sender:
  deny message = 5.7.1 log in first
    condition = ${if exists{{"{"}}{{.Dir}}/switches/login}}
    !authenticated = *
  accept
recipient:
  defer message = 4.7.1 Greylisted, come back later
    condition = ${if exists{{"{"}}{{.Dir}}/switches/greylist}}
  deny message = 5.1.1 no such mailbox
    condition = ${if exists{{"{"}}{{.Dir}}/switches/without-${lc:$local_part}}}
  defer message = 421 4.3.2 enough for today
    condition = ${if exists{{"{"}}{{.Dir}}/switches/hangup-${lc:$local_part}}}
  accept domains = {{.Domain}}
  deny message = 5.7.1 relaying is not permitted
content:
  deny message = 5.7.0 no words of that kind here
    condition = ${if exists{{"{"}}{{.Dir}}/switches/censor}}
  accept

begin routers
all:
  driver = accept
  transport = mailbox

begin transports
mailbox:
  driver = appendfile
  directory = {{.Dir}}/mail
  maildir_format
  envelope_to_add
  return_path_add

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if and{{"{"}}{eq{$auth2}{{"{"}}{{.User}}}}{eq{$auth3}{{"{"}}{{.Password}}}}}}
  server_set_id = $auth2
  server_advertise_condition = ${if and{{"{"}}{def:tls_in_cipher}{!exists{{"{"}}{{.Dir}}/switches/old}}}}
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = User Name : Password
  server_condition = ${if and{{"{"}}{eq{$auth1}{{"{"}}{{.User}}}}{eq{$auth2}{{"{"}}{{.Password}}}}}}
  server_set_id = $auth1
  server_advertise_condition = ${if def:tls_in_cipher}
`

// Start runs a server on free ports.
func Start() (*Server, error) {
	dir, err := os.MkdirTemp("", "tdmail")
	if err != nil {
		return nil, err
	}
	s := &Server{User: "desk", Password: rand.Text(), LogFile: filepath.Join(dir, "mainlog"), CAFile: filepath.Join(dir, "server.pem"), dir: dir}
	for range 3 { // another process may take a port before Exim does
		if err = s.prepare(); err == nil {
			err = s.Restart()
		}
		if err == nil {
			return s, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("cannot run a mail server (Debian package exim4-daemon-light): %w", err), os.RemoveAll(dir))
}

// prepare writes everything that the server needs, and gives it to whom it runs as.
func (s *Server) prepare() (err error) {
	for _, name := range []string{"spool", "mail", "switches"} {
		if err := os.MkdirAll(filepath.Join(s.dir, name), 0o700); err != nil {
			return err
		}
	}
	if s.ports, err = freePorts(); err != nil {
		return err
	}
	s.URL, s.TLSURL = fmt.Sprintf("smtp://127.0.0.1:%d", s.ports[0]), fmt.Sprintf("smtps://127.0.0.1:%d", s.ports[1])
	if err := certify(s.CAFile, filepath.Join(s.dir, "server-key.pem")); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if s.owner, err = credential(account); err != nil {
			return err
		}
	}
	return errors.Join(s.configure(), s.give())
}

func (s *Server) configure() error {
	facts := struct {
		Domain, Dir, User, Password, Account string
		Ports                                [2]int
	}{Domain: Domain, Dir: s.dir, User: s.User, Password: s.Password, Ports: s.ports}
	if s.owner != nil {
		facts.Account = account
	}
	var text bytes.Buffer
	if err := template.Must(template.New("exim").Parse(config)).Execute(&text, facts); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.dir, "exim.conf"), text.Bytes(), 0o600)
}

// give makes everything belong to whom the server runs as.
func (s *Server) give() error {
	if s.owner == nil {
		return nil
	}
	return filepath.WalkDir(s.dir, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Chown(path, int(s.owner.Uid), int(s.owner.Gid)))
	})
}

func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

func freePorts() (ports [2]int, err error) {
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return ports, err
		}
		defer l.Close() // not before both are found
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

// certify writes a certificate for loopback that is its own CA, and its key.
func certify(certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return err
	}
	cert := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "mail server under test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
}

// Restart runs the server again on the same ports, after Stop.
func (s *Server) Restart() error {
	log, err := os.OpenFile(filepath.Join(s.dir, "out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	// -bdf keeps it in the foreground, so that the process we started is the server.
	cmd := exec.Command(program, "-C", filepath.Join(s.dir, "exim.conf"), "-bdf")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.owner, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() { cmd.Wait(); close(exited) }()
	s.cmd, s.exited = cmd, exited
	if err := s.await(); err != nil {
		s.Stop()
		words, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%w: %s", err, words)
	}
	return nil
}

// await connects until somebody answers.
func (s *Server) await() error {
	deadline := time.After(startTimeout)
	retry := time.NewTicker(10 * time.Millisecond)
	defer retry.Stop()
	for {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.ports[0]))
		if err == nil {
			return conn.Close()
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

// Stop ends the server and whatever it has under way, waits for it, and keeps what has arrived. It may be called again.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	group := -s.cmd.Process.Pid
	unix.Kill(group, unix.SIGCONT)
	unix.Kill(group, unix.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(stopTimeout):
	}
	unix.Kill(group, unix.SIGKILL)
	<-s.exited
	s.cmd = nil
}

// Close is Stop, and removes everything.
func (s *Server) Close() error {
	s.Stop()
	var err error
	for range 100 { // the last delivery may still be writing
		if err = os.RemoveAll(s.dir); err == nil {
			break
		}
	}
	return err
}

// Pause makes the server hang: connections are accepted by the kernel and never answered.
func (s *Server) Pause() error {
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
func (s *Server) Resume() error { return s.cmd.Process.Signal(syscall.SIGCONT) }
