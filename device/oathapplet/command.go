package oathapplet

import (
	"context"
	"errors"
	"fmt"

	"tokendesk/device"
	"tokendesk/vault/secret"
)

// Instructions.
const (
	insPut       = 0x01
	insDelete    = 0x02
	insRename    = 0x05
	insList      = 0xA1
	insCalculate = 0xA2
	insValidate  = 0xA3
	insSelect    = 0xA4
	insVerifyPIN = 0xB2 // this one and the next are the Nitrokey 3's
	insUpdate    = 0xB7
)

const truncated = 1 // P2 of CALCULATE

// status is a status word other than success.
type status uint16

// Status words.
const (
	statusOK       = 0x9000
	statusWrongPIN = 0x6300 // Nitrokey 3
	statusDenied   = 0x6982
	statusBlocked  = 0x6983 // Nitrokey 3: the name is taken
	statusNothing  = 0x6984 // there is none of that name
	statusExists   = 0x6985 // CanoKey: the name is taken
	statusSyntax   = 0x6A80 // to VALIDATE: a wrong response
	statusNotFound = 0x6A82
	statusFull     = 0x6A84
	statusP1P2     = 0x6B00
	statusCommand  = 0x6D00
)

var statusText = map[status]string{
	statusWrongPIN: "the PIN is wrong",
	statusDenied:   "not allowed without its password, or a touch",
	statusBlocked:  "the name is taken, or it is blocked",
	statusNothing:  "nothing of that name",
	statusExists:   "not in this state",
	statusSyntax:   "wrong data, or not supported",
	statusNotFound: "nothing of that name",
	statusFull:     "no room",
	statusCommand:  "it does not know the command",
	0x6500:         "it cannot store, or the counter is at its end",
	0x6581:         "it cannot store",
	0x6F00:         "it gave up, perhaps for lack of room",
}

func (s status) Error() string {
	text := statusText[s]
	if text == "" {
		text = "for a reason of its own"
	}
	return fmt.Sprintf("the key refuses: %s (status %04x)", text, uint16(s))
}

func isStatus(err error, codes ...status) bool {
	s, ok := errors.AsType[status](err)
	for _, code := range codes {
		if ok && s == code {
			return true
		}
	}
	return false
}

// header is that of a command APDU with up to 255 bytes of data.
func header(ins, p2 byte, size int) []byte { return []byte{0, ins, 0, p2, byte(size)} }

// do sends a command that is no secret. The error says what could not be done.
func (s *Session) do(ctx context.Context, what string, ins, p2 byte, data []byte) ([]byte, error) {
	return s.send(ctx, what, append(header(ins, p2, len(data)), data...))
}

// doSecretly sends a command whose data is a secret of size bytes, which fill appends to what it is given.
func (s *Session) doSecretly(ctx context.Context, what string, ins byte, size int, fill func(b []byte) []byte) error {
	head := header(ins, 0, size)
	apdu, err := secret.Make(len(head)+size, func(b []byte) error {
		if n := len(fill(append(b[:0], head...))); n != len(b) {
			return fmt.Errorf("cannot %s: a command of %d bytes, not %d", what, n, len(b))
		}
		return nil
	})
	if err != nil {
		return err
	}
	defer apdu.Wipe()
	_, err = s.send(ctx, what, apdu.Reveal())
	return err
}

func (s *Session) send(ctx context.Context, what string, apdu []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	answer, code, err := s.card.Transmit(apdu)
	if err == nil && code != statusOK {
		err = status(code)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot %s: %w", what, err)
	}
	return answer, nil
}

// refused gives a refusal by 6982 its name. After commands that wait for a touch (touch) it means that none came, unless the
// application still wants its password.
func (s *Session) refused(err error, touch bool) error {
	switch {
	case !isStatus(err, statusDenied):
		return err
	case touch && !s.locked:
		return &device.CureError{Err: fmt.Errorf("%w: %w", device.ErrNoTouch, err), Cure: "touch the key when it blinks, and try again"}
	}
	return fmt.Errorf("%w: %w", device.ErrLocked, err)
}
