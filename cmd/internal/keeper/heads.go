package keeper

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// headPace is how often a head of the audit trail is shipped at most.
const headPace = time.Minute

// Heads says where signed heads of the audit trail go, so that the holder of the vault cannot rewrite its history unseen.
type Heads struct {
	Journal io.Writer // a line each; may be nil
	File    string    // a line each is added to it; may be empty

	mu      sync.Mutex
	last    audit.Point // that was shipped
	at      time.Time
	problem error
}

// Problem is why the last head could not be shipped, if it could not.
func (h *Heads) Problem() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.problem
}

// shipDue ships a head if the trail has grown, once a minute.
func (k *Keeper) shipDue(_ context.Context, now time.Time) time.Time {
	h := &k.Heads
	h.mu.Lock()
	last, at := h.last, h.at
	h.mu.Unlock()
	var end audit.Point
	if err := k.Vault.View(func(tx *vault.Tx) error { end = tx.Trail(); return nil }); err != nil || end == last || end.Seq == 0 {
		return time.Time{}
	}
	if due := at.Add(headPace); due.After(now) {
		return due
	}
	k.ship()
	return time.Time{}
}

// ship signs a head and ships it, unless that was done before.
func (k *Keeper) ship() {
	h := &k.Heads
	h.mu.Lock()
	defer h.mu.Unlock()
	var head audit.Head
	err := k.Vault.View(func(tx *vault.Tx) (err error) {
		if tx.Trail() == h.last || tx.Trail().Seq == 0 {
			return nil
		}
		head, err = tx.Head()
		return err
	})
	if err != nil || head.Seq == 0 {
		return // a vault that is locked has shipped its head before
	}
	if h.problem = h.write(head); h.problem != nil {
		k.Log.Error("cannot ship the head of the audit trail", "error", h.problem)
	}
	h.last, h.at = head.Point, time.Now()
}

// write adds a head to the journal and to the file.
func (h *Heads) write(head audit.Head) error {
	if h.Journal != nil {
		if _, err := fmt.Fprintln(h.Journal, head); err != nil {
			return err
		}
	}
	if h.File == "" {
		return nil
	}
	f, err := os.OpenFile(h.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := fmt.Fprintln(f, head); err != nil {
		return err
	}
	return f.Sync()
}
