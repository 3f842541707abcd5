package main

import (
	"context"
	"errors"
	"fmt"

	"tokendesk/cmd/internal/crash/tracer"
)

// halfRotated: the daemon was killed in the middle of a rotation, between the new file and the TPM's counter, and started
// again: what opens the vault has to bring up both the epoch and the generation.
func halfRotated(ctx context.Context, s *stage) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	v, err := vaultOf(ctx, s.World)
	if err != nil {
		return err
	}
	if err := s.keepOld(v); err != nil {
		return err
	}
	if err := s.tracer.Arm(tracer.Plan{Kinds: s.kinds(), On: kindIncrement, Kill: 1}); err != nil {
		return err
	}
	rotateErr := rotate(ctx, s)
	r, err := s.tracer.Disarm()
	if err != nil {
		return err
	}
	if !r.Killed {
		return errors.Join(errors.New("a rotation does not raise the TPM's counter"), rotateErr)
	}
	if _, err := s.AwaitDaemonEnd(); err != nil {
		return err
	}
	return s.StartDaemon()
}

func unlock(ctx context.Context, s *stage) error { return s.Unlock(ctx, s.pin) }

func rotate(ctx context.Context, s *stage) error {
	_, err := tell(ctx, s.World, "rotate", nil)
	return err
}

// asBefore: the vault is open, and its token works.
func asBefore(ctx context.Context, s *stage, _ bool) error {
	if err := s.AwaitKeys(ctx, s.key); err != nil {
		return err
	}
	return s.works(ctx, s.user)
}

// anotherPIN: a PIN that was never used is to be the next one.
func anotherPIN(_ context.Context, s *stage) error {
	s.next = fmt.Sprintf("pin-%07d", s.tries)
	return nil
}

// otherMode: a vault without a PIN is to get one, and one with a PIN is to lose it.
func otherMode(ctx context.Context, s *stage) error {
	if s.pin == "" {
		return anotherPIN(ctx, s)
	}
	s.next = ""
	return nil
}

func changePIN(ctx context.Context, s *stage) error {
	_, err := tell(ctx, s.World, "change-pin", nil, s.pin, s.next)
	return err
}

// onePINOpens: exactly one of the two PINs opens the vault, and once it was reported, the new one.
func onePINOpens(ctx context.Context, s *stage, acted bool) error {
	var opening []string
	for _, pin := range []string{s.pin, s.next} {
		if err := locked(ctx, s.World); err != nil {
			return err
		}
		v, err := unlocked(ctx, s.World, pin)
		if err != nil {
			return err
		}
		switch v.State {
		case stateOpen:
			opening = append(opening, pin)
		case stateLocked, "wrong-pin":
		default:
			return fmt.Errorf("with PIN %q the vault is %s: %s", pin, v.State, v.Problem)
		}
	}
	if len(opening) != 1 || acted && opening[0] != s.next {
		return fmt.Errorf("of the PINs %q and %q, %q open it", s.pin, s.next, opening)
	}
	if err := locked(ctx, s.World); err != nil {
		return err
	}
	if err := (board{s.TPM}).forgive(); err != nil {
		return &harnessError{err}
	}
	s.pin = opening[0]
	if err := s.open(ctx); err != nil {
		return err
	}
	return asBefore(ctx, s, acted)
}
