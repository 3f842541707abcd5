package keeper

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// maxKept bounds the acts that wait for the vault to be opened.
const maxKept = 100

// trail is what could not be recorded yet.
type trail struct {
	mu      sync.Mutex
	kept    []audit.Act
	dropped int
}

// keep keeps an act until the next one can be recorded. Its time goes into its reason: the trail's own is that of the
// commit.
func (t *trail) keep(a audit.Act) {
	a.Reason = fmt.Sprintf("at %s: %s", time.Now().UTC().Format(time.RFC3339), a.Reason)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.kept) == maxKept {
		t.dropped++
		return
	}
	t.kept = append(t.kept, a)
}

// take returns what was kept.
func (t *trail) take() []audit.Act {
	t.mu.Lock()
	defer t.mu.Unlock()
	acts := t.kept
	if t.dropped > 0 {
		acts = append(acts, audit.Act{Officer: Desk, Action: "audit", Outcome: "dropped",
			Reason: fmt.Sprintf("%d acts after these could not be recorded", t.dropped)})
	}
	t.kept, t.dropped = nil, 0
	return acts
}

// Record adds an act to the audit trail, in a transaction of its own, after those that could not be recorded before. If it
// cannot be now, it is kept for later.
func (k *Keeper) Record(a audit.Act) {
	acts := append(k.trail.take(), a)
	err := k.Vault.Update(func(tx *vault.Tx) error {
		for _, a := range acts {
			if err := tx.Audit(a); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		k.trail.mu.Lock()
		k.trail.kept = slices.Concat(acts[:len(acts)-1], k.trail.kept)
		k.trail.mu.Unlock()
		k.trail.keep(a)
		if k.IsOpen() {
			k.Log.Error("cannot record in the audit trail yet", "error", err)
		}
		return
	}
	k.Nudge()
}
