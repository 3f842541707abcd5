package syncer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// ErrParked is what Wait returns for an entry that waits for an officer.
var ErrParked = errors.New("the change is parked")

// Backoff bounds the pause after a failed delivery, which doubles from Min to Max. Zero values mean
// one second and five minutes.
type Backoff struct{ Min, Max time.Duration }

// Outbox delivers the vault's changes to the central service: at least once, and in order per token.
//
// An entry says what to bring up to date; what it is brought to is read from the vault at delivery. A
// token's codes may be accepted if it is active and has an owner then, and only then does a
// Put, Assign or Enable carry its seed. So nothing that is delivered late can undo a cut-off, and
// cut-offs go first, held back by nothing: not even by earlier entries of their token. An entry that asks for what the vault
// no longer wants is dropped, whatever its state; a cut-off never is.
//
// A change that fails is tried again with growing pauses, which survive restarts because they stand
// in the change; one that is refused is parked until Retry. Either holds back the later changes of its own token,
// except cut-offs; a cut-off also holds back assignments to the user whom it concerns.
type Outbox struct {
	v       *vault.Vault
	c       Connector
	log     *slog.Logger
	backoff Backoff
	turn    chan struct{} // holds one value; whoever took it delivers
	wake    chan struct{}
	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, when the outbox may have changed
}

// NewOutbox needs a Run to deliver. Without a connector (nil) entries simply wait, and Run only blocks.
func NewOutbox(v *vault.Vault, c Connector, log *slog.Logger, b Backoff) *Outbox {
	b.Min = cmp.Or(b.Min, time.Second)
	b.Max = max(cmp.Or(b.Max, 5*time.Minute), b.Min)
	o := &Outbox{v: v, c: c, log: log, backoff: b, turn: make(chan struct{}, 1), wake: make(chan struct{}, 1), changed: make(chan struct{})}
	o.turn <- struct{}{}
	return o
}

// Run delivers whatever is due until ctx ends, and returns its error, or that of a vault which is closed. It sleeps
// until Wake or until the next pause is over; while the vault is locked or of no use, until Wake. What the vault cannot
// record, because the disk is full, say, is delivered again after a pause.
func (o *Outbox) Run(ctx context.Context) error {
	failures := 0
	for {
		due, err := o.pass(ctx)
		switch {
		case isFinal(ctx, err):
			return err
		case isUnusable(err):
			due, failures = time.Time{}, 0
		case err != nil:
			failures++
			pause := o.backoff.pause(failures)
			o.log.Error("cannot record what became of a change", "error", err, "again_in", pause)
			due = time.Now().Add(pause)
		default:
			failures = 0
		}
		if err := o.sleep(ctx, due); err != nil {
			return err
		}
	}
}

// sleep ends at Wake, at the time that something is due (zero means never), or with ctx.
func (o *Outbox) sleep(ctx context.Context, due time.Time) error {
	var alarm <-chan time.Time
	if !due.IsZero() {
		t := time.NewTimer(time.Until(due))
		defer t.Stop()
		alarm = t.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-o.wake:
	case <-alarm:
	}
	return nil
}

// Wake tells Run, and everybody in Wait, that the outbox has changed: call it after every transaction that
// enqueued or removed something.
func (o *Outbox) Wake() {
	select {
	case o.wake <- struct{}{}:
	default: // Run has not taken the last one yet
	}
	o.announce()
}

// Wait returns nil when the entry is gone, because it was confirmed or became obsolete, and an error with its
// problem when it is parked (ErrParked) or ctx ends (its error).
func (o *Outbox) Wait(ctx context.Context, seq uint64) error {
	for {
		o.mu.Lock()
		changed := o.changed
		o.mu.Unlock()
		var c vault.Change
		var found bool
		err := o.v.View(func(tx *vault.Tx) (err error) {
			c, found, err = find(tx, seq)
			return err
		})
		switch {
		case err != nil:
			return err
		case !found:
			return nil
		case c.Parked:
			return fmt.Errorf("%w: %s", ErrParked, c.Problem)
		}
		select {
		case <-ctx.Done():
			if c.Problem != "" {
				return fmt.Errorf("%w; so far: %s", ctx.Err(), c.Problem)
			}
			return ctx.Err()
		case <-changed:
		}
	}
}

// Hurry ends an entry's pause, has it tried at once and waits for it as Wait does. A parked entry stays parked.
func (o *Outbox) Hurry(ctx context.Context, seq uint64) error {
	err := o.v.Update(func(tx *vault.Tx) error {
		c, found, err := find(tx, seq)
		if err != nil || !found || c.NotBefore.IsZero() {
			return err
		}
		c.NotBefore = time.Time{}
		return tx.PutChange(c)
	})
	if err != nil {
		return fmt.Errorf("cannot hurry change %d: %w", seq, err)
	}
	o.Wake()
	return o.Wait(ctx, seq)
}

// Retry takes an entry out of its parking place or its pause and has it tried at once.
func (o *Outbox) Retry(by audit.Officer, seq uint64) error {
	err := o.v.Update(func(tx *vault.Tx) error {
		c, found, err := find(tx, seq)
		if err != nil {
			return err
		}
		if !found {
			return vault.ErrNotFound
		}
		c.Parked, c.Problem, c.Attempts, c.NotBefore = false, "", 0, time.Time{}
		return errors.Join(tx.PutChange(c), tx.Audit(vault.Done(by, "retry "+string(c.Kind), c.Token, c.User)))
	})
	if err != nil {
		return fmt.Errorf("cannot retry change %d: %w", seq, err)
	}
	o.Wake()
	return nil
}

// Observe asks the central service for a token and returns with its answer the counter that a resync
// starts from: the higher of the vault's and the central one. The central one does not count while
// the seed that it belongs to is still to be replaced there. On an error of the service, base is the vault's counter.
func (o *Outbox) Observe(ctx context.Context, id device.TokenID) (base uint64, seen Observation, err error) {
	other := false
	err = o.v.View(func(tx *vault.Tx) error {
		t, err := tx.Token(id)
		if err != nil {
			return err
		}
		base = t.Counter
		other, err = replacing(tx, t)
		return err
	})
	if err != nil || o.c == nil {
		return base, Observation{}, err
	}
	if seen, err = o.c.Observe(ctx, id); err != nil {
		return base, Observation{}, err
	}
	if !other {
		base = max(base, seen.Counter)
	}
	return base, seen, nil
}

// desk is who delivers.
var desk = audit.Officer{UID: audit.DeskUID, Name: "tokendeskd"}

func find(tx *vault.Tx, seq uint64) (vault.Change, bool, error) {
	changes, err := tx.Changes()
	for _, c := range changes {
		if c.Seq == seq {
			return c, true, err
		}
	}
	return vault.Change{}, false, err
}

func (o *Outbox) announce() {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
}
