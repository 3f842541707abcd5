package syncer

import (
	"context"
	"time"

	"tokendesk/vault"
)

// Deliver ends every pause, tries each entry once that nothing holds back, and returns how many are left.
func (o *Outbox) Deliver(ctx context.Context) (remaining int, err error) {
	err = o.v.Update(func(tx *vault.Tx) error {
		waiting, err := tx.Changes()
		if err != nil {
			return err
		}
		for _, c := range waiting {
			c.NotBefore = time.Time{}
			if err := tx.PutChange(c); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	if _, err := o.pass(ctx); err != nil {
		return 0, err
	}
	err = o.v.View(func(tx *vault.Tx) error {
		left, err := tx.Changes()
		remaining = len(left)
		return err
	})
	return remaining, err
}
