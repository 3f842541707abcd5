// Package provision turns blank tokens into verified, assigned ones, takes them from a leaver to a
// successor, and does everything else that officers do with them until they are gone.
//
// One transition table (Lifecycle) says what can be done with a token, and what follows. What needs no
// device is an order: one transaction for all its tokens, which a second officer may have to approve.
//
// Work of several steps is a plan: a list of named steps, each an effect outside the vault that can be
// repeated and a change inside it. The change and the advance of the journal are one transaction, so
// that a crash leaves a job at a known step; Resolve goes on from there, and one or two touches settle
// what the device really holds. A seed is sealed before it is programmed, and an old one destroyed only
// after the new one was verified, so no device ever holds a seed that the vault does not.
//
// The package knows neither USB nor HTTP nor LDAP: the daemon lends it devices and the outbox.
package provision

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// DefaultTouchTimeout is how long a step waits for each touch.
const DefaultTouchTimeout = 60 * time.Second

// Runner carries out plans on one vault. Vault, Open and Log are required.
type Runner struct {
	Vault *vault.Vault
	// Open lends a token on its inserted device to fn, exclusively; fn learns whether it is emulated.
	Open func(ctx context.Context, id device.TokenID, fn func(t device.HOTPToken, emulated bool) error) error
	// Confirm waits until the central service has confirmed an outbox entry. Nil: there is no central service.
	Confirm func(ctx context.Context, seq uint64) error
	// CheckUser refuses a user whom the central service does not know or who can have no more tokens there, and
	// returns the name as the central service spells it. Nil: anybody.
	CheckUser func(ctx context.Context, user string) (string, error)
	// CentralTokens names the active tokens of a user at the central service, including those that the vault does not know.
	// Nil: there are none.
	CentralTokens func(ctx context.Context, user string) (names []string, err error)
	// Policy says what takes a second officer.
	Policy Policy
	// Wake tells the outbox that it has new entries. May be nil.
	Wake func()
	// Checkpoint is called after every transaction of a plan with the plan's and the step's name. May be nil.
	Checkpoint func(plan, step string)
	// TouchTimeout is how long to wait for each touch; 0 means DefaultTouchTimeout.
	TouchTimeout time.Duration
	Log          *slog.Logger

	mu   sync.Mutex
	busy map[string]bool // tokens, and users after "for "
}

// Progress is one thing an officer should see while work goes on.
type Progress struct {
	Kind  ProgressKind `json:"kind"`
	Step  string       `json:"step,omitempty"`
	Text  string       `json:"text"`
	Slot  int          `json:"slot,omitempty"`  // with Touch: 1 is a short touch, 2 a long one
	Codes int          `json:"codes,omitempty"` // with Touch: how many codes have been captured
}

// ProgressKind tells kinds of Progress apart.
type ProgressKind string

// Kinds of Progress.
const (
	Done  ProgressKind = "done"  // a step is finished
	Touch ProgressKind = "touch" // somebody has to touch the key now
	Note  ProgressKind = "note"  // worth knowing
)

// Tell receives Progress.
type Tell func(Progress)

// RefusedError says that an action is not possible as things are, and what to do instead.
type RefusedError struct{ Reason, Next string }

func (e *RefusedError) Error() string {
	if e.Next == "" {
		return e.Reason
	}
	return e.Reason + "; " + e.Next
}

func refuse(next, format string, args ...any) error {
	return &RefusedError{Reason: fmt.Sprintf(format, args...), Next: next}
}

// UnfinishedError says that work stopped in the middle, that nothing is lost, and how to settle it.
type UnfinishedError struct {
	Token device.TokenID
	Plan  string
	Step  string
	Err   error
}

func (e *UnfinishedError) Error() string {
	text := fmt.Sprintf("%s of %s stopped at %q: %v; nothing is lost: run tokendesk resolve %s", e.Plan, e.Token, e.Step, e.Err, e.Token)
	if e.Plan == planEnroll || e.Step == stepConfirm {
		text += ", or give it up with tokendesk resolve --undo " + string(e.Token)
	}
	return text
}

