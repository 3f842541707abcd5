package localapi

import (
	"errors"
	"fmt"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
)

// recognize joins what a key says of one slot with what the inventory knows of it, and says what is due.
func (d *Desk) recognize(tx *vault.Tx, id device.TokenID, configured bool) (api.Slot, error) {
	slot := api.Slot{Token: string(id), Configured: configured}
	t, err := tx.Token(id)
	if errors.Is(err, vault.ErrNotFound) {
		stone, was, err := tx.Tombstone(id)
		if was && stone.Officer != "" && configured {
			slot.Due = fmt.Sprintf("was deleted on %s, and holds something still: to use the slot again, tokendesk enroll --overwrite", stone.Time.Local().Format("2006-01-02"))
		}
		return slot, err
	}
	if err != nil {
		return slot, err
	}
	slot.Status, slot.Owner = string(t.Status), t.Owner
	if d.Runner.Working(id) {
		return slot, nil
	}
	job, unfinished, err := tx.JobFor(id)
	switch {
	case unfinished:
		slot.Due = fmt.Sprintf("%s: tokendesk resolve %s", provision.Waiting(job), id)
	case t.Status == vault.Compromised && t.Wiped.IsZero() && configured:
		slot.Due = fmt.Sprintf("is compromised (%s), and must never be used: tokendesk wipe %s, or destroy it", t.Loss.Kind, id)
	case t.Status == vault.Expired:
		slot.Due = fmt.Sprintf("is expired: give it more time (tokendesk edit %s --expires DATE), or take it back (tokendesk wipe %s)", id, id)
	case t.Stale:
		slot.Due = "is to be resynced before use: tokendesk resync --capture " + string(id)
	case !configured && t.Status != vault.Compromised && t.Status != vault.Pending:
		slot.Due = fmt.Sprintf("is in the inventory, and its slot is empty: somebody else has erased it; tokendesk reseed %s, or tokendesk delete %s", id, id)
	}
	return slot, err
}
