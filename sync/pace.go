package syncer

import (
	"fmt"
	"time"

	"tokendesk/vault"
)

// SlowDownError means that too much has failed in a row: a code has few digits, and who may try without end finds one (RFC 4226
// section 7.3).
type SlowDownError struct {
	Until    time.Time // when the next try is taken
	Failures int       // in a row
}

func (e *SlowDownError) Error() string {
	return fmt.Sprintf("%d tries in a row have failed: wait until %s, then try again", e.Failures, e.Until.Local().Format("15:04:05"))
}

// Pace says how long after failures in a row the next try is taken. What it counts is in the vault, so that it is the same after a
// restart.
type Pace struct {
	Free  int           // so many failures cost nothing
	First time.Duration // after the next one; it doubles with each further one
	Most  time.Duration
	// Forget is how long it takes to forget one failure; 0: only a success forgets them.
	Forget time.Duration
}

var (
	// TokenPace is for codes of one token, whoever tries them.
	TokenPace = Pace{Free: 3, First: 5 * time.Second, Most: 15 * time.Minute}
	// OfficerPace is for an officer's searches over all tokens. These use no code up, so that a success proves nothing the second
	// time, and only time forgets: twelve a minute can go on for ever, which is a box of spares, and no way to guess.
	OfficerPace = Pace{Free: 10, First: 2 * time.Second, Most: 5 * time.Minute, Forget: 5 * time.Second}
)

// IdentifyPaceKey is what an officer's searches that found nothing certain are counted under. Those of a token are counted under
// vault.TokenAttempts.
func IdentifyPaceKey(uid int64) string { return fmt.Sprintf("identify/%d", uid) }

// delay is how long to wait after so many failures.
func (p Pace) delay(failures int) time.Duration {
	if failures <= p.Free {
		return 0
	}
	d := p.First
	for i := p.Free + 1; i < failures && d < p.Most; i++ {
		d *= 2
	}
	return min(d, p.Most)
}

// Check returns a SlowDownError if the next try is not to be taken yet. A clock that went back ends the wait: who sets the desk's clock
// needs no guesses, and nobody is to wait for a time that a wrong clock has named.
func (p Pace) Check(tx *vault.Tx, key string, now time.Time) error {
	a, err := tx.Attempts(key)
	if err != nil {
		return err
	}
	if until := a.Last.Add(p.delay(a.Failures)); a.Failures > 0 && !now.Before(a.Last) && now.Before(until) {
		return &SlowDownError{Until: until, Failures: a.Failures}
	}
	return nil
}

// Fail counts a failure.
func (p Pace) Fail(tx *vault.Tx, key string, now time.Time) error {
	a, err := tx.Attempts(key)
	if err != nil {
		return err
	}
	if p.Forget > 0 && now.After(a.Last) {
		a.Failures = int(max(0, time.Duration(a.Failures)-now.Sub(a.Last)/p.Forget))
	}
	return tx.PutAttempts(key, vault.Attempts{Failures: a.Failures + 1, Last: now})
}

// Succeed forgets the failures.
func (p Pace) Succeed(tx *vault.Tx, key string) error { return tx.PutAttempts(key, vault.Attempts{}) }
