package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"tokendesk/cmd/internal/api"
)

// oldCopy is the vault's file as somebody saved it before the operation.
type oldCopy struct {
	file  []byte
	epoch uint64
	pin   string // of its time
	never bool   // it must be refused from the operation's beginning
}

// keepOld saves the file. The vault is open, and nothing goes on.
func (s *stage) keepOld(v api.Vault) (err error) {
	s.old = &oldCopy{epoch: v.Epoch, pin: s.pin}
	s.old.file, err = os.ReadFile(vaultFile(s.World))
	return err
}

// swap puts a file in the vault's place, which nobody has open, and returns what brings the one of now back.
func (s *stage) swap(file []byte) (back func() error, err error) {
	path := vaultFile(s.World)
	live := path + ".live"
	if err := os.Rename(path, live); err != nil {
		return nil, err
	}
	return func() error { return os.Rename(live, path) }, os.WriteFile(path, file, 0o600)
}

// refusedNow: the old copy is not opened any more, once the vault has gone on to a later epoch.
func (s *stage) refusedNow(ctx context.Context) (tried bool, err error) {
	v, err := vaultOf(ctx, s.World)
	if err != nil || s.old == nil || v.State == stateOpen && v.Epoch <= s.old.epoch {
		return false, err
	}
	if err := locked(ctx, s.World); err != nil {
		return false, err
	}
	back, err := s.swap(s.old.file)
	if err != nil {
		return false, err
	}
	got, err := unlocked(ctx, s.World, s.old.pin)
	if err == nil && got.State != stateRollback {
		err = fmt.Errorf("a copy of epoch %d is %s, and not refused, at epoch %d: %s", s.old.epoch, got.State, v.Epoch, got.Problem)
	}
	if err = errors.Join(err, back()); err != nil {
		return true, err
	}
	return true, s.open(ctx)
}

// putBack starts the desk, which was killed, on the old copy, as somebody would who has the disk at that moment. It is
// refused, or nothing of the operation has reached anybody: Check has to find it as it was.
func (s *stage) putBack(ctx context.Context, check func(acted bool) error, reported bool) (refused bool, err error) {
	back, err := s.swap(s.old.file)
	if err != nil {
		return false, &harnessError{err}
	}
	if err := s.startAgain(); err != nil {
		return false, err
	}
	v, err := unlocked(ctx, s.World, s.old.pin)
	switch {
	case err != nil:
		return false, err
	case v.State == stateRollback:
		s.KillDaemon()
		if err := back(); err != nil {
			return true, &harnessError{err}
		}
		return true, nil
	case v.State != stateOpen:
		return false, fmt.Errorf("a copy of epoch %d is neither open nor refused as one: it is %s: %s", s.old.epoch, v.State, v.Problem)
	case s.old.never || reported:
		return false, fmt.Errorf("a copy of epoch %d from before the operation opens", s.old.epoch)
	}
	if err := check(false); err != nil {
		return false, fmt.Errorf("a copy of epoch %d from before the operation opens, and something of that is outside: %w", s.old.epoch, err)
	}
	return false, errors.Join(os.Remove(vaultFile(s.World)+".live"), s.checkVault(ctx))
}
