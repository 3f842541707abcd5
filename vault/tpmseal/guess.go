package tpmseal

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"

	"tokendesk/vault"
)

// spare is how many wrong PINs short of the TPM's limit this program stops: at the limit the whole TPM locks, and with it
// the disk encryption of the same board.
const spare = 2

// longest is the longest wait that is told; a TPM may be set up for longer.
const longest = 100 * 365 * 24 * time.Hour

// attempts is what a TPM says of its dictionary attack protection (TPM 2.0 Library, Part 1, 19.8).
type attempts struct {
	failed, limit int
	interval      time.Duration // after which one failure is forgotten, while the TPM has power
}

func (t *TPM) attempts() (attempts, error) {
	// LOCKOUT_RECOVERY, the fourth, is about the lockout hierarchy's own password, which is never used here.
	p, err := t.properties(tpm2.TPMPTLockoutCounter, 3)
	if err != nil {
		return attempts{}, err
	}
	return attempts{int(p[0]), int(p[1]), time.Duration(p[2]) * time.Second}, nil
}

// left is how many wrong PINs may still be given.
func (a attempts) left() int { return max(0, a.limit-spare-a.failed) }

// until is when the next PIN may be tried, at the latest; zero if one may be now, or none ever.
func (a attempts) until(now time.Time) time.Time {
	if a.left() > 0 || a.limit <= spare {
		return time.Time{}
	}
	forget := a.failed - (a.limit - spare) + 1
	return now.Add(time.Duration(min(float64(forget)*float64(a.interval), float64(longest))))
}

// refusal is the error of a PIN that is not tried, or nil.
func (a attempts) refusal() error {
	if a.left() > 0 {
		return nil
	}
	if a.limit <= spare {
		return &vault.StateError{State: vault.StateLockout,
			Err:  fmt.Errorf("the TPM locks after %d wrong PINs, which leaves none to try here", a.limit),
			Cure: fmt.Sprintf("let the TPM bear %d or more (tpm2_dictionarylockout --setup-parameters --max-tries)", spare+1)}
	}
	return a.lockout(fmt.Errorf("the TPM has counted %d wrong PINs, of this program or others, and locks at %d", a.failed, a.limit))
}

// lockout names a TPM that takes no PIN now.
func (a attempts) lockout(err error) error {
	until := a.until(time.Now())
	if until.IsZero() { // the TPM is locked by more than wrong PINs
		until = time.Now().Add(a.interval)
	}
	return &vault.StateError{State: vault.StateLockout, Until: until, Err: err,
		Cure: fmt.Sprintf("leave the board switched on and try again after %s", until.Format(time.RFC3339))}
}

// wrongPIN is the error of a PIN that was tried.
func (a attempts) wrongPIN() error {
	e := &vault.StateError{State: vault.StateWrongPIN, Err: errors.New("the TPM refuses the PIN"), Left: a.left(), Until: a.until(time.Now())}
	e.Cure = fmt.Sprintf("give the right PIN; %d more may be tried now", e.Left)
	if e.Left == 0 {
		e.Cure = fmt.Sprintf("leave the board switched on and give the right PIN after %s", e.Until.Format(time.RFC3339))
	}
	return e
}

// Guesses implements vault.Guesses.
func (t *TPM) Guesses() (left int, until time.Time, err error) {
	err = t.run("read how many PINs the TPM has refused", func() error {
		a, err := t.attempts()
		left, until = a.left(), a.until(time.Now())
		return err
	})
	return left, until, err
}
