// Package keeper opens and locks the desk's vault, and does for it what is due by itself: a vault that opens without a
// PIN is opened at start, backups are made, destroyed seeds are shredded, tokens whose
// time is over are refused, signed heads of the audit trail go elsewhere.
//
// It promises that nobody locks or replaces the vault under work that is going on with a key, unless somebody insists;
// that every opening is followed by what has to follow it, before work begins; that refused attempts to open the vault
// are in its audit trail once it is open; and that nothing wakes up while nothing is due.
package keeper

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"tokendesk/provision"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

// Keeper looks after one vault. Vault and Log are required; Run does what is due.
type Keeper struct {
	Vault *vault.Vault
	Log   *slog.Logger
	// Opened does what has to follow each opening. Work with keys waits for it. May be nil.
	Opened func()
	// Backups says where and how often backups are made; none, if Dir is empty.
	Backups Schedule
	// ShredAfter is how long destroyed secrets may stay, sealed, in unused pages of the vault's file.
	ShredAfter time.Duration
	Heads      Heads
	// Expire has tokens refused whose time is over, and says how many. May be nil.
	Expire func(context.Context) (int, error)

	Works Works

	turn sync.Mutex    // whoever opens, locks or replaces the vault
	wake chan struct{} // holds one value: something may be due
	once sync.Once     // makes wake

	trail trail
	retry pause // of an opening that failed
	saved pause // of a backup that failed
	shred pause // of a rotation that failed
	stale pause // of an expiry that failed

	mu      sync.Mutex // guards what follows
	unasked bool       // the vault is to be opened as soon as what keeps it from that passes
	problem error      // why the last opening failed
	noted   string     // the desk's own failure that is on record
	unsaved string     // why the last backup failed
}

// Desk is the officer that acts of the desk itself are recorded under.
var Desk = audit.Officer{UID: audit.DeskUID, Name: "tokendeskd"}

// passes are states that pass without anybody's help here.
var passes = map[vault.State]bool{vault.StateTPMAbsent: true, vault.StateInUse: true, vault.StatePermission: true}

// waits are states in which the desk waits for somebody, and has nothing to complain of.
var waits = map[vault.State]bool{vault.StateLocked: true, vault.StateAbsent: true, vault.StateMoved: true}

func (k *Keeper) woken() chan struct{} {
	k.once.Do(func() { k.wake = make(chan struct{}, 1) })
	return k.wake
}

// Nudge has Run look whether something is due: after whatever may have been recorded or changed.
func (k *Keeper) Nudge() {
	select {
	case k.woken() <- struct{}{}:
	default: // Run has not taken the last one yet
	}
}

// Open opens a vault that needs no PIN, and sees to it that Run goes on trying if what hinders it may pass. It returns
// why the vault is not open.
func (k *Keeper) Open() error {
	k.turn.Lock()
	defer k.turn.Unlock()
	k.set(func() { k.unasked = true })
	return k.open(secret.Secret{}, Desk)
}

// Unlock opens the vault with its PIN or passphrase, or with none. One attempt is made at a time.
func (k *Keeper) Unlock(pin secret.Secret, by audit.Officer) error {
	if !k.turn.TryLock() {
		return errTurn()
	}
	defer k.turn.Unlock()
	return k.open(pin, by)
}

func errTurn() error {
	return &provision.RefusedError{Reason: "the vault is being opened, locked or replaced", Next: "repeat in a moment"}
}

// open opens the vault and does what follows. The caller has the turn.
func (k *Keeper) open(pin secret.Secret, by audit.Officer) error {
	if k.IsOpen() {
		return nil
	}
	reopen, err := k.Works.Stop(context.Background(), true) // none goes on in a locked vault
	if err != nil {
		return err
	}
	defer reopen()
	err = k.Vault.Unlock(pin)
	k.settle(err, by)
	if err != nil {
		return err
	}
	k.Log.Info("vault open", "path", k.Vault.Path(), "id", k.Vault.ID(), "level", k.Vault.Level(), "officer", by.Name)
	k.Record(audit.Act{Officer: by, Action: actUnlock, Object: k.Vault.ID(), Outcome: "done"})
	if k.Opened != nil {
		k.Opened()
	}
	k.Nudge()
	return nil
}

const actUnlock = "vault unlock"

