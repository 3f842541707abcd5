// Package pcsc reaches smart cards through PC/SC: the daemon pcscd, by way of ebfe/scard.
//
// Which cards there are is told by pcscd's events, those of its readers included; nothing is polled. Every failure of
// pcscd comes as one number for many causes; they are told apart here, by what pcscd, /proc and sysfs show, and each is
// named with its cure. Cards are opened exclusively and for protocol T=1, so that no other program comes in between.
//
// It moves APDUs and knows nothing of applications: those are in packages management and pivcard.
package pcsc

import (
	"context"
	"time"

	"tokendesk/device"
)

// Bus is the smart cards of this machine's pcscd. The zero value is ready.
type Bus struct {
	// Emulated are the names of readers whose cards are not hardware tokens (rule D6), or what their names begin with.
	Emulated []string
}

var _ device.CardBus = Bus{}

// Name implements device.CardBus.
func (Bus) Name() string { return "pcsc" }

// Times that nothing takes longer than, unless it has stopped answering.
const (
	connectTime = 2 * time.Second // another program's transaction is waited for; who needs the card for long asks again
	turnTime    = time.Second     // that somebody else of this process is connecting, before nobody waits for that any more
	placeTime   = time.Second
	answerTime  = 20 * time.Second // a touch has 15
	// Keys of 4096 bits take a minute, and can take two.
	generateTime = 3 * time.Minute
	goneTime     = 1500 * time.Millisecond // pcscd looks every 0.4 s whether a card is there (PCSCLITE_STATUS_POLL_RATE)
)

// Watch implements device.CardBus. Only one Watch runs in a process at a time, a second waits for the first to end: the
// library beneath keeps the names of watched readers for one only.
func (b Bus) Watch(ctx context.Context, fn func(device.CardEvent)) error {
	select {
	case watching <- struct{}{}:
		defer func() { <-watching }()
	case <-ctx.Done():
		return ctx.Err()
	}
	w, err := newWatch(b, fn)
	if err != nil {
		return err
	}
	defer w.close()
	return w.run(ctx)
}

var watching = make(chan struct{}, 1)
