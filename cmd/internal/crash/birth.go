package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"tokendesk/cmd/internal/api"
)

// nowhere: there is no vault, and nothing of one in the TPM.
func nowhere(ctx context.Context, s *stage) error { return blank(ctx, s.World) }

func initialize(ctx context.Context, s *stage) error {
	identity, err := s.identity()
	if err != nil {
		return err
	}
	_, err = tell(ctx, s.World, "init", api.VaultInit{Recipients: []string{s.Recipient}}, "", identity)
	return err
}

func (s *stage) identity() (string, error) {
	b, err := os.ReadFile(s.Identity)
	return string(b), err
}

// initialized: there is a vault that opens, or none, and then it can be made.
func initialized(ctx context.Context, s *stage, acted bool) error {
	return s.born(ctx, acted, initialize)
}

// born: there is a vault that opens, or none, and then make makes one.
func (s *stage) born(ctx context.Context, acted bool, make func(context.Context, *stage) error) error {
	v, err := vaultOf(ctx, s.World)
	switch {
	case err != nil:
		return err
	case v.State == stateOpen:
		return nil
	case v.State != stateAbsent:
		return fmt.Errorf("it leaves a vault that does not open: it is %s: %s", v.State, v.Problem)
	case acted:
		return errors.New("a vault that was reported is not there")
	}
	if err := make(ctx, s); err != nil {
		return fmt.Errorf("it cannot be made again: %w", err)
	}
	return s.open(ctx)
}

// firstBackup: there is a place for backups, and the first one was made by itself.
func firstBackup(ctx context.Context, s *stage) error {
	if err := s.addBoard(); err != nil {
		return err
	}
	if err := holding(ctx, s); err != nil {
		return err
	}
	return backUp(ctx, s)
}

func backUp(ctx context.Context, s *stage) error {
	_, err := tell(ctx, s.World, "backup", nil)
	return err
}

// backupToRestore: the vault's token is in a backup.
func backupToRestore(ctx context.Context, s *stage) error {
	if err := holding(ctx, s); err != nil {
		return err
	}
	out, err := tell(ctx, s.World, "backup", nil)
	if err != nil {
		return err
	}
	s.source = out.Backup.Name
	return nil
}

func restore(ctx context.Context, s *stage) error {
	identity, err := s.identity()
	if err != nil {
		return err
	}
	_, err = tell(ctx, s.World, "restore", api.VaultRestore{Backup: s.source}, "", identity)
	return err
}

// restored: there is a vault that opens, or none, and then it can be restored; its token is marked, and works once it was resynced.
func restored(ctx context.Context, s *stage, acted bool) error {
	if err := s.born(ctx, acted, restore); err != nil {
		return err
	}
	return s.there(ctx, true)
}