func (e *UnfinishedError) Unwrap() error { return e.Err }

// params is what a job has to remember between its steps. It holds no secret.
type params struct {
	User         string         `json:"user,omitempty"`
	Digits       int            `json:"digits"`
	StartCounter uint64         `json:"start_counter"`
	Identifier   bool           `json:"identifier"`
	Enter        bool           `json:"enter"`
	Generation   int            `json:"generation"`        // of the seed being programmed
	Leaver       string         `json:"leaver,omitempty"`  // reissue, wipe: who had the token
	CutOff       uint64         `json:"cut_off,omitempty"` // reissue: the outbox entry that cuts the leaver off
	Serial       device.Serial  `json:"serial"`
	Firmware     device.Version `json:"firmware"`
	Emulated     bool           `json:"emulated"`
	Occupied     bool           `json:"occupied,omitempty"` // enroll: the slot held something before
	Written      bool           `json:"written,omitempty"`  // the device has confirmed the seed at least once
	Typed        bool           `json:"typed,omitempty"`    // verify by codes that somebody types in, not by captured ones
	Reason       string         `json:"reason,omitempty"`   // wipe: the officer's words
}

// work is a job being carried out.
type work struct {
	*Runner
	by     audit.Officer
	job    vault.Job
	params params
	tell   Tell
	device device.HOTPToken // while the step's device is lent
	typed  []string         // verify: codes that somebody has typed in
	there  census           // cut-off: who has tokens elsewhere
	found  uint64           // verify: the next moving factor
	left   []vault.Change   // what was left for the central service
}

// step is one entry of a plan.
type step struct {
	name string
	done string // what an officer reads afterwards
	// device says that act works on the inserted device. It is held from one such step to the next,
	// so that no touch in between reaches another window.
	device bool
	// repeat has Resolve start with the step before: what that one wrote may have been lost since, and
	// writing it again does no harm.
	repeat bool
	act    func(ctx context.Context, w *work) error         // effect outside the vault; may be repeated
	commit func(tx *vault.Tx, w *work, now time.Time) error // change inside it, together with the journal
}

// Names of plans. They are stored in jobs.
const (
	planEnroll  = "enroll"
	planReissue = "reissue"
	planReseed  = "reseed"
	planWipe    = "wipe"
)

// stepConfirm is the step of a reissue after which it cannot be called off.
const stepConfirm = "confirm"

func plans() map[string][]step {
	return map[string][]step{planEnroll: enrollPlan(), planReissue: reissuePlan(), planReseed: reseedPlan(), planWipe: wipePlan()}
}

// Steps names the steps of every plan, in order.
func Steps() map[string][]string {
	names := map[string][]string{}
	for plan, steps := range plans() {
		for _, s := range steps {
			names[plan] = append(names[plan], s.name)
		}
	}
	return names
}

// Claim keeps other work off a token until release is called, or refuses because some is going on.
func (r *Runner) Claim(id device.TokenID) (release func(), err error) {
	return r.claim(string(id), "on "+string(id))
}

// Working tells whether somebody works on a token just now.
func (r *Runner) Working(id device.TokenID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.busy[string(id)]
}

// claim is Claim for anything that two officers must not work on at a time.
func (r *Runner) claim(key, what string) (release func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[key] {
		return nil, refuse("wait until it has finished", "another officer's work %s is going on", what)
	}
	if r.busy == nil {
		r.busy = map[string]bool{}
	}
	r.busy[key] = true
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.busy, key)
	}, nil
}

// begin carries out a new job. It enters the journal together with what its first step commits.
func (r *Runner) begin(ctx context.Context, kind string, by audit.Officer, id device.TokenID, p params, tell Tell) ([]vault.Change, error) {
	return r.job(kind, by, id, p, tell).run(ctx)
}

func (r *Runner) job(kind string, by audit.Officer, id device.TokenID, p params, tell Tell) *work {
	return &work{Runner: r, by: by, params: p, tell: tell, job: vault.Job{
		Kind: kind, Token: id, Officer: by.Name, Created: time.Now().UTC(),
	}}
}

