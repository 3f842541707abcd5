// Package daemon puts the desk together: vault, buses, central service, outbox, API. It is the only
// place that knows all of them.
//
// The order of its start leaves nothing half done, wherever it ends: the configuration is checked; the socket is taken, so
// that a second daemon of this desk leaves everything else alone; the vault is opened if that needs nobody, and work that
// was interrupted is recovered; then requests are answered, whatever state the vault is in.
//
// Run returns when its context ends or a part fails for good; by then every goroutine has stopped and
// the vault is closed.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tokendesk/cmd/internal/keeper"
	"tokendesk/cmd/internal/keys"
	"tokendesk/cmd/internal/localapi"
	"tokendesk/device"
	"tokendesk/provision"
	syncer "tokendesk/sync"
	"tokendesk/vault"
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
	// Heads gets the signed heads of the audit trail, a line each; the journal is the place for them. May be nil.
	Heads io.Writer
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

// Run serves the desk until ctx ends.
func (d *Daemon) Run(ctx context.Context) (err error) {
	level := d.Config.Vault.level(d.Log)
	buses, err := d.Config.Devices.buses(level)
	if err != nil {
		return err
	}
	directory, err := d.directory()
	if err != nil {
		return err
	}
	if directory != nil {
		defer directory.Close()
	}
	notices, err := d.notices(directory)
	if err != nil {
		return err
	}
	listener, err := listen(d.Config.API.Socket, d.Config.groups())
	if err != nil {
		return err
	}
	desk := d.assemble(buses, directory)
	if cards, wanted := d.Config.Devices.cards(level); wanted {
		desk.Keys.WatchCards(cards)
		desk.Runner.OpenPIV = openPIV(desk)
	}
	d.tellHolders(desk, notices)
	defer func() { err = errors.Join(err, desk.Keeper.Close()) }()
	desk.Keeper.Opened = func() {
		if directory != nil {
			if err := directory.name(desk.Vault); err != nil {
				d.Log.Error("cannot name this desk to the central service", "error", err)
			}
		}
		if err := desk.Runner.Recover(ctx); err != nil {
			d.Log.Error("cannot finish interrupted work", "error", err)
		}
		desk.Outbox.Wake()
		desk.Notices.Wake()
		desk.Refresher.Nudge()
	}
	desk.Keeper.Open() // if it cannot be, that is logged and shown
	return d.serve(ctx, desk, listener)
}

func (d *Daemon) assemble(buses []device.Bus, directory *directory) *localapi.Desk {
	c := d.Config
	v := vault.At(c.Vault.Path, c.Vault.open)
	desk := &localapi.Desk{
		Vault: v, Keys: keys.New(d.Log, buses...), Version: Version, Since: time.Now().UTC(),
		Roles: c.roles(), Tenants: c.tenants(), Types: c.namings(), Imprint: c.Desk.imprint(), Log: d.Log,
		Board: localapi.Board{Parent: c.Vault.parent(), Fingerprint: tpmseal.Fingerprint, Wrap: tpmseal.Wrap},
		Keeper: &keeper.Keeper{
			Vault: v, Log: d.Log, ShredAfter: time.Duration(c.Vault.ShredAfter),
			Backups: keeper.Schedule{Dir: c.Backup.Dir, Every: time.Duration(c.Backup.Every), Keep: c.Backup.Keep},
			Heads:   keeper.Heads{Journal: d.Heads, File: c.Audit.Heads},
		},
	}
	if directory != nil { // a nil *directory in an interface would not be nil
		desk.Connector = directory
	}
	d.work(desk, v)
	desk.Doctor = d.doctor(desk)
	return desk
}

func (c Config) roles() localapi.Roles {
	return localapi.Roles{Officers: c.Roles.Officers, Approvers: c.Roles.Approvers, Auditors: c.Roles.Auditors, Administrators: c.Roles.Administrators}
}

