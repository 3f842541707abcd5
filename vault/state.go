package vault

import (
	"errors"
	"fmt"
	"time"
)

// ErrNotFound is what a lookup wraps when there is no such record.
var ErrNotFound = errors.New("not found")

// ErrUnanchored means that a change was committed, and that the TPM's counter could not be raised after it. It has no effect
// before that was made up for, which every later use of the vault tries first.
var ErrUnanchored = errors.New("the change is recorded, and waits for the TPM before it takes effect")

// ErrClosed is what every use of a closed vault returns.
var ErrClosed = errors.New("the vault is closed")

// State names why a vault cannot be opened or used.
type State string

// States.
const (
	StateAbsent          State = "absent"             // there is no file
	StateInUse           State = "in-use"             // another process holds the file
	StateLocked          State = "locked"             // closed until it is given its PIN or passphrase
	StateWrongPIN        State = "wrong-pin"          // the PIN does not open it; StateError.Left more may be tried
	StateLockout         State = "da-lockout"         // too many wrong PINs: none is taken before StateError.Until
	StateWrongPassphrase State = "wrong-passphrase"   // the passphrase does not open it
	StateTPMAbsent       State = "tpm-absent"         // no TPM answers
	StateTPMChanged      State = "tpm-changed"        // this is not the TPM that sealed it, or it was cleared
	StatePermission      State = "permission"         // file or TPM may not be used, or too many may
	StateCorrupt         State = "corrupt"            // damaged or tampered with
	StateNewerFormat     State = "newer-format"       // written by a later version
	StateWrongSealer     State = "wrong-sealer"       // sealed by another kind of sealer, or at another level
	StateRollback        State = "rollback-suspected" // older than the TPM's counter says: a restored copy
	StateCounterLost     State = "counter-lost"       // the TPM's counter is gone, or far behind
	StateMoved           State = "moved"              // it was moved to another board
)

// StateError says in which state a vault or its sealer is, why, and what helps.
type StateError struct {
	State State
	Err   error  // the cause
	Cure  string // what to do about it

	Left  int       // StateWrongPIN: how many more may be tried now
	Until time.Time // StateLockout: when the next may be tried
}

func (e *StateError) Error() string {
	state := string(e.State)
	switch {
	case e.State == StateWrongPIN:
		state = fmt.Sprintf("%s (%d left)", state, e.Left)
	case !e.Until.IsZero():
		state = fmt.Sprintf("%s (until %s)", state, e.Until.Local().Format("2006-01-02 15:04:05"))
	}
	return fmt.Sprintf("vault %s: %v; %s", state, e.Err, e.Cure)
}

// Unwrap returns the cause.
func (e *StateError) Unwrap() error { return e.Err }

const cureCorrupt = "stop using this file, keep a copy of it, and restore a backup: tokendesk vault restore"

func named(state State, cure, format string, args ...any) *StateError {
	return &StateError{State: state, Err: fmt.Errorf(format, args...), Cure: cure}
}

func corrupt(format string, args ...any) *StateError {
	return &StateError{State: StateCorrupt, Err: fmt.Errorf(format, args...), Cure: cureCorrupt}
}

func newer(what string, have, known uint32) *StateError {
	return &StateError{State: StateNewerFormat,
		Err:  fmt.Errorf("%s has format %d, this version knows up to %d", what, have, known),
		Cure: "install the version that wrote it, or a later one"}
}