func (r *Runner) checkpoint(plan, step string) {
	if r.Checkpoint != nil {
		r.Checkpoint(plan, step)
	}
}

func (r *Runner) wake() {
	if r.Wake != nil {
		r.Wake()
	}
}

// run carries out the steps that are left, and returns what they left for the central service.
func (w *work) run(ctx context.Context) ([]vault.Change, error) {
	plan := plans()[w.job.Kind]
	for w.job.Step < len(plan) {
		var err error
		if plan[w.job.Step].device {
			err = w.Open(ctx, w.job.Token, func(t device.HOTPToken, emulated bool) error {
				w.device = t
				w.params.Emulated = w.params.Emulated || emulated
				defer func() { w.device = nil }()
				for w.job.Step < len(plan) && plan[w.job.Step].device {
					if err := w.runStep(ctx, plan); err != nil {
						return err
					}
				}
				return nil
			})
		} else {
			err = w.runStep(ctx, plan)
		}
		if err != nil {
			return w.left, w.park(plan, err)
		}
	}
	return w.left, nil
}

// runStep carries out a step, and those after it that have no effect outside the vault: they are one transaction.
func (w *work) runStep(ctx context.Context, plan []step) error {
	if act := plan[w.job.Step].act; act != nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := act(ctx, w); err != nil {
			return err
		}
	}
	steps := plan[w.job.Step:next(plan, w.job.Step)]
	job, p, left := w.job, w.params, w.left
	err := w.Vault.Update(func(tx *vault.Tx) error {
		w.job, w.params, w.left = job, p, left
		now := time.Now().UTC()
		for _, s := range steps {
			if s.commit != nil {
				if err := s.commit(tx, w, now); err != nil {
					return err
				}
			}
			if err := w.record(tx, w.job.Kind+": "+s.name); err != nil {
				return err
			}
			w.job.Step++
		}
		w.job.Problem = ""
		w.job.Updated = now
		if w.job.Step == len(plan) {
			return tx.DeleteJob(w.job.ID)
		}
		raw, err := json.Marshal(w.params)
		if err != nil {
			return err
		}
		w.job.Params = raw
		return tx.PutJob(&w.job)
	})
	if err != nil {
		if !errors.Is(err, vault.ErrUnanchored) { // else it is recorded, and the work goes on from there
			w.job, w.params, w.left = job, p, left
		} else {
			w.wake()
		}
		return err
	}
	for _, s := range steps {
		w.checkpoint(w.job.Kind, s.name)
		w.tell(Progress{Kind: Done, Step: s.name, Text: s.done})
	}
	w.wake()
	return nil
}

// next is the first step after step i that is not in one transaction with it.
func next(plan []step, i int) int {
	for i++; i < len(plan) && plan[i].act == nil; i++ {
	}
	return i
}

// record adds an act on the work's token to the audit trail: for whom it is, or else against whom, and why.
func (w *work) record(tx *vault.Tx, action string) error {
	act := vault.Done(w.by, action, w.job.Token, cmp.Or(w.params.User, w.params.Leaver))
	return tx.Audit(explained(act, "", w.params.Reason))
}

// park notes in the journal why the work stopped. The job stays where it is.
func (w *work) park(plan []step, cause error) error {
	if w.job.ID == 0 || w.job.Step == len(plan) { // nothing has happened yet, or everything
		return cause
	}
	if errors.Is(cause, context.Canceled) {
		cause = fmt.Errorf("it was interrupted, or the desk was stopped: %w", cause)
	}
	stopped := &UnfinishedError{Token: w.job.Token, Plan: w.job.Kind, Step: plan[w.job.Step].name, Err: cause}
	w.job.Problem = cause.Error()
	w.job.Updated = time.Now().UTC()
	if err := w.Vault.Update(func(tx *vault.Tx) error { return tx.PutJob(&w.job) }); err != nil {
		return errors.Join(stopped, err)
	}
	return stopped
}
