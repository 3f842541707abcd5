package device

import (
	"context"

	"tokendesk/vault/secret"
)

// Session is a conversation with an opened device, through one of its faces. It is used by one goroutine at a time, and does
// not close what it was opened on.
type Session interface {
	// Identify asks the device who it is, and what it holds as far as this face tells.
	Identify(ctx context.Context) (Identity, error)
	// Token returns an HOTP authenticator of the device; id is one of this device's tokens. It fails with ErrNoApplication if
	// this face, or this model, has none of that name; whether the device really has it may be found out later.
	Token(ctx context.Context, id TokenID) (HOTPToken, error)
}

// Identity is who a device is.
type Identity struct {
	ID       ID // empty if it does not tell
	Serial   Serial
	Firmware Version
	PIV      bool // it has a PIV application
	Holds    []Holding
}

// Holding is what an application holds.
type Holding struct {
	Name string // as in the table, without a colon: "otp2", "oath"
	// Configured says that there is something in it.
	Configured bool
	// Locked says that it tells and does nothing without its password.
	Locked bool
	// Used and Capacity count credentials. Capacity is 0 if that is not known, or the application is one token itself.
	Used, Capacity int
}

// Lister is a Session of a device that holds credentials by name.
type Lister interface {
	Session
	// Credentials names all of them, those of others too. password is shown if one is wanted; it may be empty.
	Credentials(ctx context.Context, password secret.Secret) ([]Credential, error)
}

// Credential is what a device tells of one.
type Credential struct {
	Name      string // as the device has it: "tokendesk:alice"
	Type      string // "HOTP", "TOTP"; empty: one that the desk does not know
	Algorithm string // "SHA-1"
}