// settle notes what came of an attempt to open the vault.
func (k *Keeper) settle(err error, by audit.Officer) {
	k.set(func() { k.problem = err })
	var state *vault.StateError
	named := errors.As(err, &state)
	switch {
	case err == nil:
		k.set(func() { k.unasked, k.noted = false, "" })
		k.retry.reset()
	case by != Desk:
		k.trail.keep(audit.Act{Officer: by, Action: actUnlock, Outcome: "vault", Reason: err.Error()})
	case named && waits[state.State]:
		k.set(func() { k.unasked = false })
		k.Log.Warn("the vault is not open", "because", err)
	default:
		k.set(func() { k.unasked = k.unasked && named && passes[state.State] })
		k.retry.fail(time.Now())
		if text := err.Error(); text != k.noted { // once for each cause
			k.set(func() { k.noted = text })
			k.Log.Error("cannot open the vault", "error", err)
			k.trail.keep(audit.Act{Officer: by, Action: actUnlock, Outcome: "vault", Reason: text})
		}
	}
	k.Nudge()
}

func (k *Keeper) set(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
}

// IsOpen tells whether the vault is unlocked.
func (k *Keeper) IsOpen() bool { return k.Vault.ID() != "" }

// Problem is why the last attempt to open the vault has failed, if it has.
func (k *Keeper) Problem() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.problem
}

// Lock locks the vault. Work with keys that is going on keeps it from that, unless force interrupts it: the journal keeps
// such work, and it is resolved after the vault was unlocked again.
func (k *Keeper) Lock(ctx context.Context, by audit.Officer, force bool) error {
	k.turn.Lock()
	defer k.turn.Unlock()
	k.set(func() { k.unasked = false }) // it stays locked
	if !k.IsOpen() {
		return nil
	}
	reopen, err := k.Works.Stop(ctx, force)
	if err != nil {
		return err
	}
	defer reopen()
	k.Record(audit.Act{Officer: by, Action: "vault lock", Object: k.Vault.ID(), Outcome: "done"})
	k.ship()
	err = k.Vault.Lock()
	k.set(func() { k.problem = nil })
	k.Nudge()
	k.Log.Info("vault locked", "officer", by.Name)
	return err
}

// Replace runs fn, which makes, restores or moves the vault and leaves it locked, while nothing else opens or uses it.
func (k *Keeper) Replace(ctx context.Context, fn func() error) error {
	if !k.turn.TryLock() {
		return errTurn()
	}
	defer k.turn.Unlock()
	reopen, err := k.Works.Stop(ctx, false)
	if err != nil {
		return err
	}
	defer reopen()
	defer k.Nudge()
	return fn()
}

// Alone runs fn, which checks a PIN, unless another attempt is going on.
func (k *Keeper) Alone(fn func() error) error {
	if !k.turn.TryLock() {
		return errTurn()
	}
	defer k.turn.Unlock()
	defer k.Nudge()
	return fn()
}

// Close ships the last head and closes the vault for ever.
func (k *Keeper) Close() error {
	k.turn.Lock()
	defer k.turn.Unlock()
	k.ship()
	return k.Vault.Close()
}

// Run does what is due until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	for ctx.Err() == nil {
		due := k.round(ctx, time.Now())
		var alarm <-chan time.Time
		var timer *time.Timer
		if !due.IsZero() {
			timer = time.NewTimer(time.Until(due))
			alarm = timer.C
		}
		select {
		case <-ctx.Done():
		case <-k.woken():
		case <-alarm:
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// round does what is due, and says when the next thing is; zero if only a nudge can make something due.
func (k *Keeper) round(ctx context.Context, now time.Time) (next time.Time) {
	for _, duty := range []func(context.Context, time.Time) time.Time{k.reopen, k.shipDue, k.backupDue, k.shredDue, k.expireDue} {
		if ctx.Err() != nil {
			return next
		}
		if due := duty(ctx, now); !due.IsZero() && (next.IsZero() || due.Before(next)) {
			next = due
		}
	}
	return next
}

// reopen tries again to open a vault that nobody has to unlock.
func (k *Keeper) reopen(_ context.Context, now time.Time) time.Time {
	k.mu.Lock()
	wanted := k.unasked
	k.mu.Unlock()
	if !wanted {
		return time.Time{}
	}
	if due := k.retry.over(); due.After(now) {
		return due
	}
	if !k.turn.TryLock() {
		return now.Add(retryMin)
	}
	err := k.open(secret.Secret{}, Desk)
	k.turn.Unlock()
	if err == nil {
		return time.Time{}
	}
	return k.retry.over()
}
