// Package world starts everything a desk needs on one machine, for the demo and for tests: emulated keys, a pcscd with readers
// for their smart cards, a software TPM, an OpenLDAP server with the OTP overlay, a mail server, and the unmodified programs.
//
// Every part is a real process on loopback and Unix sockets, kept in one temporary directory. Stop ends
// them all by the ids it started and removes the directory.
package world

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tokendesk/cmd/internal/client"
	"tokendesk/cmd/internal/window"
	"tokendesk/device/bussocket"
	"tokendesk/device/pcsctest"
	"tokendesk/sync/notice/mailtest"
	"tokendesk/sync/synctest"
)

const (
	readyTimeout = 30 * time.Second
	readyPoll    = 5 * time.Millisecond
	stopTimeout  = 10 * time.Second

	kernelTPM     = "/dev/tpmrm0"
	typingTimeout = 30 * time.Second
)

// Options choose what a world has.
type Options struct {
	Bin        string   // directory of tokendesk, tokendeskd and tokenemu
	Keys       []string // as tokenemu's --yubikey takes them: "serial=10000001,fw=5.4.3"
	Cards      int      // so many of the keys, the first ones, are in card readers, too
	Nitrokeys  []string // as tokenemu's --nitrokey takes them: "serial=00005d19"; those with model=3 are in card readers
	Passphrase bool     // seal the vault by a passphrase instead of a TPM
	PIN        string   // of the vault, or its passphrase; without one a vault with a TPM opens by itself
	NoVault    bool     // leave it to the caller to make one
	Backups    bool     // into a directory of the world
	ShredAfter string   // how long destroyed seeds may stay in the vault's file; the desk's default if empty
	NoCentral  bool     // no directory server
	Mail       bool     // a mail server, by which holders are told
	Pair       bool     // two directory servers that replicate each other
	// Running are two directory servers that run already, instead of Pair; from now on they are the world's, which ends them.
	Running *synctest.Pair
	// Daemon builds the command that runs the daemon with a configuration; nil means tokendeskd of Bin.
	Daemon func(config string) *exec.Cmd
	// Config is added to the configuration file, at its end: with directory servers, in [central.openldap].
	Config string
	// Officer makes the world a workstation: the keys are attached to the kernel's USB, the TPM is /dev/tpmrm0,
	// the programs of the desk run as this user, and a window hears what is typed. The caller must be root.
	Officer *syscall.Credential
}

// Credential is a user with all groups, to run programs as.
func Credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, err
	}
	var ids []uint32
	for _, text := range append([]string{u.Uid, u.Gid}, groups...) {
		id, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, err
		}
		ids = append(ids, uint32(id))
	}
	return &syscall.Credential{Uid: ids[0], Gid: ids[1], Groups: ids[2:]}, nil
}

// World is a running desk with everything around it.
type World struct {
	Dir            string
	Bin            string
	Config         string // path of the configuration file
	Socket         string // of tokendeskd
	EmulatorSocket string
	Identity       string // file of the recovery identity
	Recipient      string // that belongs to it
	TPM            string // of the software TPM; empty with a passphrase
	Slapd          *synctest.Slapd
	Pair           *synctest.Pair // Slapd and a second server; nil without one
	Mail           *mailtest.Server
	Emulator       bussocket.Control
	Client         client.Client
	Window         *window.Window // of a workstation
	Readers        *pcsctest.Rig  // nil without Cards

	options Options
	stopTPM func() error
	tokens  *process
	pcscd   *process // of a workstation
	daemon  *process
}

// Start builds a world and waits until the desk answers.
func Start(o Options) (*World, error) {
	return start(o, (*World).startTPM, (*World).startSlapd, (*World).startMail, (*World).startReaders, (*World).startEmulator, (*World).writeConfig, (*World).StartDaemon, (*World).initVault)
}

// StartKeys builds a world that has keys and no desk.
func StartKeys(o Options) (*World, error) { return start(o, (*World).startEmulator) }

