// Package daemon puts the desk together: vault, buses, central service, outbox, API. It is the only
// place that knows all of them.
//
// Run returns when its context ends or a part fails for good; by then every goroutine has stopped and
// the vault is closed.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tokendesk/cmd/internal/keys"
	"tokendesk/cmd/internal/localapi"
	"tokendesk/device"
	"tokendesk/device/bussocket"
	"tokendesk/device/otpslot"
	"tokendesk/device/usbhid"
	"tokendesk/provision"
	syncer "tokendesk/sync"
	"tokendesk/sync/openldap"
	"tokendesk/vault"
	"tokendesk/vault/passseal"
	"tokendesk/vault/secret"
	"tokendesk/vault/tpmseal"
)

// Version is the version of the desk. Releases set it when they are linked.
var Version = "0.1-dev"

// stopPatience is how long requests may go on after the daemon was told to stop.
const stopPatience = 3 * time.Second

// Daemon is a desk to be run.
type Daemon struct {
	Config Config
	Log    *slog.Logger
	// Ready is called once the API answers. May be nil.
	Ready func()
	// Checkpoint is called after every transaction of a plan. May be nil.
	Checkpoint func(plan, step string)
}

// HardenProcess keeps the memory of this process out of core dumps and away from debuggers of its user.
func HardenProcess() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("cannot forbid core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot forbid core dumps: %w", err)
	}
	return nil
}

// Init creates the vault that the configuration names. It never touches one that exists.
func (d *Daemon) Init() (err error) {
	sealer, closeSealer, err := openSealer(d.Config.Vault)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeSealer()) }()
	if err := os.MkdirAll(filepath.Dir(d.Config.Vault.Path), 0o700); err != nil {
		return fmt.Errorf("cannot create the vault's directory: %w", err)
	}
	v, err := vault.Create(d.Config.Vault.Path, sealer)
	if err != nil {
		return err
	}
	d.Log.Info("vault created", "path", v.Path(), "id", v.ID(), "level", v.Level(), "means", v.Level().Describe())
	return v.Close()
}

// Run serves the desk until ctx ends.
func (d *Daemon) Run(ctx context.Context) (err error) {
	v, err := openVault(d.Config.Vault)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	buses, err := d.buses(v)
	if err != nil {
		return err
	}
	connector, err := d.connector()
	if err != nil {
		return err
	}
	desk := d.assemble(v, buses, connector)
	if connector != nil {
		defer connector.Close()
	}
	if err := desk.Runner.Recover(ctx); err != nil {
		return err
	}
	listener, err := listen(d.Config.API)
	if err != nil {
		return err
	}
	return d.serve(ctx, desk, listener)
}

func (d *Daemon) assemble(v *vault.Vault, buses []device.Bus, connector *openldap.Connector) *localapi.Desk {
	desk := &localapi.Desk{
		Vault: v, Keys: keys.New(d.Log, buses...), Version: Version, Since: time.Now().UTC(),
		Group: d.Config.API.Group, Log: d.Log,
	}
	if connector != nil { // a nil *openldap.Connector in an interface would not be nil
		desk.Connector = connector
	}
	c := d.Config.Central
	desk.Outbox = syncer.NewOutbox(v, desk.Connector, d.Log, syncer.Backoff{Min: time.Duration(c.RetryMin), Max: time.Duration(c.RetryMax)})
	desk.Runner = &provision.Runner{
		Vault: v, Log: d.Log, Wake: desk.Outbox.Wake, Checkpoint: d.Checkpoint,
		Open: func(ctx context.Context, id device.TokenID, fn func(device.HOTPToken, bool) error) error {
			return desk.Keys.Use(ctx, id.Device(), func(_ context.Context, s *otpslot.Session, k keys.Key) error {
				slot, err := s.Slot(id.Slot())
				if err != nil {
					return err
				}
				return fn(slot, k.Info.Emulated)
			})
		},
		CheckUser: func(ctx context.Context, name string) error { return checkUser(ctx, desk, name) },
	}
	if desk.Connector != nil {
		desk.Runner.Confirm = func(ctx context.Context, seq uint64) error {
			ctx, cancel := context.WithTimeout(ctx, time.Duration(c.ConfirmTimeout))
			defer cancel()
			err := desk.Outbox.Wait(ctx, seq)
			if errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("%s has not answered within %s; the cut-off stays in the outbox", desk.Connector.Name(), time.Duration(c.ConfirmTimeout))
			}
			return err
		}
	}
	desk.Doctor = d.doctor(desk)
	return desk
}

// serve runs the parts until ctx ends or one of them fails.
func (d *Daemon) serve(ctx context.Context, desk *localapi.Desk, listener net.Listener) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	server := desk.Server()
	server.BaseContext = func(net.Listener) context.Context { return ctx }
	var parts sync.WaitGroup
	failed := make(chan error, 2)
	parts.Go(func() { desk.Keys.Run(ctx) })
	parts.Go(func() {
		if err := desk.Outbox.Run(ctx); ctx.Err() == nil {
			failed <- fmt.Errorf("the outbox stopped: %w", err)
		}
	})
	parts.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("the API stopped: %w", err)
		}
	})
	d.Log.Info("ready", "socket", d.Config.API.Socket, "vault", desk.Vault.Path(), "level", desk.Vault.Level())
	if d.Ready != nil {
		d.Ready()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	stop() // ends watches and unfinished work, so that Shutdown need not wait for them
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
	defer cancel()
	if shutdownErr := server.Shutdown(patience); shutdownErr != nil {
		server.Close()
	}
	parts.Wait()
	d.Log.Info("stopped")
	return err
}

