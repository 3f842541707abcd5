package main

import (
	"context"
	"errors"
	"fmt"

	"tokendesk/cmd/internal/api"
)

// enrolledBefore: the key is alice's.
func enrolledBefore(ctx context.Context, s *stage) error {
	if s.key != 0 {
		return nil
	}
	if err := freshKey(ctx, s); err != nil {
		return err
	}
	return s.enroll(ctx, false)
}

func reseed(ctx context.Context, s *stage) error {
	_, err := s.work(ctx, s.path("/reseed"), struct{}{})
	return err
}

// reseeded: the token is still alice's, and its key types codes of the seed in the vault, whichever that is.
func reseeded(ctx context.Context, s *stage, acted bool) error {
	t, found, err := s.settle(ctx)
	switch {
	case err != nil:
		return err
	case !found || acted && t.Unfinished != "":
		return fmt.Errorf("a reseed that was reported is not there: %+v, found %v", t, found)
	}
	return s.works(ctx, s.user)
}

func wipe(ctx context.Context, s *stage) error {
	_, err := s.work(ctx, s.path("/wipe"), api.Reason{Reason: "a test"})
	return err
}

// wiped: the token works as before, or it is gone from vault and key, if need be after it was resolved. Then the key can be
// enrolled anew.
func wiped(ctx context.Context, s *stage, acted bool) error {
	if err := s.AwaitKeys(ctx, s.key); err != nil {
		return err
	}
	t, found, err := s.look(ctx)
	switch {
	case err != nil:
		return err
	case found && acted:
		return fmt.Errorf("a wipe that was reported is not there: %+v", t)
	case found && t.Unfinished == "":
		return s.works(ctx, s.user)
	case found:
		if _, err := s.work(ctx, s.path("/resolve"), api.Resolve{}); err != nil {
			return fmt.Errorf("cannot settle %q: %w", t.Unfinished, err)
		}
	}
	if empty, err := s.emptySlot(ctx); err != nil || !empty {
		return errors.Join(errors.New("the key still holds a seed, and its access code is lost"), err)
	}
	return s.again(ctx, false)
}

// again enrolls a key whose token is gone.
func (s *stage) again(ctx context.Context, overwrite bool) error {
	e := s.enrollment()
	e.Overwrite = overwrite
	if _, err := s.work(ctx, "/v1/enroll", e); err != nil {
		return fmt.Errorf("cannot enroll it again: %w", err)
	}
	return s.works(ctx, s.user)
}

func erase(ctx context.Context, s *stage) error { return s.order(ctx, "delete", "") }

// erased: the token works as before, or it is gone here and in the directory. The key still holds its seed then, and can be
// enrolled anew all the same.
func erased(ctx context.Context, s *stage, acted bool) error {
	if err := s.drained(ctx); err != nil {
		return err
	}
	t, found, err := s.look(ctx)
	switch {
	case err != nil:
		return err
	case found && acted:
		return fmt.Errorf("a token whose deletion was reported is there: %+v", t)
	}
	if err := s.AwaitKeys(ctx, s.key); err != nil {
		return err
	}
	if !found {
		t.Central = s.token().Central()
		owners, err := s.centralOwners(t)
		if err != nil || len(owners) > 0 {
			return fmt.Errorf("the token is deleted, and the directory still gives it to %q: %w", owners, err)
		}
		if err := s.again(ctx, true); err != nil {
			return err
		}
	} else if err := s.works(ctx, s.user); err != nil {
		return err
	}
	return s.drained(ctx)
}
