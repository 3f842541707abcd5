package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"tokendesk/cmd/internal/api"
)

// keep makes a backup, and an export of the audit trail that an auditor verifies with nothing but the key.
func (s *story) keep(ctx context.Context) error {
	if err := s.desk(ctx, "vault", "backup"); err != nil {
		return err
	}
	var v api.Vault
	if err := s.ask(ctx, &v, "vault", "status"); err != nil {
		return err
	}
	export := filepath.Join(s.Dir, "audit.jsonl")
	for _, args := range [][]string{{"audit", "export", export}, {"audit", "verify", export, "--key", v.AuditKey}} {
		if err := s.desk(ctx, args...); err != nil {
			return err
		}
	}
	// An auditor must see it if a single letter was changed.
	text, err := os.ReadFile(export)
	if err != nil {
		return err
	}
	forged := filepath.Join(s.Dir, "forged.jsonl")
	if err := os.WriteFile(forged, []byte(strings.Replace(string(text), "user alice", "user carol", 1)), 0o600); err != nil {
		return err
	}
	out, err := s.Command(ctx, "tokendesk", "audit", "verify", forged, "--key", v.AuditKey).CombinedOutput()
	if err == nil {
		return errors.New("a forged audit trail verifies")
	}
	s.fact("the same with another name in one act", "%s", strings.Join(strings.Fields(string(out)), " "))
	return nil
}

// recover restores the vault where nothing is left of it.
func (s *story) recover(ctx context.Context, token string) error {
	backups, err := filepath.Glob(filepath.Join(s.BackupDir(), "*.age"))
	if err != nil || len(backups) == 0 {
		return errors.Join(err, errors.New("there is no backup"))
	}
	if err := s.Die(); err != nil {
		return err
	}
	var v api.Vault
	if err := s.ask(ctx, &v, "vault", "status"); err != nil {
		return err
	}
	if v.State != "absent" {
		return fmt.Errorf("the vault is %s, and should be gone", v.State)
	}
	if err := s.desk(ctx, "vault", "restore", backups[len(backups)-1], "--identity", s.Identity, "--no-pin"); err != nil {
		return err
	}
	var t api.Token
	if err := s.ask(ctx, &t, "show", token); err != nil {
		return err
	}
	if t.Owner != "bob" || !t.Stale {
		return fmt.Errorf("the restored %s belongs to %q; to be resynced before use: %v", token, t.Owner, t.Stale)
	}
	s.fact("tokendesk", "%s belongs to bob, and is to be resynced before use", token)
	if err := s.desk(ctx, "test", token, "123456"); err == nil {
		return errors.New("a code was accepted before the resync")
	}
	return nil
}

// ask runs tokendesk and reads its JSON.
func (s *story) ask(ctx context.Context, out any, args ...string) error {
	text, err := s.Command(ctx, "tokendesk", append(args, "--json")...).Output()
	if err != nil {
		return fmt.Errorf("tokendesk %s: %w", strings.Join(args, " "), err)
	}
	return json.Unmarshal(text, out)
}
