package notice

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/mail"
	"sync"
	"time"

	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// ErrNoAddress says that a user cannot be written to before somebody has mended the directory.
var ErrNoAddress = errors.New("there is no address to write to")

// Config says how notices are sent.
type Config struct {
	Server    *Server
	From      mail.Address
	ReplyTo   mail.Address // where answers go to; zero: From
	Templates *Templates
	// Address looks a user's address up. ErrNoAddress, or an address that cannot be one, parks the notice; any other error has
	// all of them wait.
	Address func(ctx context.Context, user string) (string, error)
	// The first pause after a failure and the longest; zero means one minute and one hour.
	RetryMin, RetryMax time.Duration
}

// Queue sends the vault's notices.
type Queue struct {
	v    *vault.Vault
	log  *slog.Logger
	c    *Config
	now  func() time.Time // pauses end by the wall clock: they survive restarts
	wake chan struct{}
	sent map[uint64]bool // and not recorded yet; Run's alone

	mu     sync.Mutex
	outage outage
}

// outage is a time in which nothing can be sent to anybody.
type outage struct {
	problem string // empty while all is well
	again   time.Time
	tries   int
}

// desk is who sends.
var desk = audit.Officer{UID: audit.DeskUID, Name: "tokendeskd"}

// New needs a Run to send. With a nil Config notices simply wait, and Run only blocks.
func New(v *vault.Vault, log *slog.Logger, c *Config) *Queue {
	q := &Queue{v: v, log: log, now: time.Now, wake: make(chan struct{}, 1), sent: map[uint64]bool{}}
	if c != nil {
		own := *c
		own.RetryMin = cmp.Or(own.RetryMin, time.Minute)
		own.RetryMax = max(cmp.Or(own.RetryMax, time.Hour), own.RetryMin)
		q.c = &own
	}
	return q
}

// Configured tells whether notices are sent at all.
func (q *Queue) Configured() bool { return q.c != nil }

// Problem is why nothing can be sent to anybody just now; empty if that is not so.
func (q *Queue) Problem() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.outage.problem
}

// Server names where mail is handed in.
func (q *Queue) Server() string { return q.c.Server.Name() }

// Check looks whether the server would take a mail.
func (q *Queue) Check(ctx context.Context) error { return q.c.Server.Check(ctx) }

// Wake tells Run that there may be something to send: call it after every transaction that wrote a notice.
func (q *Queue) Wake() {
	select {
	case q.wake <- struct{}{}:
	default: // Run has not taken the last one yet
	}
}

// Run sends whatever is due until ctx ends, and returns its error, or that of a vault which is closed. It sleeps until Wake or
// until the next pause is over; while the vault is locked or of no use, until Wake.
func (q *Queue) Run(ctx context.Context) error {
	if q.c == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	failures := 0
	for {
		due, err := q.pass(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, vault.ErrClosed):
			return err
		case isUnusable(err):
			due, failures = time.Time{}, 0
		case err != nil:
			failures++
			pause := q.c.pause(failures)
			q.log.Error("cannot record what became of a notice", "error", err, "again_in", pause)
			due = q.now().Add(pause)
		default:
			failures = 0
		}
		if err := q.sleep(ctx, due); err != nil {
			return err
		}
	}
}

// sleep ends at Wake, at the time that something is due (zero means never), or with ctx. No pause is longer than the longest,
// wherever the clock was set to.
func (q *Queue) sleep(ctx context.Context, due time.Time) error {
	var alarm <-chan time.Time
	if !due.IsZero() {
		t := time.NewTimer(min(due.Sub(q.now()), q.c.RetryMax))
		defer t.Stop()
		alarm = t.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-q.wake:
	case <-alarm:
	}
	return nil
}

// isUnusable tells that the vault is locked, or cannot be used before somebody has mended it.
func isUnusable(err error) bool {
	var state *vault.StateError
	return errors.As(err, &state) && !errors.Is(err, vault.ErrUnanchored)
}

// pause doubles with every attempt, and is shortened at random by up to half, so that desks which lost a server together do not
// come back together.
func (c *Config) pause(attempts int) time.Duration {
	d := c.RetryMin
	for i := 1; i < attempts && d < c.RetryMax; i++ {
		d = min(2*d, c.RetryMax)
	}
	return d - rand.N(d/2+1)
}

// waits tells whether a pause goes on. One that ends later than any can last is one of before the clock was set back.
func (q *Queue) waits(until time.Time) bool {
	now := q.now()
	return until.After(now) && until.Sub(now) <= q.c.RetryMax
}

// away tells until when nothing can be sent, or zero.
func (q *Queue) away() time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.outage.problem == "" || !q.waits(q.outage.again) {
		return time.Time{}
	}
	return q.outage.again
}

// out begins, or prolongs, an outage, and tells when the next try is.
func (q *Queue) out(problem error) time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.outage.tries++
	q.outage.problem, q.outage.again = problem.Error(), q.now().Add(q.c.pause(q.outage.tries))
	return q.outage.again
}

// back ends an outage.
func (q *Queue) back() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.outage = outage{}
}

// trail names the vault, the same after a restore.
func (q *Queue) trail() (name string, err error) {
	err = q.v.View(func(tx *vault.Tx) error {
		head, err := tx.Head()
		name = head.Vault
		return err
	})
	return name, err
}

// Retry takes a notice out of its parking place or its pause, and has it and everything else that waits tried at once. If there is
// none of that number (any more), that is vault.ErrNotFound, here and in Discard.
func (q *Queue) Retry(by audit.Officer, id uint64) error {
	err := q.v.Update(func(tx *vault.Tx) error {
		n, err := tx.Notice(id)
		if err != nil {
			return err
		}
		n.Parked, n.Problem, n.Attempts, n.NotBefore = false, "", 0, time.Time{}
		return errors.Join(tx.PutNotice(&n), tx.Audit(vault.Done(by, "retry notice "+n.Kind, n.Token, n.User)))
	})
	if err != nil {
		return fmt.Errorf("cannot retry notice %d: %w", id, err)
	}
	q.back()
	q.Wake()
	return nil
}

// Discard gives a notice up: nobody is told. A mail that is on its way just now may still arrive.
func (q *Queue) Discard(by audit.Officer, id uint64, reason string) error {
	err := q.v.Update(func(tx *vault.Tx) error {
		n, err := tx.Notice(id)
		if err != nil {
			return err
		}
		act := vault.Done(by, "discard notice "+n.Kind, n.Token, n.User)
		if reason != "" {
			act.Reason += "; reason: " + reason
		}
		return errors.Join(tx.DeleteNotice(id), tx.Audit(act))
	})
	if err != nil {
		return fmt.Errorf("cannot discard notice %d: %w", id, err)
	}
	return nil
}