// groups are those whose members have any role, each once.
func (c Config) groups() []string {
	all := c.roles().Groups()
	for _, roles := range c.tenants() {
		all = append(all, roles.Groups()...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (c Config) tenants() map[string]localapi.Roles {
	all := map[string]localapi.Roles{}
	for name, t := range c.Tenants {
		all[name] = localapi.Roles{Officers: t.Officers, Approvers: t.Approvers, Auditors: t.Auditors}
	}
	return all
}

func (c Config) namings() map[string]localapi.Naming {
	all := map[string]localapi.Naming{}
	for code, t := range c.Types {
		all[code] = localapi.Naming(t)
	}
	return all
}

// work gives the desk what carries out plans, and what delivers changes.
func (d *Daemon) work(desk *localapi.Desk, v *vault.Vault) {
	c := d.Config.Central
	pauses := syncer.Backoff{Min: time.Duration(c.RetryMin), Max: time.Duration(c.RetryMax)}
	desk.Outbox = syncer.NewOutbox(v, desk.Connector, d.Log, pauses)
	desk.Outbox.Sees = localapi.Sees
	desk.Refresher = syncer.NewRefresher(v, desk.Connector, d.Log, syncer.RefreshConfig{
		Interval: time.Duration(c.RefreshEvery), Retry: pauses, Wake: desk.Outbox.Wake,
	})
	desk.Runner = &provision.Runner{
		Vault: v, Log: d.Log, Wake: desk.Outbox.Wake, Checkpoint: d.Checkpoint,
		Open: func(ctx context.Context, id device.TokenID, fn func(device.HOTPToken, bool) error) error {
			return desk.Keys.Use(ctx, id, func(_ context.Context, t device.HOTPToken, k keys.Key) error { return fn(t, k.Info.Emulated) })
		},
		FindUser: func(ctx context.Context, name string) (string, error) {
			user, err := findUser(ctx, desk, name)
			return user.Name, err
		},
		CheckUser: func(ctx context.Context, name string) (string, error) { return checkUser(ctx, desk, name) },
		AtHand:    desk.Keys.Inserted,
		Await:     desk.Keys.Await,
		Counter: func(ctx context.Context, id device.TokenID) (uint64, error) {
			base, _, err := desk.Outbox.Observe(ctx, id)
			return base, err
		},
		Policy: provision.Policy{LastToken: d.Config.Policy.ApproveLastToken, CompromiseOver: d.Config.Policy.ApproveCompromiseOver},
	}
	desk.Keeper.Expire = desk.Runner.ExpireDue
	desk.Drift = syncer.NewDrift(v, desk.Connector, syncer.DriftConfig{Wake: desk.Outbox.Wake, Claim: desk.Runner.Claim})
	if desk.Connector != nil {
		desk.Runner.CentralTokens = func(ctx context.Context, user string) ([]string, error) { return centralTokens(ctx, desk, user) }
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
}

// serve runs the parts until ctx ends or one of them fails.
func (d *Daemon) serve(ctx context.Context, desk *localapi.Desk, listener net.Listener) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	server := desk.Server()
	server.BaseContext = func(net.Listener) context.Context { return ctx }
	var parts sync.WaitGroup
	failed := make(chan error, 4)
	parts.Go(func() { desk.Keys.Run(ctx) })
	parts.Go(func() { desk.Keeper.Run(ctx) })
	parts.Go(func() {
		if err := desk.Outbox.Run(ctx); ctx.Err() == nil {
			failed <- fmt.Errorf("the outbox stopped: %w", err)
		}
	})
	parts.Go(func() {
		if err := desk.Notices.Run(ctx); ctx.Err() == nil {
			failed <- fmt.Errorf("notices are sent no more: %w", err)
		}
	})
	parts.Go(func() {
		if err := desk.Refresher.Run(ctx); ctx.Err() == nil {
			failed <- fmt.Errorf("the central service is read no more: %w", err)
		}
	})
	parts.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("the API stopped: %w", err)
		}
	})
	d.Log.Info("ready", "socket", d.Config.API.Socket, "vault", desk.Vault.Path(), "state", desk.Vault.Condition().State)
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
