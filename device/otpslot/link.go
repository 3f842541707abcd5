package otpslot

import (
	"context"

	"tokendesk/device"
)

// link is how the OTP application of a key is reached.
type link interface {
	// status reads the status, and makes the application ready for the next command.
	status(ctx context.Context) (Status, error)
	// write sends a command that changes the application, and returns the status right before it and after it.
	write(ctx context.Context, command byte, payload []byte) (before, after Status, err error)
	// ask sends a command without payload and reads an answer of n bytes. It fails with ErrSerialHidden if the command was
	// taken, and there is nothing to say.
	ask(ctx context.Context, command byte, n int) ([]byte, error)
	// took tells whether a command that was sent in between has changed the application.
	took(before, after Status) bool
	// tells reports whether the status of a firmware says what the slots hold, also when they were written just now.
	tells(v device.Version) bool
	// reclaims says that after another interface of the key was used, commands can go unanswered for a while.
	reclaims() bool
}

// moved tells whether the sequence of a status says that a write was accepted.
func moved(before, after Status) bool {
	emptied := after.Sequence == 0 && !after.Configured(1) && !after.Configured(2)
	return after.Sequence == before.Sequence+1 || emptied && before.Sequence != 0
}
