package vault

import (
	"errors"
	"fmt"
)

// ErrNotFound is what a lookup wraps when there is no such record.
var ErrNotFound = errors.New("not found")

// ErrClosed is what every use of a closed vault returns.
var ErrClosed = errors.New("the vault is closed")

// State names why a vault cannot be opened or used.
type State string

// States.
const (
	StateAbsent          State = "absent"           // there is no file
	StateInUse           State = "in-use"           // another process holds the file
	StateWrongPassphrase State = "wrong-passphrase" // the passphrase does not open it
	StateTPMAbsent       State = "tpm-absent"       // no TPM answers
	StateTPMChanged      State = "tpm-changed"      // this is not the TPM that sealed it, or it was cleared
	StatePermission      State = "permission"       // file or TPM may not be used, or too many may
	StateCorrupt         State = "corrupt"          // damaged or tampered with
	StateNewerFormat     State = "newer-format"     // written by a later version
	StateWrongSealer     State = "wrong-sealer"     // sealed by another kind of sealer, or at another level
)

// StateError says in which state a vault or its sealer is, why, and what helps.
type StateError struct {
	State State
	Err   error  // the cause
	Cure  string // what to do about it
}

func (e *StateError) Error() string { return fmt.Sprintf("vault %s: %v; %s", e.State, e.Err, e.Cure) }

// Unwrap returns the cause.
func (e *StateError) Unwrap() error { return e.Err }

const cureCorrupt = "stop using this file, keep a copy of it, and put back a backup"

func corrupt(format string, args ...any) *StateError {
	return &StateError{StateCorrupt, fmt.Errorf(format, args...), cureCorrupt}
}

func newer(what string, have, known uint32) *StateError {
	return &StateError{StateNewerFormat,
		fmt.Errorf("%s has format %d, this version knows up to %d", what, have, known),
		"install the version that wrote it, or a later one"}
}
