package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
)

// newBoard: there is a vault with a token, and another board that has asked for it.
func newBoard(ctx context.Context, s *stage) error {
	if err := s.addBoard(); err != nil {
		return err
	}
	if err := holding(ctx, s); err != nil {
		return err
	}
	return s.ask(ctx, s.second)
}

// ask: a board asks for a vault.
func (s *stage) ask(ctx context.Context, w *world.World) (err error) {
	s.request, err = tell(ctx, w, "move", api.VaultMove{Step: "request"}, "")
	return err
}

// carry has a board write its vault for the one that has asked.
func (s *stage) carry(ctx context.Context, w *world.World) error {
	_, err := tell(ctx, w, "move", api.VaultMove{Step: "out", Parent: s.request.Parent, Fingerprint: s.request.Fingerprint, File: s.moveFile()}, "")
	return err
}

func (s *stage) moveFile() string { return filepath.Join(s.outside, "move") }

// accept has a board take a file in.
func accept(ctx context.Context, w *world.World, file string) error {
	_, err := tell(ctx, w, "move", api.VaultMove{Step: "in", File: file}, "")
	return err
}

// atHome: the vault is open, and nothing is left of a move.
func atHome(_ context.Context, s *stage) error {
	left, err := s.carried()
	for _, f := range left {
		err = errors.Join(err, os.Remove(f))
	}
	return err
}

// carried are the move files there are, finished or not.
func (s *stage) carried() ([]string, error) { return filepath.Glob(filepath.Join(s.outside, "*")) }

func moveOut(ctx context.Context, s *stage) error { return s.carry(ctx, s.World) }

// inOnePlace: the vault is open here and nobody can take it in, or it is not and somebody can, at once or after the move
// was made again.
func inOnePlace(ctx context.Context, s *stage, acted bool) error {
	v, err := vaultOf(ctx, s.World)
	if err != nil {
		return err
	}
	taken, err := s.taken(ctx)
	if err != nil {
		return err
	}
	switch {
	case v.State == stateOpen && taken:
		return errors.New("both boards open the vault")
	case acted && (v.State != stateMoved || !taken):
		return fmt.Errorf("a move was reported, the vault is %s, and that the other board opened it is %v", v.State, taken)
	case v.State == stateOpen:
		return asBefore(ctx, s, acted)
	case v.State != stateMoved:
		return fmt.Errorf("the vault is %s: %s", v.State, v.Problem)
	case !taken:
		if err := s.carry(ctx, s.World); err != nil {
			return fmt.Errorf("the move cannot be made again: %w", err)
		}
		if taken, err = s.taken(ctx); err != nil || !taken {
			return errors.Join(errors.New("made again, the move does not give the other board its vault"), err)
		}
	}
	if v, err = unlocked(ctx, s.World, s.pin); err != nil || v.State != stateMoved {
		return fmt.Errorf("the other board has the vault, and here it is %s: %w", v.State, err)
	}
	return s.comeHome(ctx, acted)
}

// taken tries whether the other board takes the vault in, from anything that there is, and leaves it without.
func (s *stage) taken(ctx context.Context) (taken bool, err error) {
	files, err := s.carried()
	if err != nil {
		return false, err
	}
	for _, f := range files {
		if accept(ctx, s.second, f) != nil {
			continue
		}
		var t api.Token
		if err := s.second.Client.Get(ctx, s.path(""), nil, &t); err != nil || t.Owner != s.user || t.Stale {
			return true, fmt.Errorf("on the other board, the token is %+v: %w", t, err)
		}
		taken = true
		if err := blank(ctx, s.second); err != nil {
			return true, err
		}
	}
	return taken, nil
}

// comeHome takes the move back, which is right here, because the other board has lost what it was given.
func (s *stage) comeHome(ctx context.Context, acted bool) error {
	if err := cancelMove(ctx, s); err != nil {
		return fmt.Errorf("the move cannot be taken back: %w", err)
	}
	return asBefore(ctx, s, acted)
}

// away: the vault has moved, and what was saved before that is worth nothing any more.
func away(ctx context.Context, s *stage) error {
	if err := atHome(ctx, s); err != nil {
		return err
	}
	v, err := vaultOf(ctx, s.World)
	if err != nil {
		return err
	}
	if err := s.keepOld(v); err != nil {
		return err
	}
	s.old.never = true
	return moveOut(ctx, s)
}

func cancelMove(ctx context.Context, s *stage) error {
	_, err := tell(ctx, s.World, "move", api.VaultMove{Step: "cancel"}, s.pin)
	return err
}

// home: the vault is open here, or the move can still be taken back.
func home(ctx context.Context, s *stage, acted bool) error {
	v, err := vaultOf(ctx, s.World)
	switch {
	case err != nil:
		return err
	case v.State == stateOpen:
		return asBefore(ctx, s, acted)
	case acted || v.State != stateMoved:
		return fmt.Errorf("the vault is %s: %s", v.State, v.Problem)
	}
	return s.comeHome(ctx, acted)
}

// oldBoard: another board holds the vault, and has written it for this one.
func oldBoard(ctx context.Context, s *stage) error {
	if err := newBoard(ctx, s); err != nil {
		return err
	}
	if err := moveOut(ctx, s); err != nil {
		return err
	}
	if err := errors.Join(accept(ctx, s.second, s.moveFile()), os.Remove(s.moveFile())); err != nil {
		return err
	}
	if err := nowhere(ctx, s); err != nil {
		return err
	}
	if err := s.ask(ctx, s.World); err != nil {
		return err
	}
	return s.carry(ctx, s.second)
}

func moveIn(ctx context.Context, s *stage) error { return accept(ctx, s.World, s.moveFile()) }

// movedIn: there is a vault that opens, or none, and then it can be taken in; its token works; the old board has none.
func movedIn(ctx context.Context, s *stage, acted bool) error {
	if err := s.born(ctx, acted, moveIn); err != nil {
		return err
	}
	if v, err := unlocked(ctx, s.second, ""); err != nil || v.State != stateMoved {
		return fmt.Errorf("on the old board the vault is %s: %w", v.State, err)
	}
	return s.there(ctx, false)
}
