package keeper

import (
	"context"
	"fmt"
	"time"

	"tokendesk/provision"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// Schedule says where and how often backups are made, and how many are kept.
type Schedule struct {
	Dir   string
	Every time.Duration
	Keep  int
}

// lastBackup is when the newest backup was made; zero if none was.
func (k *Keeper) lastBackup() (last time.Time, err error) {
	err = k.Vault.View(func(tx *vault.Tx) error {
		all, err := tx.Backups()
		for _, b := range all {
			if b.Time.After(last) {
				last = b.Time
			}
		}
		return err
	})
	return last, err
}

// Overdue says why a scheduled backup is missing; empty if none is.
func (k *Keeper) Overdue() string {
	if k.Backups.Dir == "" {
		return ""
	}
	last, err := k.lastBackup()
	if err != nil || time.Since(last) <= k.Backups.Every {
		return ""
	}
	k.mu.Lock()
	why := k.unsaved
	k.mu.Unlock()
	text := "none was made yet"
	if !last.IsZero() {
		text = fmt.Sprintf("the last one is of %s", last.UTC().Format(time.RFC3339))
	}
	if why != "" {
		text += "; " + why
	}
	return text
}

// backupDue makes a backup when the last one is too old, and removes old ones.
func (k *Keeper) backupDue(_ context.Context, now time.Time) time.Time {
	if k.Backups.Dir == "" || !k.IsOpen() {
		return time.Time{}
	}
	last, err := k.lastBackup()
	if err != nil {
		return time.Time{}
	}
	due := last.Add(k.Backups.Every)
	if last.After(now.Add(time.Minute)) { // the clock was set back
		due = now
	}
	if pause := k.saved.over(); pause.After(due) {
		due = pause
	}
	if due.After(now) {
		return due
	}
	b, err := k.Backup(Desk)
	k.set(func() { k.unsaved = "" })
	if err != nil {
		k.failed("vault backup", k.Backups.Dir, err)
		k.set(func() { k.unsaved = err.Error() })
		k.saved.fail(now)
		return k.saved.over()
	}
	k.saved.reset()
	return b.Time.Add(k.Backups.Every)
}

// Backup makes a backup and removes old ones.
func (k *Keeper) Backup(by audit.Officer) (vault.Backup, error) {
	if k.Backups.Dir == "" {
		return vault.Backup{}, &provision.RefusedError{Reason: "the configuration says nothing of backups", Next: "name their directory: [backup] dir"}
	}
	act := audit.Act{Officer: by}
	b, err := k.Vault.Backup(k.Backups.Dir, act)
	if err != nil {
		return b, err
	}
	k.Log.Info("backup made", "file", b.Path())
	if k.Backups.Keep > 0 {
		if _, err := k.Vault.PruneBackups(k.Backups.Dir, k.Backups.Keep, act); err != nil {
			return b, fmt.Errorf("%s is made, and old backups cannot be removed: %w", b.Path(), err)
		}
	}
	return b, nil
}

// shredDue rotates the keys when destroyed secrets have been in unused pages for long enough, and no work waits for that.
func (k *Keeper) shredDue(_ context.Context, now time.Time) time.Time {
	c := k.Vault.Condition()
	if c.State != vault.StateOpen || c.Shred.IsZero() {
		return time.Time{}
	}
	due := c.Shred.Add(k.ShredAfter)
	if pause := k.shred.over(); pause.After(due) {
		due = pause
	}
	if due.After(now) {
		return due
	}
	if len(k.Works.Going()) > 0 {
		return time.Time{} // its end nudges
	}
	if err := k.Vault.Rotate(audit.Act{Officer: Desk, Reason: "destroyed seeds were still in unused pages"}, nil); err != nil {
		k.failed("vault rotate", c.ID, err)
		k.shred.fail(now)
		return k.shred.over()
	}
	k.shred.reset()
	k.Log.Info("destroyed seeds shredded", "since", c.Shred)
	return time.Time{}
}

// failed tells of what the desk could not do by itself.
func (k *Keeper) failed(action, object string, err error) {
	k.Log.Error("cannot do what is due", "action", action, "object", object, "error", err)
	k.Record(audit.Act{Officer: Desk, Action: action, Object: object, Outcome: "vault", Reason: err.Error()})
}
