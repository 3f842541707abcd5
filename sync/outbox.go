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
)

var (
	// ErrParked is what Wait returns for an entry that waits for an officer.
	ErrParked = errors.New("the change is parked")
	// ErrDiscarded is what Wait returns when an officer gives the entry up meanwhile.
	ErrDiscarded = errors.New("the change was discarded: the central service was not told")
)

// Backoff bounds the pause after a failed delivery, which doubles from Min to Max. Zero values mean
// one second and five minutes.
type Backoff struct{ Min, Max time.Duration }

// Outbox delivers the vault's changes to the central service: at least once, and in order per token.
//
// An entry says what to bring up to date; what it is brought to is read from the vault at delivery. A
// token's codes may be accepted if it is active and has an owner then, and only then does a
// Put, Assign or Enable carry its seed. So nothing that is delivered late can undo a cut-off, and
// cut-offs go first, held back by nothing: not even by earlier entries of their token. An entry that asks for what the vault
// no longer wants is dropped, whatever its state; a cut-off never is. Where an assignment is dropped only because the token got
// another seed meanwhile, another one follows.
//
// A change that fails is tried again with growing pauses, which survive restarts because they stand
// in the change; one that is refused is parked until Retry, and so is one that an officer parks. Each holds back the later
// changes of its own token, except cut-offs; a cut-off also holds back assignments to the user whom it concerns. A Remove does
// so only until the token is closed for good, and then concerns nobody any more (User is empty). When the
// service itself does not answer, a few changes find that out, and the others wait for it as they are.
//
// Of what was delivered, the vault is told some at a time, and of cut-offs at once: after a crash a change that was delivered and
// not recorded is delivered again, which writes nothing, as it is there. However much waits, what is in memory of it is one entry,
// and those outcomes.
type Outbox struct {
	// Sees tells whether who makes a request may know of a tenant's tokens. Nil: everybody may. It is set before the outbox is used.
	Sees func(ctx context.Context, tenant string) bool

	v       *vault.Vault
	c       Connector
	log     *slog.Logger
	backoff Backoff
	now     func() time.Time // pauses end by the wall clock: they survive restarts
	turn    chan struct{}    // holds one value; whoever took it delivers
	wake    chan struct{}
	books   books
	placing sync.Mutex // held by whoever looks for the counter of typed codes

	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, when the outbox may have changed
	waiters map[uint64]*waiter
	wanted  []uint64 // entries to be tried before their turn
	outage  outage
	pace    pace
}

// maxWanted is how many entries can be wanted before their turn at a time: those of a few people.
const maxWanted = 64

// waiter is those who wait for one entry.
type waiter struct {
	n         int
	discarded bool
}

// NewOutbox needs a Run to deliver. Without a connector (nil) entries simply wait, and Run only blocks.
func NewOutbox(v *vault.Vault, c Connector, log *slog.Logger, b Backoff) *Outbox {
	b.Min = cmp.Or(b.Min, time.Second)
	b.Max = max(cmp.Or(b.Max, 5*time.Minute), b.Min)
	o := &Outbox{v: v, c: c, log: log, backoff: b, now: time.Now, turn: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		changed: make(chan struct{}), waiters: map[uint64]*waiter{}}
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
			due = o.now().Add(pause)
		default:
			failures = 0
		}
		if err := o.sleep(ctx, due); err != nil {
			return err
		}
	}
}

// sleep ends at Wake, at the time that something is due (zero means never), or with ctx. No pause is longer than the longest,
// wherever the clock was set to.
func (o *Outbox) sleep(ctx context.Context, due time.Time) error {
	var alarm <-chan time.Time
	if !due.IsZero() {
		t := time.NewTimer(min(due.Sub(o.now()), o.backoff.Max))
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
// problem when it is parked (ErrParked), discarded (ErrDiscarded) or ctx ends (its error). What is waited for is tried before its
// turn in a long outbox.
func (o *Outbox) Wait(ctx context.Context, seq uint64) error {
	w := o.join(seq)
	defer o.leave(seq, w)
	for {
		o.mu.Lock()
		changed := o.changed
		o.mu.Unlock()
		c, found, err := o.look(seq)
		switch {
		case err != nil:
			return err
		case !found:
			return o.farewell(w)
		case c.Parked:
			return fmt.Errorf("%w: %s", ErrParked, cmp.Or(c.Reason, c.Problem))
		}
		select {
		case <-ctx.Done():
			if problem := cmp.Or(c.Problem, o.away().problem); problem != "" {
				return fmt.Errorf("%w; so far: %s", ctx.Err(), problem)
			}
			return ctx.Err()
		case <-changed:
		}
	}
}

// look returns a change as it stands in the vault.
func (o *Outbox) look(seq uint64) (c vault.Change, found bool, err error) {
	err = o.v.View(func(tx *vault.Tx) (err error) {
		c, err = tx.ChangeAt(seq)
		return err
	})
	if errors.Is(err, vault.ErrNotFound) {
		return c, false, nil
	}
	return c, err == nil, err
}

func (o *Outbox) join(seq uint64) *waiter {
	o.want(seq)
	o.mu.Lock()
	defer o.mu.Unlock()
	w := o.waiters[seq]
	if w == nil {
		w = &waiter{}
		o.waiters[seq] = w
	}
	w.n++
	return w
}

func (o *Outbox) leave(seq uint64, w *waiter) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if w.n--; w.n == 0 && o.waiters[seq] == w {
		delete(o.waiters, seq)
	}
}

// farewell is what those are told who waited for an entry that is gone.
func (o *Outbox) farewell(w *waiter) error {
	o.books.writer.Lock() // whoever took it out has said why by then
	defer o.books.writer.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	if w.discarded {
		return ErrDiscarded
	}
	return nil
}

// want has a pass that is under way, or the next one, try an entry before its turn.
func (o *Outbox) want(seq uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.wanted) < maxWanted {
		o.wanted = append(o.wanted, seq)
	}
}

// nextWanted takes one of them, or 0.
func (o *Outbox) nextWanted() (seq uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.wanted) > 0 {
		seq, o.wanted = o.wanted[0], o.wanted[1:]
	}
	return seq
}

// Observe asks the central service for a token and returns with its answer the counter that a resync
// starts from: the higher of the vault's and the central one. The central one does not count while
// the seed that it belongs to is still to be replaced there. On an error of the service, base is the vault's counter.
func (o *Outbox) Observe(ctx context.Context, id device.TokenID) (base uint64, seen Observation, err error) {
	o.catchUp()
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

func (o *Outbox) announce() {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
}