func openSealer(c VaultConfig) (vault.Sealer, func() error, error) {
	if c.Seal == "passphrase" {
		s, err := passseal.FromFile(c.PassphraseFile)
		return s, func() error { return nil }, err
	}
	t, err := tpmseal.Open(c.TPM)
	if err != nil {
		return nil, nil, err
	}
	return t, t.Close, nil
}

// openVault opens the vault. The sealer is needed no longer afterwards.
func openVault(c VaultConfig) (v *vault.Vault, err error) {
	if _, err := os.Stat(c.Path); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no vault at %s: if this is a new desk, create it with tokendeskd --init; if not, find out where it went", c.Path)
	}
	sealer, closeSealer, err := openSealer(c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeSealer()) }()
	return vault.Open(c.Path, sealer)
}

// buses applies rule D6: real credentials and emulated tokens do not mix by accident.
func (d *Daemon) buses(v *vault.Vault) ([]device.Bus, error) {
	c := d.Config.Devices
	var buses []device.Bus
	if c.USB {
		buses = append(buses, usbhid.Bus{})
	}
	if c.Emulator == "" {
		return buses, nil
	}
	if v.Level() == vault.LevelTPM && !c.AllowEmulated {
		return nil, errors.New("devices.emulator is set beside a vault sealed by a hardware TPM: remove it, or say devices.allow_emulated = true")
	}
	return append(buses, bussocket.New(c.Emulator)), nil
}

func (d *Daemon) connector() (*openldap.Connector, error) {
	c := d.Config.Central.OpenLDAP
	if c == nil {
		return nil, nil
	}
	password, err := readSecret(c.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("central.openldap.password_file: %w", err)
	}
	params := map[int]string{}
	for digits, dn := range c.Params {
		n, err := strconv.Atoi(digits)
		if err != nil {
			return nil, fmt.Errorf("central.openldap.params: %w", err)
		}
		params[n] = dn
	}
	return openldap.New(openldap.Config{
		URL: c.URL, StartTLS: c.StartTLS, CAFile: c.CAFile, BindDN: c.BindDN, Password: password,
		PeopleBase: c.PeopleBase, UserFilter: c.UserFilter, TokensBase: c.TokensBase, Params: params,
		Timeout: time.Duration(c.Timeout),
	})
}

// readSecret reads a one-line file that only its owner may read.
func readSecret(path string) (secret.Secret, error) {
	info, err := os.Stat(path)
	if err != nil {
		return secret.Secret{}, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return secret.Secret{}, fmt.Errorf("%s is open to others: chmod 600 %s", path, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return secret.Secret{}, err
	}
	if n := len(b); n > 0 && b[n-1] == '\n' {
		b = b[:n-1]
	}
	if len(b) == 0 {
		return secret.Secret{}, fmt.Errorf("%s is empty", path)
	}
	return secret.New(b), nil
}

// checkUser refuses users who cannot have the token, as far as inventory and central service know. A service
// that does not answer refuses nobody: the outbox will tell.
func checkUser(ctx context.Context, desk *localapi.Desk, name string) error {
	if desk.Connector == nil {
		return nil
	}
	limit := desk.Connector.TokensPerUser()
	var owned []vault.Token
	err := desk.Vault.View(func(tx *vault.Tx) (err error) {
		owned, err = tx.Tokens(vault.Filter{Owner: name})
		return err
	})
	if err != nil {
		return err
	}
	if limit > 0 && len(owned) >= limit {
		return &provision.RefusedError{
			Reason: fmt.Sprintf("%s has %s already, and %s takes %d token per user", name, owned[0].ID, desk.Connector.Name(), limit),
			Next:   fmt.Sprintf("unassign that one first: tokendesk unassign %s", owned[0].ID),
		}
	}
	theirs, err := desk.Connector.UserTokens(ctx, name)
	switch {
	case errors.Is(err, syncer.ErrRefused):
		return &provision.RefusedError{Reason: err.Error()}
	case err != nil:
		desk.Log.Warn("cannot ask the central service about a user; going on", "user", name, "error", err)
	case limit > 0 && len(theirs) >= limit:
		return &provision.RefusedError{Reason: fmt.Sprintf("%s has %s in %s already, which takes %d token per user", name, theirs[0], desk.Connector.Name(), limit)}
	}
	return nil
}

// listen opens the API's socket, replacing one that nobody serves any more.
func listen(c APIConfig) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(c.Socket), 0o755); err != nil {
		return nil, fmt.Errorf("cannot create the socket's directory: %w", err)
	}
	if conn, err := net.Dial("unix", c.Socket); err == nil {
		conn.Close()
		return nil, fmt.Errorf("another tokendeskd serves %s: stop it first", c.Socket)
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		if err := os.Remove(c.Socket); err != nil {
			return nil, fmt.Errorf("cannot remove the socket that a tokendeskd left behind: %w", err)
		}
	}
	old := unix.Umask(0o177) // nobody else before the mode below is set
	listener, err := net.Listen("unix", c.Socket)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("cannot open the API's socket: %w", err)
	}
	if err := openTo(c); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

func openTo(c APIConfig) error {
	if c.Group == "" {
		return nil
	}
	g, err := user.LookupGroup(c.Group)
	if err != nil {
		return fmt.Errorf("api.group: %w: create it with addgroup --system %s", err, c.Group)
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return err
	}
	if err := os.Chown(c.Socket, -1, gid); err != nil {
		return fmt.Errorf("cannot give the socket to the group %s: %w", c.Group, err)
	}
	return os.Chmod(c.Socket, 0o660)
}
