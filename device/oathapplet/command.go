package oathapplet

import (
	"context"
	"fmt"

	"tokendesk/device"
	"tokendesk/device/apdu"
)

// Instructions.
const (
	insPut       = 0x01
	insDelete    = 0x02
	insRename    = 0x05
	insList      = 0xA1
	insCalculate = 0xA2
	insValidate  = 0xA3
	insVerifyPIN = 0xB2 // this one and the next are the Nitrokey 3's
	insUpdate    = 0xB7
)

const truncated = 1 // P2 of CALCULATE

// do sends a command that is no secret. The error says what could not be done.
func (s *Session) do(ctx context.Context, what string, ins, p2 byte, data []byte) ([]byte, error) {
	answer, err := apdu.Send(ctx, s.card, apdu.Command{Ins: ins, P2: p2}, data)
	return answer, failed(what, err)
}

// doSecretly sends a command whose data is a secret of size bytes, which fill appends to what it is given.
func (s *Session) doSecretly(ctx context.Context, what string, ins byte, size int, fill func(b []byte) []byte) error {
	_, err := apdu.SendSecret(ctx, s.card, apdu.Command{Ins: ins}, size, fill)
	return failed(what, err)
}

func failed(what string, err error) error {
	if err != nil {
		return fmt.Errorf("cannot %s: %w", what, err)
	}
	return nil
}

// refused gives a refusal by 6982 its name. After commands that wait for a touch (touch) it means that none came, unless the
// application still wants its password.
func (s *Session) refused(err error, touch bool) error {
	switch {
	case !apdu.Is(err, apdu.Denied):
		return err
	case touch && !s.locked:
		return &device.CureError{Err: fmt.Errorf("%w: %w", device.ErrNoTouch, err), Cure: "touch the key when it blinks, and try again"}
	}
	return fmt.Errorf("%w: %w", device.ErrLocked, err)
}
