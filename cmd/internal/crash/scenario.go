package main

import (
	"context"
	"errors"
	"fmt"

	"tokendesk/cmd/internal/api"
)

// Scenario is one operation that is to survive a crash at any moment.
type Scenario struct {
	Name    string
	Central bool // it needs the directory server
	PIN     bool // the vault has a PIN at first
	Blank   bool // there is no vault at first
	Makes   bool // it makes the vault: there is none before
	Backups bool // there is a place for backups
	// Begin is called once in each world, before all else. May be nil.
	Begin func(context.Context, *stage) error
	// Prepare brings about what Act starts from. Key and vault may be those that Check has left.
	Prepare func(context.Context, *stage) error
	// Act runs the operation as an officer would. It may fail because the daemon has died.
	Act func(context.Context, *stage) error
	// Reopen has the vault open after a restart; nil: it opens by itself, or with its PIN. It may be interrupted.
	Reopen func(context.Context, *stage) error
	// Check is called once the daemon runs again, or still. Its error is a loss. acted says that Act was told of success.
	// It leaves the vault open.
	Check func(ctx context.Context, s *stage, acted bool) error
}

func scenarios() []Scenario {
	return []Scenario{
		{Name: "enroll", Prepare: freshKey, Act: enroll, Check: enrolled},
		{Name: "undo", Prepare: halfEnrolled, Act: undo, Check: undone},
		{Name: "shred", Prepare: halfEnrolled, Act: undoAndRotate, Check: shredded},
		{Name: "reissue", Prepare: owned, Act: reissue, Check: reissued},
		{Name: "reissue-absent", Prepare: owned, Act: reissueLater, Check: reissuedLater},
		{Name: "replace", Prepare: firstSlotOnly, Act: replaceLost, Check: replacedLost},
		{Name: "reissue-fob", Begin: withFob, Prepare: fobOwned, Act: giveFob, Check: fobGiven},
		{Name: "reseed", Prepare: enrolledBefore, Act: reseed, Check: reseeded},
		{Name: "wipe", Prepare: enrolledBefore, Act: wipe, Check: wiped},
		{Name: "delete", Central: true, Prepare: enrolledBefore, Act: erase, Check: erased},
		{Name: "push", Central: true, Prepare: pushed, Act: handOver, Check: agreed},
		{Name: "init", Blank: true, Makes: true, Prepare: nowhere, Act: initialize, Reopen: asItIs, Check: initialized},
		{Name: "unlock", PIN: true, Begin: holding, Prepare: halfRotated, Act: unlock, Check: asBefore},
		{Name: "rotate", Begin: holding, Prepare: asItIs, Act: rotate, Check: asBefore},
		{Name: "change-pin", PIN: true, Begin: holding, Prepare: anotherPIN, Act: changePIN, Reopen: asItIs, Check: onePINOpens},
		{Name: "pin-mode", Begin: holding, Prepare: otherMode, Act: changePIN, Reopen: asItIs, Check: onePINOpens},
		{Name: "backup", Backups: true, Begin: firstBackup, Prepare: asItIs, Act: backUp, Check: backedUp},
		{Name: "restore", Backups: true, Makes: true, Begin: backupToRestore, Prepare: nowhere, Act: restore, Reopen: asItIs, Check: restored},
		{Name: "move-out", Begin: newBoard, Prepare: atHome, Act: moveOut, Reopen: asItIs, Check: inOnePlace},
		{Name: "move-cancel", Begin: newBoard, Prepare: away, Act: cancelMove, Reopen: asItIs, Check: home},
		{Name: "move-in", Makes: true, Begin: oldBoard, Prepare: nowhere, Act: moveIn, Reopen: asItIs, Check: movedIn},
	}
}

// asItIs does nothing.
func asItIs(context.Context, *stage) error { return nil }

func (s Scenario) reopen(ctx context.Context, st *stage) error {
	if s.Reopen != nil {
		return s.Reopen(ctx, st)
	}
	return st.open(ctx)
}

func freshKey(ctx context.Context, s *stage) error {
	s.user = "alice"
	if s.key != 0 {
		if err := s.putAway(ctx); err != nil {
			return err
		}
	}
	if err := s.takeKey(ctx); err != nil {
		return err
	}
	return s.AwaitKeys(ctx, s.key)
}

func enroll(ctx context.Context, s *stage) error { return s.enroll(ctx, false) }

// enrolled: no seed is on the key unless it is in the vault, and what was reported is there. Whatever was left can be
// settled, or begun anew.
func enrolled(ctx context.Context, s *stage, acted bool) error {
	t, found, err := s.settle(ctx)
	switch {
	case err != nil:
		return err
	case acted && (!found || t.Unfinished != ""):
		return fmt.Errorf("an enroll that was reported is not there: %+v", t)
	case !found:
		if err := s.enroll(ctx, false); err != nil {
			return fmt.Errorf("cannot enroll it again: %w", err)
		}
	}
	return s.works(ctx, s.user)
}

