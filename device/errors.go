package device

import (
	"errors"
	"fmt"
	"strings"
)

// Conditions that callers tell apart with errors.Is. The text around them says what to do.
var (
	ErrGone       = errors.New("the device was unplugged")
	ErrBusy       = errors.New("the device is held by another program")
	ErrPermission = errors.New("no permission to open the device")
	ErrTimeout    = errors.New("the device did not answer in time")
	ErrCorrupt    = errors.New("the device sent a damaged answer")
	ErrNoTouch    = errors.New("no touch came in time")
	// ErrNotACode is what came out of the device when it was no one-time code: perhaps the other slot was touched.
	ErrNotACode = errors.New("what the device typed is not a one-time code of this slot")
	ErrMute     = errors.New("the card does not answer")
	// ErrLocked means that an application wants its password or PIN first.
	ErrLocked = errors.New("it is protected by a password or PIN that the desk does not know")
	// ErrFull means that no more credentials fit in.
	ErrFull = errors.New("there is no room left for another credential")
	// ErrNoApplication means that a device, or the face by which it is reached, has no such application.
	ErrNoApplication = errors.New("the device has no such application")
	// ErrManagementKey means that a PIV application has another management key than the one it was shown.
	ErrManagementKey = errors.New("the card has another management key")
	// ErrAttestation means that a key is not proven to have been generated on a genuine card.
	ErrAttestation = errors.New("the attestation is not one of a genuine card")
)

// FirmwareError says that a device is too old for what was asked.
type FirmwareError struct {
	Feature string
	Need    Version
	Have    Version
}

func (e *FirmwareError) Error() string {
	return fmt.Sprintf("%s needs firmware %s or newer; this device has %s", e.Feature, e.Need, e.Have)
}

// Unlimited is how many tries are left where they are not counted.
const Unlimited = -1

// PINError says that a device has refused its PIN, PUK or password.
type PINError struct {
	Name    string // "PIN" or "PUK", "admin PIN", "password"
	Retries int    // tries left; 0: it is blocked
}

func (e *PINError) Error() string {
	if e.Retries == Unlimited {
		return fmt.Sprintf("the %s is wrong", e.Name)
	}
	if e.Retries == 0 {
		return fmt.Sprintf("the %s is blocked", e.Name)
	}
	return fmt.Sprintf("the %s is wrong; tries left: %d", e.Name, e.Retries)
}

// RejectedError says that a device refused a write. Devices give no reason, so the possible ones are listed.
type RejectedError struct {
	Op      string
	Reasons []string
}

func (e *RejectedError) Error() string {
	return fmt.Sprintf("the device refused to %s; possible reasons: %s", e.Op, strings.Join(e.Reasons, "; "))
}

// CureError adds to an error what to do about it.
type CureError struct {
	Err  error
	Cure string // a clause: "join the group tokendesk and log in again"
}

func (e *CureError) Error() string { return e.Err.Error() + ": " + e.Cure }

func (e *CureError) Unwrap() error { return e.Err }

// Cure divides the text of an error into what is wrong and what to do about it; cure is empty if that is not told.
func Cure(err error) (problem, cure string) {
	var known *CureError
	if !errors.As(err, &known) {
		return err.Error(), ""
	}
	return strings.TrimSuffix(err.Error(), ": "+known.Cure), known.Cure
}
