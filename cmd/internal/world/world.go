// Package world starts everything a desk needs on one machine, for the demo and for tests: emulated keys,
// a software TPM, an OpenLDAP server with the OTP overlay, and the unmodified programs.
//
// Every part is a real process on loopback and Unix sockets, kept in one temporary directory. Stop ends
// them all by the ids it started and removes the directory.
package world

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/client"
	"tokendesk/device"
	"tokendesk/device/bussocket"
	"tokendesk/sync/synctest"
	"tokendesk/vault/vaulttest"
)

const (
	readyTimeout = 15 * time.Second
	readyPoll    = 5 * time.Millisecond
	stopTimeout  = 10 * time.Second
)

// Options choose what a world has.
type Options struct {
	Bin        string   // directory of tokendesk, tokendeskd and tokenemu
	Keys       []string // as tokenemu's --yubikey takes them: "serial=10000001,fw=5.4.3"
	Passphrase bool     // seal the vault by a passphrase instead of a TPM
	NoCentral  bool     // no directory server
	// Daemon builds the command that runs the daemon with a configuration; nil means tokendeskd of Bin.
	Daemon func(config string) *exec.Cmd
	// Config is added to the configuration file.
	Config string
}

// World is a running desk with everything around it.
type World struct {
	Dir            string
	Bin            string
	Config         string // path of the configuration file
	Socket         string // of tokendeskd
	EmulatorSocket string
	TPM            string // of the software TPM; empty with a passphrase
	Slapd          *synctest.Slapd
	Emulator       bussocket.Control
	Client         client.Client

	options Options
	stopTPM func() error
	tokens  *process
	daemon  *process
}

// Start builds a world and waits until the desk answers.
func Start(o Options) (w *World, err error) {
	dir, err := os.MkdirTemp("", "td") // short: socket paths are limited to 107 bytes
	if err != nil {
		return nil, err
	}
	w = &World{
		Dir: dir, Bin: o.Bin, options: o,
		Config: filepath.Join(dir, "tokendesk.toml"), Socket: filepath.Join(dir, "desk.sock"), EmulatorSocket: filepath.Join(dir, "emu.sock"),
	}
	w.Emulator, w.Client = bussocket.Control{Socket: w.EmulatorSocket}, client.Client{Socket: w.Socket}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Stop())
			w = nil
		}
	}()
	for _, step := range []func() error{w.startTPM, w.startSlapd, w.startEmulator, w.writeConfig, w.initVault, w.StartDaemon} {
		if err := step(); err != nil {
			return w, err
		}
	}
	return w, nil
}

func (w *World) startTPM() (err error) {
	if w.options.Passphrase {
		return os.WriteFile(filepath.Join(w.Dir, "passphrase"), []byte("correct horse battery staple\n"), 0o600)
	}
	dir := filepath.Join(w.Dir, "tpm")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	w.TPM, w.stopTPM, err = vaulttest.StartSWTPMProcess(dir)
	return err
}

func (w *World) startSlapd() (err error) {
	if w.options.NoCentral {
		return nil
	}
	dir := filepath.Join(w.Dir, "ldap")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	w.Slapd, err = synctest.StartSlapd(dir)
	return err
}

func (w *World) startEmulator() (err error) {
	args := []string{"serve", "--socket", w.EmulatorSocket}
	for _, key := range w.options.Keys {
		args = append(args, "--yubikey", key)
	}
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
		fmt.Fprintf(&c, "seal = \"passphrase\"\npassphrase_file = %q\n", filepath.Join(w.Dir, "passphrase"))
	} else {
		fmt.Fprintf(&c, "seal = \"tpm\"\ntpm = %q\n", w.TPM)
	}
	fmt.Fprintf(&c, "\n[api]\nsocket = %q\n\n[devices]\nusb = false\nemulator = %q\n", w.Socket, w.EmulatorSocket)
	if w.Slapd != nil {
		password := filepath.Join(w.Dir, "ldap-password")
		if err := os.WriteFile(password, []byte(w.Slapd.Password+"\n"), 0o600); err != nil {
			return err
		}
		fmt.Fprintf(&c, `
[central]
retry_min = "200ms"
retry_max = "2s"
confirm_timeout = "2s"

[central.openldap]
url = %q
bind_dn = %q
password_file = %q
people_base = %q
tokens_base = %q
params = { 6 = %q, 8 = %q }
timeout = "3s"
`, w.Slapd.URL, w.Slapd.BindDN, password, synctest.PeopleBase, synctest.TokensBase, synctest.Params6, synctest.Params8)
	}
	c.WriteString(w.options.Config)
	return os.WriteFile(w.Config, []byte(c.String()), 0o600)
}