// settle finishes what a crash has left of a token, if anything, with a few touches.
func (s *stage) settle(ctx context.Context) (t api.Token, found bool, err error) {
	if err := s.AwaitKeys(ctx, s.key); err != nil { // also lest the desk, identifying it, gets what is typed later
		return t, false, err
	}
	t, found, err = s.look(ctx)
	if err != nil {
		return t, false, err
	}
	if !found {
		if empty, err := s.emptySlot(ctx); err != nil || !empty {
			return t, false, errors.Join(errors.New("the key holds a seed that the vault does not"), err)
		}
		return t, false, nil
	}
	if t.Unfinished != "" {
		codes, err := s.work(ctx, s.path("/resolve"), api.Resolve{})
		if err != nil {
			return t, true, fmt.Errorf("cannot settle %q: %w", t.Unfinished, err)
		}
		if codes > settleIn {
			return t, true, fmt.Errorf("%d touches were needed to settle %q: %q", codes, t.Unfinished, s.said)
		}
	}
	return t, true, nil
}

// works: the token is active, belongs to user, and its key types codes of the seed in the vault.
func (s *stage) works(ctx context.Context, user string) error {
	t, found, err := s.look(ctx)
	if err != nil || !found || t.Status != "active" || t.Owner != user || t.Unfinished != "" {
		return fmt.Errorf("the token is %+v, found %v: %w", t, found, err)
	}
	if _, err := s.work(ctx, s.path("/test"), api.Codes{Capture: true}); err != nil {
		return fmt.Errorf("a code of the key is not one of the vault's seed: %w", err)
	}
	return nil
}

func halfEnrolled(ctx context.Context, s *stage) error {
	if s.key == 0 { // otherwise the one before was undone
		if err := freshKey(ctx, s); err != nil {
			return err
		}
	}
	return s.enroll(ctx, true)
}

func undo(ctx context.Context, s *stage) error {
	_, err := s.work(ctx, s.path("/resolve"), api.Resolve{Undo: true})
	return err
}

// undone: either everything is gone, from key and vault, or the enroll can be finished or undone still.
func undone(ctx context.Context, s *stage, acted bool) error {
	if err := s.AwaitKeys(ctx, s.key); err != nil {
		return err
	}
	_, found, err := s.look(ctx)
	if err != nil {
		return err
	}
	if found {
		if acted {
			return errors.New("what was undone is still there")
		}
		if err := undo(ctx, s); err != nil {
			return fmt.Errorf("cannot undo it again: %w", err)
		}
	}
	if empty, err := s.emptySlot(ctx); err != nil || !empty {
		return errors.Join(errors.New("the key still holds a seed, and its access code is lost"), err)
	}
	return nil
}

// owned: the key belongs to somebody, and is to go to somebody else.
func owned(ctx context.Context, s *stage) error {
	if s.key == 0 {
		if err := freshKey(ctx, s); err != nil {
			return err
		}
		if err := s.enroll(ctx, false); err != nil {
			return err
		}
	}
	s.user = other(s.user)
	return nil
}

func other(user string) string {
	if user == "alice" {
		return "bob"
	}
	return "alice"
}

func reissue(ctx context.Context, s *stage) error {
	_, err := s.work(ctx, s.path("/reissue"), api.Reissue{User: s.user})
	return err
}

// reissued: the token belongs to the old owner with the old seed, or to the new one with the new seed.
func reissued(ctx context.Context, s *stage, acted bool) error {
	t, found, err := s.settle(ctx)
	switch {
	case err != nil:
		return err
	case !found:
		return errors.New("the token is gone")
	case acted && (t.Owner != s.user || t.Unfinished != ""):
		return fmt.Errorf("a reissue that was reported is not there: %+v", t)
	}
	if t.Unfinished == "" && t.Owner != s.user { // nothing of it had begun
		if err := s.works(ctx, t.Owner); err != nil {
			return err
		}
		s.user = t.Owner
		return nil
	}
	return s.works(ctx, s.user)
}

func undoAndRotate(ctx context.Context, s *stage) error {
	if err := undo(ctx, s); err != nil {
		return err
	}
	return rotate(ctx, s)
}

// shredded: what was undone is gone, and after the rotation, now or made again, from the file's unused pages too.
func shredded(ctx context.Context, s *stage, acted bool) error {
	if err := undone(ctx, s, acted); err != nil {
		return err
	}
	v, err := vaultOf(ctx, s.World)
	if err == nil && !acted {
		if err := rotate(ctx, s); err != nil {
			return fmt.Errorf("cannot rotate again: %w", err)
		}
		v, err = vaultOf(ctx, s.World)
	}
	if err == nil && v.Shred != nil {
		err = fmt.Errorf("seeds that were destroyed at %s are still in the file", v.Shred)
	}
	return err
}
