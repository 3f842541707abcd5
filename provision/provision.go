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
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
)

// DefaultTouchTimeout is how long a step waits for each touch.
const DefaultTouchTimeout = 60 * time.Second

// Runner carries out plans on one vault. Vault, Open and Log are required.
type Runner struct {
	Vault *vault.Vault
	// Open lends a token on its inserted device to fn, exclusively; fn learns whether it is emulated.
	Open func(ctx context.Context, id device.TokenID, fn func(t device.HOTPToken, emulated bool) error) error
	// OpenPIV lends the PIV application of an inserted key to fn, exclusively; fn learns whether it is emulated. It fails with
	// ErrNoCard if the key has none that the desk sees. Nil: the desk does no PIV.
	OpenPIV func(ctx context.Context, id device.ID, fn func(p device.PIV, emulated bool) error) error
	// Confirm waits until the central service has confirmed an outbox entry. Nil: there is no central service.
	Confirm func(ctx context.Context, seq uint64) error
	// FindUser refuses a user whom the central service does not know, and returns the name as the central service spells it.
	// Nil: anybody.
	FindUser func(ctx context.Context, user string) (string, error)
	// CheckUser is FindUser that also refuses users who can have no more tokens there.
	CheckUser func(ctx context.Context, user string) (string, error)
	// CentralTokens names the active tokens of a user at the central service, including those that the vault does not know.
	// Nil: there are none.
	CentralTokens func(ctx context.Context, user string) (names []string, err error)
	// Policy says what takes a second officer.
	Policy Policy
	// Notices has holders told by mail of what becomes of their tokens.
	Notices bool
	// AtHand tells whether a device is inserted. Nil: that is never known.
	AtHand func(device.ID) bool
	// Await waits until a device is inserted and can be used. Nil: a key that is pulled from a tray is not taken again.
	Await func(ctx context.Context, id device.ID) error
	// Counter is the next moving factor that the vault or the central service shows for a token, whichever is higher. Nil: the
	// vault's counts.
	Counter func(ctx context.Context, id device.TokenID) (uint64, error)
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

	Device device.ID `json:"device,omitempty"` // of several: which one it is about
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
	Undo  bool // it can be given up
	Err   error
}

func (e *UnfinishedError) Error() string {
	text := fmt.Sprintf("%s of %s stopped at %q: %v; nothing is lost: run tokendesk resolve %s", e.Plan, e.Token, e.Step, e.Err, e.Token)
	if e.Plan == planUnchanged && e.Step == stepCodes || errors.Is(e.Err, ErrCodesWanted) {
		text += " CODE CODE, with two codes in a row that it shows"
	}
	if e.Undo {
		text += ", or give it up with tokendesk resolve --undo " + string(e.Token)
	}
	return text
}

func (e *UnfinishedError) Unwrap() error { return e.Err }

// Names of plans. They are stored in jobs, and read by people.
const (
	planEnroll    = "enroll"
	planReissue   = "reissue"
	planAbsent    = "reissue without device"
	planReplace   = "replace"
	planUnchanged = "reissue with the same seed"
	planReseed    = "reseed"
	planWipe      = "wipe"

	planPIV        = "piv provision"
	planPIVUnblock = "piv unblock"
	planPIVWipe    = "piv wipe"
)

// Steps of reissues that wait: for the central service, for the device, for codes.
const (
	stepConfirm = "confirm"
	stepDevice  = "device"
	stepCodes   = "codes"
)

// stepSeal is the step from which on the device may hold the new seed.
const stepSeal = "seal"

func plans() map[string][]step {
	return map[string][]step{
		planEnroll: enrollPlan(), planReissue: reissuePlan(), planAbsent: absentPlan(), planReplace: replacePlan(), planUnchanged: unchangedPlan(),
		planReseed: reseedPlan(), planWipe: wipePlan(),
		planPIV: pivPlan(), planPIVUnblock: pivUnblockPlan(), planPIVWipe: pivWipePlan(),
	}
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
