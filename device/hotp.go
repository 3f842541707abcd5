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
}

// HOTPConfig is what gets programmed. Digits is 6 or 8 (RFC 4226 section 5.3 allows 7, YubiKeys do not).
type HOTPConfig struct {
	Seed              secret.Secret // 1 to 20 bytes
	Digits            int
	StartCounter      uint64        // the first moving factor: a multiple of 16, at most MaxStartCounter
	TokenIdentifier   bool          // type "ubhe" and the 8-digit serial before each code
	Enter             bool          // press Enter after each code
	NewAccessCode     secret.Secret // 6 bytes, or empty to leave the slot unprotected
	CurrentAccessCode secret.Secret // 6 bytes if the slot is protected now, else empty
}

// Limits of the YubiKey OTP application.
const (
	MaxStartCounter  = 0xFFFF * 16 // the moving factor is stored as a u16 of steps of 16
	StartCounterStep = 16
	MaxSeedSize      = 20
	AccessCodeSize   = 6
)

// Validate checks the configuration against those limits.
func (c HOTPConfig) Validate() error {
	switch {
	case c.Seed.Len() == 0 || c.Seed.Len() > MaxSeedSize:
		return fmt.Errorf("a seed has 1 to %d bytes, this one has %d", MaxSeedSize, c.Seed.Len())
	case c.Digits != 6 && c.Digits != 8:
		return fmt.Errorf("codes have 6 or 8 digits, not %d", c.Digits)
	case c.StartCounter%StartCounterStep != 0 || c.StartCounter > MaxStartCounter:
		return fmt.Errorf("a start counter is a multiple of %d up to %d, not %d", StartCounterStep, MaxStartCounter, c.StartCounter)
	}
	for _, code := range []secret.Secret{c.NewAccessCode, c.CurrentAccessCode} {
		if n := code.Len(); n != 0 && n != AccessCodeSize {
			return fmt.Errorf("an access code has %d bytes, this one has %d", AccessCodeSize, n)
		}
	}
	return nil
}

// HOTPToken is one HOTP authenticator on an opened device: the seam of provisioning.
type HOTPToken interface {
	// Describe asks the device who it is and what the application holds.
	Describe(ctx context.Context) (State, error)
	// Program writes a seed and returns when the device has confirmed the write.
	Program(ctx context.Context, c HOTPConfig) error
	// Delete erases the application; current is its access code, or empty.
	Delete(ctx context.Context, current secret.Secret) error
	// Code waits until the device gives one code, by a touch or by calculating it, and returns its
	// digits. ErrNotACode means that something else came out; its text is never returned.
	Code(ctx context.Context) (string, error)
}