func (w *World) initVault() error {
	out, err := exec.Command(filepath.Join(w.Bin, "tokendeskd"), "--config", w.Config, "--init").CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot create the vault: %w: %s", err, out)
	}
	return nil
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
	if w.daemon, err = w.run(build(w.Config), "tokendeskd.log"); err != nil {
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
	err := errors.Join(w.daemon.stop(), w.tokens.stop())
	if w.Slapd != nil {
		w.Slapd.Stop()
	}
	if w.stopTPM != nil {
		err = errors.Join(err, w.stopTPM())
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
	return append(os.Environ(), "TOKENDESK_SOCKET="+w.Socket, "TOKENEMU_SOCKET="+w.EmulatorSocket)
}

// Command is a program of this world's Bin, ready to run.
func (w *World) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(w.Bin, program), args...)
	cmd.Env = w.Environment()
	return cmd
}

// AwaitKeys waits until the desk has identified keys.
func (w *World) AwaitKeys(ctx context.Context, serials ...device.Serial) error {
	missing := map[string]bool{}
	for _, s := range serials {
		missing[string(device.YubiKeyID(s))] = true
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err := w.Client.Watch(ctx, func(e api.KeyEvent) error {
		if e.Event != "removed" {
			delete(missing, e.Key.ID)
		}
		if len(missing) == 0 {
			return errSeen
		}
		return nil
	})
	if errors.Is(err, errSeen) {
		return nil
	}
	return fmt.Errorf("the desk does not see %v: %w", missing, cmp.Or(err, ctx.Err()))
}

var errSeen = errors.New("all keys are seen")

// Touch touches a key and returns the texts it typed into the focused window, one a touch.
func (w *World) Touch(ctx context.Context, serial device.Serial, long bool, times int) ([]string, error) {
	touches, err := w.Emulator.Touch(ctx, serial.String(), long, times)
	var typed []string
	for _, t := range touches {
		typed = append(typed, strings.TrimSpace(t.Text))
	}
	return typed, err
}

// WhoAmI logs in as a directory user with ldapwhoami, a program that knows nothing of the desk. accepted is false
// when the server says "invalid credentials"; anything else unexpected is an error.
func (w *World) WhoAmI(ctx context.Context, user, code string) (answer string, accepted bool, err error) {
	password := filepath.Join(w.Dir, "login")
	if err := os.WriteFile(password, []byte(synctest.UserPassword(user)+code), 0o600); err != nil {
		return "", false, err
	}
	defer os.Remove(password)
	var out, problem bytes.Buffer
	cmd := exec.CommandContext(ctx, "ldapwhoami", "-x", "-H", w.Slapd.URL, "-D", synctest.UserDN(user), "-y", password)
	cmd.Stdout, cmd.Stderr = &out, &problem
	err = cmd.Run()
	answer = strings.TrimSpace(cmp.Or(out.String(), problem.String()))
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && strings.Contains(problem.String(), "Invalid credentials (49)") {
		return answer, false, nil
	}
	if err != nil {
		return answer, false, fmt.Errorf("ldapwhoami: %w: %s", err, answer)
	}
	return answer, true, nil
}

// process is a part that runs.
type process struct {
	cmd    *exec.Cmd
	log    string
	exited chan struct{}
	once   sync.Once
}

func (w *World) run(cmd *exec.Cmd, log string) (*process, error) {
	p := &process{cmd: cmd, log: filepath.Join(w.Dir, log), exited: make(chan struct{})}
	f, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "TMPDIR="+w.Dir)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() { cmd.Wait(); close(p.exited) }()
	return p, nil
}

func (p *process) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// await tries until the part answers. There is no event to wait for that its users would have.
func (p *process) await(what string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			log, _ := os.ReadFile(p.log)
			return fmt.Errorf("waiting until %s: it has ended: %s", what, log)
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, err)
		case <-time.After(readyPoll):
		}
	}
}

// stop ends a part and insists. It may be called again, and on nil.
func (p *process) stop() (err error) {
	if p == nil {
		return nil
	}
	p.once.Do(func() {
		p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.exited:
		case <-time.After(stopTimeout):
			p.cmd.Process.Kill()
			<-p.exited
			err = fmt.Errorf("%s (process %s) had to be killed", filepath.Base(p.cmd.Path), strconv.Itoa(p.cmd.Process.Pid))
		}
	})
	return err
}
