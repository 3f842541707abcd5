package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
	"tokendesk/vault/secret"
)

const firstPIN = "pin-0482913"

// States of a vault that are told apart here.
const (
	stateOpen     = "open"
	stateLocked   = "locked"
	stateAbsent   = "absent"
	stateMoved    = "moved"
	stateRollback = "rollback-suspected"
)

func vaultFile(w *world.World) string { return filepath.Join(w.Dir, "vault.db") }

func vaultOf(ctx context.Context, w *world.World) (v api.Vault, err error) {
	return v, w.Client.Get(ctx, "/v1/vault", nil, &v)
}

// tell asks for an operation on a world's vault.
func tell(ctx context.Context, w *world.World, operation string, in any, secrets ...string) (out api.VaultOutcome, err error) {
	var hidden []secret.Secret
	for _, s := range secrets {
		hidden = append(hidden, secret.New([]byte(s)))
	}
	defer func() {
		for _, s := range hidden {
			s.Wipe()
		}
	}()
	path := "/v1/vault/" + operation
	if len(secrets) == 0 {
		return out, w.Client.Post(ctx, path, in, &out)
	}
	return out, w.Client.PostSecret(ctx, path, in, &out, hidden...)
}

// unlocked tries to have a world's vault open, with pin if it asks for something, and returns its state.
func unlocked(ctx context.Context, w *world.World, pin string) (v api.Vault, err error) {
	v, err = vaultOf(ctx, w)
	if err != nil || v.State == stateOpen {
		return v, err
	}
	refused := w.Unlock(ctx, pin)
	if known := (*api.Error)(nil); refused != nil && (!errors.As(refused, &known) || known.Code != api.VaultTrouble) {
		return v, refused
	}
	v, err = vaultOf(ctx, w)
	if err == nil && refused == nil && v.State != stateOpen {
		err = fmt.Errorf("it was said to be unlocked, and is %s", v.State)
	}
	return v, err
}

// locked has the vault locked. It insists: work whose outcome was just told is still going on for a moment.
func locked(ctx context.Context, w *world.World) error {
	_, err := tell(ctx, w, "lock", api.VaultLock{Force: true})
	return err
}

// blank takes a world's vault away, and its counters out of the TPM.
func blank(ctx context.Context, w *world.World) error {
	if err := locked(ctx, w); err != nil {
		return err
	}
	left, err := filepath.Glob(filepath.Join(w.Dir, ".vault.db.*"))
	if err != nil {
		return err
	}
	for _, f := range append(left, vaultFile(w)) {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return board{w.TPM}.clear()
}

// open: the vault is open after a restart, by itself or with its PIN.
func (s *stage) open(ctx context.Context) error {
	v, err := unlocked(ctx, s.World, s.pin)
	if err == nil && v.State != stateOpen {
		err = fmt.Errorf("the vault does not open: it is %s: %s; %s", v.State, v.Problem, v.Cure)
	}
	return err
}

// swept: nothing is left of files that were being written.
func (s *stage) swept() error {
	left, err := filepath.Glob(filepath.Join(s.Dir, ".vault.db.*"))
	if len(left) > 0 {
		err = errors.Join(err, fmt.Errorf("%d unfinished files lie beside the vault: %q", len(left), left))
	}
	return err
}

// checkVault has the whole vault checked.
func (s *stage) checkVault(ctx context.Context) error {
	out, err := s.Command(ctx, "tokendesk", "vault", "check").CombinedOutput()
	if err != nil {
		return fmt.Errorf("tokendesk vault check: %w: %s", err, out)
	}
	return nil
}

// holding is a vault with one working token.
func holding(ctx context.Context, s *stage) error {
	if err := freshKey(ctx, s); err != nil {
		return err
	}
	return s.enroll(ctx, false)
}

// there: the vault has the token of the world's key, and its seed: two codes of the key bring its counter up to date.
func (s *stage) there(ctx context.Context, stale bool) error {
	t, found, err := s.look(ctx)
	if err != nil || !found || t.Stale != stale || t.Owner != s.user {
		return fmt.Errorf("the token is %+v, found %v: %w", t, found, err)
	}
	if err := s.AwaitKeys(ctx, s.key); err != nil {
		return err
	}
	if _, err := s.work(ctx, s.path("/resync"), api.Codes{Capture: true}); err != nil {
		return fmt.Errorf("the key's codes are not of the vault's seed: %w", err)
	}
	return nil
}
