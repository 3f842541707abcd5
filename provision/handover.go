package provision

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// Whenever a token comes to a person, a handover says so, with what was proven of it, in the transaction that gives it.

// hand records that t came to its owner. What tells of it in the audit trail is recorded before.
func hand(tx *vault.Tx, h vault.Handover, t vault.Token, by audit.Officer) error {
	h.Token, h.Serial, h.Generation, h.Emulated = t.ID, t.Serial, t.Generation, t.Emulated
	h.Officer, h.Time = by, time.Now()
	return tx.PutHandover(&h)
}

// handOver records that the work's token came to its owner, if it has one.
func (w *work) handOver(tx *vault.Tx) error {
	p := w.params
	t, err := tx.Token(w.job.Token)
	if err != nil || t.Owner == "" {
		return err
	}
	h := vault.Handover{Kind: kinds[w.job.Kind], From: p.Leaver, To: t.Owner, Reason: p.Reason, Proof: p.Proof, Revoke: p.Revoke}
	if p.Old != "" {
		h.Old, h.OldSerial = p.Old, p.OldSerial
		if h.OldStatus, err = statusOf(tx, p.Old); err != nil {
			return err
		}
	}
	waiting, err := w.cutOffWaits(tx)
	if err != nil {
		return err
	}
	if h.Offline = waiting != 0 || p.GivenUp; !h.Offline {
		h.Offline, err = w.givenUp(tx) // since
	}
	return errors.Join(err, hand(tx, h, t, w.by))
}

// givenUp tells whether officers have had the outbox give the leaver's cut-off up, so that the central service was never told:
// that of this work or, if the leaver had lost the token before it, the last one.
func (w *work) givenUp(tx *vault.Tx) (bool, error) {
	acts, err := tx.History(cmp.Or(w.params.Old, w.job.Token), 0, 0)
	which := fmt.Sprintf("change %d", w.params.CutOff)
	for _, a := range acts { // the newest first
		switch given := a.Action == "discard "+string(vault.Unassign); {
		case w.params.CutOff == 0 && a.Action == "push "+string(vault.Unassign):
			return false, err
		case given && (w.params.CutOff == 0 || slices.Contains(strings.Split(a.Reason, "; "), which)):
			return true, err
		}
	}
	return false, err
}

// kinds are those of the handover at a plan's end.
var kinds = map[string]vault.HandoverKind{
	planEnroll: vault.Issued, planPIV: vault.Issued, planReissue: vault.Reissued, planAbsent: vault.Reissued, planReplace: vault.Replaced, planUnchanged: vault.Unchanged,
}

// statusOf is the status of a token, or what its last one was if it was deleted.
func statusOf(tx *vault.Tx, id device.TokenID) (vault.Status, error) {
	t, err := tx.Token(id)
	if errors.Is(err, vault.ErrNotFound) {
		stone, _, err := tx.Tombstone(id)
		return stone.Status, err
	}
	return t.Status, err
}

// cutOffWaits is the outbox entry that cuts the leaver off, or 0 once it is confirmed.
func (w *work) cutOffWaits(tx *vault.Tx) (uint64, error) {
	if w.params.CutOff == 0 {
		return 0, nil
	}
	_, err := tx.ChangeAt(w.params.CutOff)
	if errors.Is(err, vault.ErrNotFound) {
		return 0, nil
	}
	return w.params.CutOff, err
}

// LastHolder is who had a token last, as far as handovers tell: its owner or, if it is stock or compromised, the one before.
func LastHolder(tx *vault.Tx, id device.TokenID) (string, error) {
	last, err := tx.HandoversOf(id, 0, 1)
	switch {
	case err != nil || len(last) == 0:
		return "", err
	case last[0].Token == id:
		return last[0].To, nil
	}
	return last[0].From, nil // of what came in its place
}

// dueWarning says of a token of the stock whose seed is not replaced yet who may have that.
func dueWarning(tx *vault.Tx, t vault.Token) (string, error) {
	who, err := LastHolder(tx, t.ID)
	if t.ID.PIV() {
		if err != nil || who == "" {
			return "", err
		}
		untold, err := tx.HasPIVSecret(t.ID, t.Generation, vault.PIN)
		pin := ""
		if !untold {
			pin = fmt.Sprintf("; %s knows its PIN, too; to give it a new one: tokendesk piv unblock %s", who, t.ID.Device())
		}
		return fmt.Sprintf("%s had it with the same keys; to make new ones: tokendesk wipe %s, and provision it again%s", who, t.ID, pin), err
	}
	if who == "" {
		who = "whoever had it last"
	}
	return fmt.Sprintf("%s may still have its seed; to replace it first: tokendesk reseed %s", who, t.ID), err
}

// reseedable tells whether a token's seed can be replaced at all.
func reseedable(id device.TokenID) bool { return offers(id, ActReseed) }

// atHand tells whether a token's device is known to be here.
func (r *Runner) atHand(id device.TokenID) bool { return r.AtHand != nil && r.AtHand(id.Device()) }

// proven says in words what codes have shown.
func proven(p vault.Proof) string {
	if p.Codes == 0 {
		return ""
	}
	text := fmt.Sprintf("proof: %d codes in a row are those of the seed of generation %d from counter %d on", p.Codes, p.Generation, p.Counter)
	if p.OldGeneration > 0 {
		text += fmt.Sprintf(", and none of them is one of generation %d among %d counters from %d on", p.OldGeneration, p.OldWindow, p.OldFrom)
	}
	if p.Typed {
		text += "; somebody typed them in"
	}
	return text
}