func start(o Options, steps ...func(*World) error) (w *World, err error) {
	dir, err := os.MkdirTemp("", "td") // short: socket paths are limited to 107 bytes
	if err != nil {
		return nil, err
	}
	w = &World{
		Dir: dir, Bin: o.Bin, options: o,
		Config: filepath.Join(dir, "tokendesk.toml"), Socket: filepath.Join(dir, "desk.sock"), EmulatorSocket: filepath.Join(dir, "emu.sock"),
		Identity: filepath.Join(dir, "identity"),
	}
	w.Emulator, w.Client = bussocket.Control{Socket: w.EmulatorSocket}, client.Client{Socket: w.Socket}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Stop())
			w = nil
		}
	}()
	if err := w.give(dir); err != nil {
		return w, err
	}
	for _, step := range steps {
		if err := step(w); err != nil {
			return w, err
		}
	}
	return w, nil
}

func (w *World) startTPM() (err error) {
	switch {
	case w.options.Passphrase:
		return nil
	case w.options.Officer != nil:
		w.TPM = kernelTPM
		return nil
	}
	return w.StartTPM()
}

func (w *World) startSlapd() (err error) {
	if w.options.NoCentral {
		return nil
	}
	if w.Pair = w.options.Running; w.Pair != nil {
		w.Slapd = w.Pair.Providers[0]
		return nil
	}
	dir := filepath.Join(w.Dir, "ldap")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if !w.options.Pair {
		w.Slapd, err = synctest.StartSlapd(dir)
		return err
	}
	if w.Pair, err = synctest.StartPair(dir); err != nil {
		return err
	}
	w.Slapd = w.Pair.Providers[0]
	return nil
}

// Providers are the directory servers.
func (w *World) Providers() []*synctest.Slapd {
	switch {
	case w.Pair != nil:
		return w.Pair.Providers[:]
	case w.Slapd != nil:
		return []*synctest.Slapd{w.Slapd}
	}
	return nil
}

func (w *World) startEmulator() (err error) {
	args := []string{"serve", "--socket", w.EmulatorSocket}
	if w.options.Officer != nil {
		args[0] = "attach"
		if w.Window, err = window.Open(); err != nil {
			return err
		}
	}
	for i, key := range w.options.Keys {
		args = append(args, "--yubikey", w.withCard(i, key))
	}
	args = append(args, w.nitrokeys()...)
	w.tokens, err = w.run(exec.Command(filepath.Join(w.Bin, "tokenemu"), args...), "tokenemu.log")
	if err != nil {
		return err
	}
	return w.tokens.await("tokenemu answers", func(ctx context.Context) error {
		_, err := w.Emulator.List(ctx)
		return err
	})
}

func (w *World) writeConfig() error {
	var c strings.Builder
	fmt.Fprintf(&c, "[vault]\npath = %q\n", filepath.Join(w.Dir, "vault.db"))
	if w.options.Passphrase {
		c.WriteString("seal = \"passphrase\"\n")
	} else {
		fmt.Fprintf(&c, "seal = \"tpm\"\ntpm = %q\n", w.TPM)
	}
	if w.options.ShredAfter != "" {
		fmt.Fprintf(&c, "shred_after = %q\n", w.options.ShredAfter)
	}
	if w.options.Backups {
		dir := w.BackupDir()
		if err := errors.Join(os.Mkdir(dir, 0o700), w.give(dir)); err != nil {
			return err
		}
		fmt.Fprintf(&c, "\n[backup]\ndir = %q\n", dir)
	}
	fmt.Fprintf(&c, "\n[api]\nsocket = %q\n\n[devices]\n", w.Socket)
	if w.options.Officer != nil {
		c.WriteString("usb = true\n")
	} else {
		fmt.Fprintf(&c, "usb = false\nemulator = %q\n", w.EmulatorSocket)
	}
	c.WriteString(w.readersConfig())
	if w.Slapd != nil {
		password := filepath.Join(w.Dir, "ldap-password")
		refresh, patience := "", "2s"
		if w.options.Officer != nil {
			patience = "15s" // the desk's own: a kernel in an emulator is slow
		}
		if w.Pair != nil {
			refresh = "refresh_every = \"1s\"\n"
		}
		var urls []string
		for _, p := range w.Providers() {
			urls = append(urls, strconv.Quote(p.URL))
		}
		if err := w.writeFile(password, w.Slapd.Password+"\n"); err != nil {
			return err
		}
		fmt.Fprintf(&c, `
[central]
retry_min = "200ms"
retry_max = "2s"
confirm_timeout = %q
%s
[central.openldap]
urls = [%s]
bind_dn = %q
password_file = %q
people_base = %q
tokens_base = %q
params = { 6 = %q, 8 = %q }
timeout = "3s"
`, patience, refresh, strings.Join(urls, ", "), w.Slapd.BindDN, password, synctest.PeopleBase, synctest.TokensBase, synctest.Params6, synctest.Params8)
	}
	c.WriteString(w.options.Config)
	mail, err := w.mailConfig()
	if err != nil {
		return err
	}
	c.WriteString(mail)
	return w.writeFile(w.Config, c.String())
}

