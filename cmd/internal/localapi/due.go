package localapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
)

// slotState is what a device has said of a token's slot.
type slotState int

const (
	slotUnseen slotState = iota // it was not asked
	slotEmpty
	slotFilled
)

func slotOf(configured bool) slotState {
	if configured {
		return slotFilled
	}
	return slotEmpty
}

// recognize joins what a key says of one slot with what the inventory knows of it, and says what is due. Known says that the
// desk has such a token, or had.
func (d *Desk) recognize(ctx context.Context, tx *vault.Tx, id device.TokenID, state slotState) (slot api.Slot, known bool, err error) {
	slot = api.Slot{Token: string(id), Configured: state == slotFilled}
	t, err := tx.Token(id)
	if errors.Is(err, vault.ErrNotFound) {
		stone, was, err := tx.Tombstone(id)
		if was && stone.Officer != "" && state == slotFilled && sees(ctx, stone.Tenant) {
			slot.Due = fmt.Sprintf("was deleted on %s, and holds something still: to use the slot again, tokendesk enroll --overwrite", stone.Time.Local().Format("2006-01-02"))
		}
		return slot, was, err
	}
	if err != nil {
		return slot, false, err
	}
	if !sees(ctx, t.Tenant) {
		slot.Due = "is of a tenant in which you have no role"
		return slot, true, nil
	}
	slot.Status, slot.Owner = string(t.Status), t.Owner
	job, unfinished, err := tx.JobFor(id)
	switch {
	case err != nil || d.Runner.Working(id):
	case unfinished:
		slot.Due = fmt.Sprintf("%s: tokendesk resolve %s", provision.Waiting(job), id)
	default:
		slot.Due, err = d.due(tx, t, state)
	}
	return slot, true, err
}

// due says what is to be done about a token that nobody works on; empty if nothing is. What ends somebody's access comes first.
func (d *Desk) due(tx *vault.Tx, t vault.Token, slot slotState) (string, error) {
	if t.Status == vault.Compromised {
		if !t.Wiped.IsZero() || slot == slotEmpty {
			return "", nil
		}
		return fmt.Sprintf("is compromised (%s)%s, and must never be used: tokendesk wipe %s, or destroy it", t.Loss.Kind, replaced(t), t.ID), nil
	}
	if words, err := d.leaves(tx, t); words != "" || err != nil {
		return words, err
	}
	switch {
	case t.ReseedDue && reseedable(t):
		return reseedDue(tx, t)
	case t.Status == vault.Expired:
		return fmt.Sprintf("is expired: give it more time (tokendesk edit %s --expires DATE), or take it back (tokendesk wipe %s)", t.ID, t.ID), nil
	case t.Stale:
		return "is to be resynced before use: tokendesk resync --capture " + string(t.ID), nil
	case slot == slotEmpty && t.Status != vault.Pending:
		return fmt.Sprintf("is in the inventory, and its %s is empty: somebody else has erased it; tokendesk reseed %s, or tokendesk delete %s", t.ID.Noun(), t.ID, t.ID), nil
	}
	if t.ID.PIV() {
		return d.dueOnCard(tx, t)
	}
	return "", nil
}

// leaves says what is due with the token of somebody who leaves, or has left.
func (d *Desk) leaves(tx *vault.Tx, t vault.Token) (string, error) {
	l, s, found, err := provision.LeaverWith(tx, t)
	if !found || err != nil {
		return "", err
	}
	next := s.Next
	if s.AtHand != "" && d.inserted(t.ID.Device()) {
		next = s.AtHand
	}
	when := "leaves by " + l.Deadline.Local().Format(time.DateOnly)
	if l.Overdue(time.Now()) {
		when = "was to return it by " + l.Deadline.Local().Format(time.DateOnly)
	}
	if s.Held {
		when = fmt.Sprintf("belongs to %s, who %s", t.Owner, when)
	} else {
		when = fmt.Sprintf("was %s, who has left", possessive(l.User))
	}
	if l.Successor != "" {
		when += "; " + l.Successor + " takes over"
	}
	return when + ": " + next, nil
}

// reseedDue says of a token that was freed while its device was somewhere else who may have its seed.
func reseedDue(tx *vault.Tx, t vault.Token) (string, error) {
	who, err := provision.FormerOwner(tx, t)
	how := "freed while not at hand"
	if t.ReplacedBy != "" {
		how = "replaced by " + string(t.ReplacedBy)
	}
	text := "was " + how
	switch {
	case t.Owner != "" && who != "":
		text = fmt.Sprintf("belongs to %s, and %s may still have its seed", t.Owner, who)
	case t.Owner != "":
		text = fmt.Sprintf("belongs to %s, and somebody else may still have its seed", t.Owner)
	case who != "":
		text = fmt.Sprintf("was %s, %s", possessive(who), how)
	}
	return fmt.Sprintf("%s: tokendesk reseed %s", text, t.ID), err
}

func replaced(t vault.Token) string {
	if t.ReplacedBy == "" {
		return ""
	}
	return fmt.Sprintf(", replaced by %s", t.ReplacedBy)
}

func possessive(name string) string { return name + "'s" }

func reseedable(t vault.Token) bool {
	for _, a := range provision.TypeOf(t.ID).Actions {
		if a == provision.ActReseed {
			return true
		}
	}
	return false
}
