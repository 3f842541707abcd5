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
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tokendesk/cmd/internal/keys"
	"tokendesk/cmd/internal/localapi"
	"tokendesk/device"
	"tokendesk/device/otpslot"
	"tokendesk/provision"
	syncer "tokendesk/sync"
	"tokendesk/sync/openldap"
	"tokendesk/vault"
	"tokendesk/vault/passseal"
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
	buses, err := d.Config.Devices.buses(v.Level())
	if err != nil {
		return err
	}
	connector, err := d.connector(v.ID())
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
		CheckUser: func(ctx context.Context, name string) (string, error) { return checkUser(ctx, desk, name) },
	}
	if desk.Connector != nil {
		desk.Runner.Confirm = func(ctx context.Context, seq uint64) error {
			ctx, cancel := context.WithTimeout(ctx, time.Duration(c.ConfirmTimeout))
			defer cancel()
			err := desk.Outbox.Hurry(ctx, seq)
			if errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("not within %s, and it stays in the outbox: %w", time.Duration(c.ConfirmTimeout), err)
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
		if err != nil {
			return nil, nil, err
		}
		return s, s.Close, nil
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
