package vault

import (
	"errors"
	"time"

	"tokendesk/vault/audit"
)

// Condition is how a vault is.
type Condition struct {
	State      State
	Err        *StateError // why it is not open; nil if it is
	ID         string
	Level      Level
	PIN        bool
	Epoch      uint64 // what the TPM's counter stands at; without a TPM, the number of changes with an effect
	Writes     uint64 // of the TPM's memory, so far; 0 without a TPM
	Anchored   bool   // a TPM's counter tells an older copy from the latest
	Recipients []string
	Shred      time.Time // since when unused pages hold destroyed secrets, still sealed; zero if none do
	AuditKey   audit.Key
	Acts       uint64 // entries of the audit trail
}

// StateOpen is that of a vault which is unlocked.
const StateOpen State = "open"

// Condition says how the vault is. Of one that is not open it knows the state; Peek reads more.
func (v *Vault) Condition() Condition {
	s, leave, err := v.enter()
	if err != nil {
		st := Condition{State: StateLocked}
		if errors.As(err, &st.Err) {
			st.State = st.Err.State
		}
		return st
	}
	defer leave()
	s.visible.RLock()
	defer s.visible.RUnlock()
	st := Condition{
		State: StateOpen, ID: s.header().ID, Level: s.header().Level, PIN: s.header().PIN, Epoch: s.counter, Recipients: s.header().Recipients,
		Shred: s.ledger.Shred, AuditKey: s.header().AuditKey, Acts: s.ledger.Trail.Seq,
	}
	if a := s.header().Anchor; a != nil {
		st.Anchored = true
		// Beside the epochs: two writes to make the counters, and one for each rotation or change of the PIN.
		st.Writes = s.counter - a.First + 2 + uint64(s.header().Key.Version-1)
	}
	return st
}

// Guesses says how many wrong PINs may still be given for an open vault, and when the next may if none; ok is false if
// nobody counts them. It asks the TPM.
func (v *Vault) Guesses() (left int, until time.Time, ok bool) {
	s, leave, err := v.enter()
	if err != nil {
		return 0, until, false
	}
	defer leave()
	g, ok := s.sealer.(Guesses)
	if !ok || !s.header().PIN {
		return 0, until, false
	}
	left, until, err = g.Guesses()
	return left, until, err == nil
}
