package otpslot

import (
	"context"
	"fmt"

	"tokendesk/device"
	"tokendesk/device/apdu"
)

// insCommand is the instruction whose P1 is a slot command. There is another one that reads the status, 03, which is not used:
// SELECT tells the status as well, and 03 takes the password away from an OATH application that somebody has selected in
// between.
const insCommand = 0x01

// Firmware whose status does not follow what is written over a smart card until the key is inserted again: the sequence drops
// to 0, or is that of before (yubikit, yubiotp.py: "programming state does not update").
var (
	needsReinsertion = device.Version{Major: 5}
	followsWrites    = device.Version{Major: 5, Minor: 4, Build: 3}
)

// PrefersCard tells whether the slots of a key with both interfaces are better reached by its smart card: from firmware 5.4.3
// on, as yubikey-manager has it since version 5.8 (ykman/_cli/otp.py, _get_session). The desk goes to the keyboard where there
// is one all the same: it verifies what it has written by codes, which only a Report sees. Older firmware 5 does not tell over
// the card what became of a write, and that of 4.0 to 5.2 has no OTP application there over USB (yubikey-manager,
// tests/device/test_otp.py).
func PrefersCard(v device.Version) bool { return !v.Less(followsWrites) }

// apdus is the link by APDUs. The application is selected before each command, as others on the same card can have been
// used in between.
type apdus struct{ card device.Card }

// OverCard starts a session with the OTP application of an opened card, which the caller closes. It fails with
// device.ErrNoApplication if the card has none, or has it switched off. Codes are typed where the session does not see them.
func OverCard(ctx context.Context, card device.Card) (*Session, error) {
	s := &Session{link: apdus{card}}
	if _, err := s.status(ctx); err != nil {
		return nil, fmt.Errorf("cannot select the OTP application: %w", err)
	}
	return s, nil
}

// tells: in between, a slot is said to hold what it held when the key was inserted.
func (l apdus) tells(v device.Version) bool { return v.Less(needsReinsertion) || PrefersCard(v) }

func (l apdus) took(before, after Status) bool {
	return moved(before, after) || !l.tells(after.Firmware) && after.Sequence == 0 && before.Sequence != 0
}

// reclaims: a card that is not there for a while is the reader's affair.
func (l apdus) reclaims() bool { return false }

func (l apdus) status(ctx context.Context) (Status, error) {
	answer, err := apdu.Select(ctx, l.card, apdu.OTP)
	if apdu.IsUnknown(err) {
		return Status{}, device.ErrNoApplication
	}
	if err != nil {
		return Status{}, err
	}
	return toldStatus(answer)
}

func (l apdus) write(ctx context.Context, command byte, payload []byte) (before, after Status, err error) {
	if before, err = l.status(ctx); err != nil {
		return before, after, err
	}
	answer, err := l.command(ctx, command, payload)
	switch {
	case isFinal(err):
		return before, before, nil // it says so, where a keyboard would be silent
	case err != nil:
		return before, after, err
	case len(answer) == 0: // some keys have no answer to some commands (yubikit, yubiotp.py)
		after, err = l.status(ctx)
		return before, after, err
	}
	after, err = toldStatus(answer)
	return before, after, err
}

func (l apdus) ask(ctx context.Context, command byte, n int) ([]byte, error) {
	if _, err := l.status(ctx); err != nil {
		return nil, err
	}
	answer, err := l.command(ctx, command, nil)
	switch {
	case isFinal(err), err == nil && len(answer) == 0:
		return nil, ErrSerialHidden
	case err != nil:
		return nil, err
	case len(answer) != n:
		return nil, fmt.Errorf("%w: %d bytes, not %d", device.ErrCorrupt, len(answer), n)
	}
	return answer, nil
}

func (l apdus) command(ctx context.Context, command byte, payload []byte) ([]byte, error) {
	return apdu.Send(ctx, l.card, apdu.Command{Ins: insCommand, P1: command}, payload)
}

// toldStatus reads the status that a card tells. What follows it is left alone, as yubikit does.
func toldStatus(answer []byte) (Status, error) {
	if len(answer) < statusSize {
		return Status{}, fmt.Errorf("%w: a status of %d bytes, not %d", device.ErrCorrupt, len(answer), statusSize)
	}
	return parseStatus([statusSize]byte(answer[:statusSize])), nil
}

// isFinal tells whether the application has understood a command that it refuses so.
func isFinal(err error) bool {
	return apdu.Is(err, apdu.Conditions, apdu.Denied, apdu.WrongData, apdu.WrongP1P2, apdu.OtherP1P2)
}