// writeFile writes a file that the desk reads.
func (w *World) writeFile(path, text string) error {
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	return w.give(path)
}

// give makes a file belong to whom the desk runs as.
func (w *World) give(path string) error {
	if w.options.Officer == nil {
		return nil
	}
	return os.Chown(path, int(w.options.Officer.Uid), int(w.options.Officer.Gid))
}

// asOfficer makes a command run as whom the desk runs as.
func (w *World) asOfficer(cmd *exec.Cmd) *exec.Cmd {
	if w.options.Officer != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: w.options.Officer}
	}
	return cmd
}

// StartDaemon starts the daemon, which must not be running, and waits until it answers.
func (w *World) StartDaemon() (err error) {
	if w.daemon.running() {
		return errors.New("tokendeskd is running already")
	}
	build := w.options.Daemon
	if build == nil {
		build = func(config string) *exec.Cmd {
			return exec.Command(filepath.Join(w.Bin, "tokendeskd"), "--config", config)
		}
	}
	if w.daemon, err = w.run(w.asOfficer(w.toReaders(build(w.Config))), "tokendeskd.log"); err != nil {
		return err
	}
	return w.daemon.await("tokendeskd answers", func(ctx context.Context) error {
		var status struct{}
		return w.Client.Get(ctx, "/v1/status", nil, &status)
	})
}

// DaemonPID is the process id of the running daemon.
func (w *World) DaemonPID() int { return w.daemon.cmd.Process.Pid }

// StopDaemon ends the daemon in order.
func (w *World) StopDaemon() error { return w.daemon.stop() }

// AwaitDaemonEnd waits until the daemon has ended by itself, and returns how.
func (w *World) AwaitDaemonEnd() (*os.ProcessState, error) {
	select {
	case <-w.daemon.exited:
		return w.daemon.cmd.ProcessState, nil
	case <-time.After(stopTimeout):
		return nil, errors.New("tokendeskd is still running")
	}
}

// KillDaemon ends the daemon as a power cut would.
func (w *World) KillDaemon() {
	w.daemon.cmd.Process.Kill()
	<-w.daemon.exited
}

// Stop ends every part and removes the directory.
func (w *World) Stop() error {
	err := errors.Join(w.daemon.stop(), w.tokens.stop(), w.pcscd.stop())
	if w.Window != nil {
		err = errors.Join(err, w.Window.Close())
	}
	switch {
	case w.Pair != nil:
		w.Pair.Stop()
	case w.Slapd != nil:
		w.Slapd.Stop()
	}
	if w.Mail != nil {
		err = errors.Join(err, w.Mail.Close())
	}
	if w.stopTPM != nil {
		err = errors.Join(err, w.stopTPM())
	}
	if w.Readers != nil {
		err = errors.Join(err, w.Readers.Stop())
	}
	return errors.Join(err, os.RemoveAll(w.Dir))
}

// Logs is what the programs have logged.
func (w *World) Logs() string {
	var all strings.Builder
	for _, name := range []string{"tokendeskd.log", "tokenemu.log"} {
		b, _ := os.ReadFile(filepath.Join(w.Dir, name))
		fmt.Fprintf(&all, "--- %s\n%s", name, b)
	}
	return all.String()
}

// Environment tells programs of this world's sockets.
func (w *World) Environment() []string {
	return append(os.Environ(), append(w.readersVariable(), "TOKENDESK_SOCKET="+w.Socket, "TOKENEMU_SOCKET="+w.EmulatorSocket)...)
}

// Command is a program of this world's Bin, ready to run.
func (w *World) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(w.Bin, program), args...)
	cmd.Env = w.Environment()
	if program == "tokenemu" { // its socket is its own user's
		return cmd
	}
	return w.asOfficer(cmd)
}
