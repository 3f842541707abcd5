package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"

	"tokendesk/cmd/internal/api"
)

// restoreEvery says at which points a backup is restored elsewhere.
const restoreEvery = 8

// backedUp: after the next backup, every one that is on record is there, whole, and nothing else.
func backedUp(ctx context.Context, s *stage, acted bool) error {
	before, err := s.backups(ctx)
	if err != nil {
		return err
	}
	for _, b := range before {
		if acted && !b.There {
			return fmt.Errorf("%s was reported and is not there", b.Name)
		}
	}
	if err := backUp(ctx, s); err != nil {
		return fmt.Errorf("cannot back up again: %w", err)
	}
	all, err := s.backups(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, b := range all {
		names = append(names, b.Name)
		if err := s.whole(b); err != nil {
			return fmt.Errorf("%s, which is on record: %w", b.Name, err)
		}
	}
	found, err := filepath.Glob(filepath.Join(s.outside, "*")) // also what is hidden
	if err != nil {
		return err
	}
	slices.Sort(names)
	if !slices.Equal(found, names) {
		return fmt.Errorf("the backups are %q, on record are %q", found, names)
	}
	if s.tries%restoreEvery == 1 {
		if err := s.restoredElsewhere(ctx, all[0].Name); err != nil {
			return fmt.Errorf("on another board: %w", err)
		}
	}
	return nil
}

func (s *stage) backups(ctx context.Context) ([]api.Backup, error) {
	var out api.Backups
	err := s.Client.Get(ctx, "/v1/vault/backups", nil, &out)
	return out.Backups, err
}

// whole: a backup has the size of its record, and age, which authenticates what it reads, finds its end.
func (s *stage) whole(b api.Backup) error {
	if !b.There {
		return errors.New("it is not there as it was written")
	}
	if s.read[b.Name] {
		return nil
	}
	text, err := s.identity()
	if err != nil {
		return err
	}
	ids, err := age.ParseIdentities(strings.NewReader(text))
	if err != nil {
		return err
	}
	f, err := os.Open(b.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	plain, err := age.Decrypt(f, ids...)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, plain); err != nil {
		return err
	}
	if s.read == nil {
		s.read = map[string]bool{}
	}
	s.read[b.Name] = true
	return nil
}

// restoredElsewhere: a board that knows nothing of the vault makes one of a backup and the recovery identity, with the token.
func (s *stage) restoredElsewhere(ctx context.Context, backup string) error {
	if err := blank(ctx, s.second); err != nil {
		return err
	}
	identity, err := s.identity()
	if err != nil {
		return err
	}
	if _, err := tell(ctx, s.second, "restore", api.VaultRestore{Backup: backup}, "", identity); err != nil {
		return err
	}
	var t api.Token
	if err := s.second.Client.Get(ctx, s.path(""), nil, &t); err != nil || !t.Stale || t.Owner != s.user {
		return fmt.Errorf("the token is %+v: %w", t, err)
	}
	if err := s.second.Command(ctx, "tokendesk", "vault", "check").Run(); err != nil {
		return err
	}
	return nil
}
