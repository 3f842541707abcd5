package main

import (
	"context"
	"errors"
	"fmt"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
)

// reissueLater cuts the owner off without the device, which then turns up.
func reissueLater(ctx context.Context, s *stage) error {
	if _, err := s.work(ctx, s.path("/reissue"), api.Reissue{User: s.user, WithoutDevice: true}); err != nil {
		return err
	}
	_, err := s.work(ctx, s.path("/resolve"), api.Resolve{})
	return err
}

// reissuedLater: the token is the old owner's with the old seed, or the new one's with the new seed. In between, which a crash may
// leave for as long as the device is away, nobody has it.
func reissuedLater(ctx context.Context, s *stage, acted bool) error {
	t, found, err := s.look(ctx)
	if err != nil {
		return err
	}
	if found && t.Unfinished != "" && t.Owner != "" {
		return fmt.Errorf("it is unfinished, and %s has it: %+v", t.Owner, t)
	}
	if err := s.untilDevice(ctx, t); err != nil {
		return err
	}
	return reissued(ctx, s, acted)
}

// untilDevice takes a reissue up to where it waits for the device, which then counts as turned up.
func (s *stage) untilDevice(ctx context.Context, t api.Token) error {
	if t.Unfinished == "" {
		return nil
	}
	if err := s.AwaitKeys(ctx, s.key); err != nil {
		return err
	}
	codes, err := s.work(ctx, s.path("/resolve"), api.Resolve{})
	if err == nil && codes > settleIn {
		err = fmt.Errorf("%d touches were needed to settle %q: %q", codes, t.Unfinished, s.said)
	}
	return err
}

// firstSlot is the token that is replaced by the other one of its key.
func (s *stage) firstSlot() string {
	return "/v1/tokens/" + string(device.SlotToken(device.YubiKeyID(s.key), 1))
}

// firstSlotOnly: alice has the key's first slot, and the second one is empty.
func firstSlotOnly(ctx context.Context, s *stage) error {
	if err := freshKey(ctx, s); err != nil {
		return err
	}
	e := s.enrollment()
	e.App = "otp1"
	_, err := s.work(ctx, "/v1/enroll", e)
	return err
}

func replaceLost(ctx context.Context, s *stage) error {
	_, err := s.work(ctx, s.firstSlot()+"/reissue", api.Reissue{With: string(s.token()), Old: "lost", Enter: true})
	return err
}

// replacedLost: the old token works as before, or it is dead, and the new one is its owner's, if need be after it was resolved.
// What is on the key is in the vault.
func replacedLost(ctx context.Context, s *stage, acted bool) error {
	_, found, err := s.settle(ctx)
	if err != nil {
		return err
	}
	var old api.Token
	if err := s.Client.Get(ctx, s.firstSlot(), nil, &old); err != nil {
		return err
	}
	switch dead := old.Status == "compromised"; {
	case dead != found:
		return fmt.Errorf("the lost token is %s, and its replacement found: %v", old.Status, found)
	case !found && acted:
		return errors.New("a replacement that was reported is not there")
	case !found:
		if old.Status != "active" || old.Owner != s.user {
			return fmt.Errorf("nothing had begun, and the token is %+v", old)
		}
		if err := replaceLost(ctx, s); err != nil {
			return fmt.Errorf("cannot replace it again: %w", err)
		}
	}
	return s.works(ctx, s.user)
}
