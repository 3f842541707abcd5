package device

import (
	"context"
	"fmt"

	"tokendesk/vault/secret"
)

// State is what a device tells about one of its applications.
type State struct {
	Serial     Serial
	Firmware   Version
	Configured bool // the application holds something; what it holds cannot be read
	Stale      bool // Configured is how it was when the device was inserted, and may not be so any more
}

// HOTPConfig is what gets programmed. Digits is 6 or 8 (RFC 4226 section 5.3 allows 7, YubiKeys do not).
type HOTPConfig struct {
	Seed            secret.Secret // 1 to 20 bytes
	Digits          int
	StartCounter    uint64 // the first moving factor; which ones are possible is the application's (Application.Check)
	TokenIdentifier bool   // type "ubhe" and the 8-digit serial before each code
	Enter           bool   // press Enter after each code; nothing where codes are not typed
	// NewAccessCode is what is to protect a token with a code of its own (OwnCode) from now on: 6 bytes, or empty to leave it
	// unprotected. Other tokens take none.
	NewAccessCode secret.Secret
	// CurrentAccessCode is what protects the token now: 6 bytes, or the shared password, or empty.
	CurrentAccessCode secret.Secret
}

// Limits of the YubiKey OTP application; the size of seeds is that of all.
const (
	MaxStartCounter  = 0xFFFF * 16 // the moving factor is stored as a u16 of steps of 16
	StartCounterStep = 16
	MaxSeedSize      = 20
	AccessCodeSize   = 6
)

// Validate checks what holds for every application; the rest is Application.Check's, and its driver's.
func (c HOTPConfig) Validate() error {
	switch {
	case c.Seed.Len() == 0 || c.Seed.Len() > MaxSeedSize:
		return fmt.Errorf("a seed has 1 to %d bytes, this one has %d", MaxSeedSize, c.Seed.Len())
	case c.Digits != 6 && c.Digits != 8:
		return fmt.Errorf("codes have 6 or 8 digits, not %d", c.Digits)
	}
	return nil
}

// Emission is how codes come out of a token.
type Emission uint8

// Emissions.
const (
	// ShortTouch and LongTouch: a touch, or one of three seconds, has it type a code.
	ShortTouch Emission = 1 + iota
	LongTouch
	// Calculated: the desk asks for a code, and nobody touches anything.
	Calculated
	// Elsewhere: the token types its codes where the desk does not see them, and somebody has to type them in.
	Elsewhere
)

// Typed tells whether somebody has to touch the device for a code.
func (e Emission) Typed() bool { return e == ShortTouch || e == LongTouch }

// HOTPToken is one HOTP authenticator on an opened device: the seam of provisioning.
type HOTPToken interface {
	// Describe asks the device who it is and what the application holds. It works without a password where the device lets it;
	// otherwise it fails with ErrLocked.
	Describe(ctx context.Context) (State, error)
	// Unlock shows the device its shared password or PIN, and changes nothing: a wrong one fails with a *PINError and may cost a
	// try, an empty one with ErrLocked if one is wanted. Tokens with codes of their own need none, and do
	// nothing. Program and Delete show it by themselves.
	Unlock(ctx context.Context, password secret.Secret) error
	// Program writes a seed, in place of any other, and returns when the device has confirmed the write.
	Program(ctx context.Context, c HOTPConfig) error
	// Delete erases the token; current is its access code, or the shared password, or empty. One that is not there is no error.
	Delete(ctx context.Context, current secret.Secret) error
	// Emission says how codes come out of it.
	Emission() Emission
	// Code waits until the device gives one code, by a touch or by calculating it, and returns its digits. Either way the
	// device's counter has moved, also if its answer was lost. ErrNotACode means that something else came out; its text is never
	// returned. Where codes come out Elsewhere it fails.
	Code(ctx context.Context) (string, error)
}
