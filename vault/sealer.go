package vault

import (
	"errors"
	"time"

	"tokendesk/vault/secret"
)

// Sealer protects the one secret that everything in a vault hangs from. There are two: tpmseal and passseal.
// Implementations are safe for concurrent use and name their failures with a StateError.
type Sealer interface {
	// Kind is the word that the header keeps ("tpm", "passphrase"); another kind does not open the vault.
	Kind() string
	// Level is what protection this sealer gives here and now.
	Level() Level
	// Key stretches a PIN or passphrase by the costs and salt that a blob names, or by fresh ones if blob is nil. No PIN
	// gives no key, where the sealer works without one. The key carries its salt, so that Seal needs nothing else.
	Key(pin secret.Secret, blob []byte) (secret.Secret, error)
	// Seal returns what only Unseal with the same key opens again, and only while at holds.
	Seal(plain, key secret.Secret, at Mark) (blob []byte, err error)
	// Unseal opens a blob. Blobs come from the file, so they may be anything. One whose Mark is passed is ErrStale, and
	// costs no guess.
	Unseal(blob []byte, key secret.Secret) (secret.Secret, error)
	// Close gives back what the sealer holds.
	Close() error
}

// Mark is a value of a counter outside the file. The zero Mark always holds.
type Mark struct {
	Counter []byte // names the counter: what Anchor.NewCounter has returned
	Value   uint64
}

// ErrStale means that a blob was sealed for a value of its counter that has passed: nothing opens it any more.
var ErrStale = errors.New("it was sealed for a time that has passed")

// Anchor is a Sealer that keeps counters outside the file. They only go up, by one, survive everything but a cleared or
// replaced TPM, and are written to memory that wears: some hundred thousand times. Names come from the file, so they may be
// anything. A counter that is not there, or is not the one that was made, is StateCounterLost.
type Anchor interface {
	Sealer
	// NewCounter makes a counter that only auth (32 characters without a zero byte) increments.
	NewCounter(auth secret.Secret) (name []byte, value uint64, err error)
	// Count reads a counter, over a session that proves the answer to come from the TPM.
	Count(name []byte, auth secret.Secret) (uint64, error)
	// Increment adds one. On an error it may have happened all the same: Count tells.
	Increment(name []byte, auth secret.Secret) error
	// DropCounter removes a counter that is needed no longer.
	DropCounter(name []byte) error
}

// Guesses is what a Sealer offers that counts wrong PINs.
type Guesses interface {
	// Guesses says how many wrong PINs may still be given, and if none, when the next may. The count is that of the whole
	// chip, which other programs share, and it is kept two short of what the chip would bear.
	Guesses() (left int, until time.Time, err error)
}
