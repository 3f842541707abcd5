package vault

import (
	"errors"
	"fmt"
	"time"
)

// The order of effects: a change is committed with epoch N+1; the TPM's counter is raised to N+1; only then may anybody
// see the change, and act on it. At opening, a file whose epoch is the counter's is accepted; one that is a step ahead is the
// trace of a crash in between, and the counter follows; one that is behind was put back.

func (s *session) anchor() Anchor {
	if s.header().Anchor == nil {
		return nil
	}
	return s.sealer.(Anchor) // openSession has checked it
}

// behind tells whether the counter has not followed the last commit yet.
func (s *session) behind() bool { return s.ledger.Epoch != s.counter }

// raise has the counter follow the last commit.
func (s *session) raise() error {
	s.stopTail()
	if a := s.anchor(); a != nil {
		if err := a.Increment(s.header().Anchor.Epoch, s.auth); err != nil {
			return fmt.Errorf("%w: %w", ErrUnanchored, err)
		}
	}
	s.counter = s.ledger.Epoch
	return nil
}

// catchUp has the counter follow, if that has failed before.
func (s *session) catchUp() error {
	if !s.behind() {
		return nil
	}
	s.visible.Lock()
	defer s.visible.Unlock()
	n, err := s.anchor().Count(s.header().Anchor.Epoch, s.auth)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnanchored, err)
	}
	if n == s.ledger.Epoch { // the failure was that of the answer
		s.counter = n
		return nil
	}
	if n != s.counter {
		return named(StateCounterLost, cureCounterLost, "the TPM's counter stands at %d, and was at %d", n, s.counter)
	}
	return s.raise()
}

const (
	cureRollback = "find out who put back an older copy; use the newest file, or if there is none, restore on purpose: " +
		"tokendesk vault restore, with the recovery key"
	cureCounterLost = "the TPM was cleared or replaced: restore the vault with the recovery key: tokendesk vault restore"
)

// compare holds the file's epoch against the counter when the vault is opened.
func (s *session) compare() error {
	s.counter = s.ledger.Epoch
	a := s.anchor()
	if a == nil {
		return nil
	}
	n, err := a.Count(s.header().Anchor.Epoch, s.auth)
	if err != nil {
		return err
	}
	switch e := s.ledger.Epoch; {
	case e == n:
		return nil
	case e == n+1:
		s.counter = n
		return s.raise()
	case e < n:
		return named(StateRollback, cureRollback,
			"%s is a restored copy: it stands at epoch %d, and the TPM's counter at %d", s.path, e, n)
	}
	return named(StateCounterLost, cureCounterLost, "the file stands at epoch %d, and the TPM's counter only at %d", s.ledger.Epoch, n)
}

// startTail sees to it that light changes get an epoch of their own, together, before long.
func (s *session) startTail() {
	if s.anchor() != nil && s.tail == nil && s.onTail != nil {
		s.tail = time.AfterFunc(tailDelay, s.onTail)
	}
}

func (s *session) stopTail() {
	if s.tail != nil {
		s.tail.Stop()
		s.tail = nil
	}
}

// endTail gives light changes their epoch now.
func (s *session) endTail() error {
	if s.tail == nil {
		return nil
	}
	err := s.update(func(tx *Tx) error {
		tx.weigh(heavy)
		return nil
	})
	if err != nil {
		return fmt.Errorf("the last counters have no epoch of their own yet: %w", err)
	}
	return nil
}

// nextGeneration makes the seals of before useless, once the file holds one for the next generation, and drops them.
func (s *session) nextGeneration() error {
	if len(s.header().Seals) < 2 {
		return nil
	}
	a := s.anchor()
	if a == nil {
		return corrupt("%s has two seals and no TPM that would tell them apart", s.path)
	}
	old, err := s.sealer.Unseal(s.header().Seals[0], s.pin)
	if err == nil {
		old.Wipe()
		if err := a.Increment(s.header().Anchor.Generation, s.auth); err != nil {
			return err
		}
	} else if !errors.Is(err, ErrStale) {
		return err
	}
	return s.changeHeader(func(h *header) { h.Seals = h.Seals[len(h.Seals)-1:] })
}
