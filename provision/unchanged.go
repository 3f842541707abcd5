package provision

import (
	"context"
	"errors"
	"time"

	"tokendesk/sync/hotpscan"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// A fob that came with its seed cannot get another one. Whoever copied it can go on, so the receipt says that the seed is
// unchanged; what two codes prove is that the fob in hand is the one in the vault.

func unchangedPlan() []step {
	return []step{
		{name: "cut-off", done: "cut-off of the old owner recorded", commit: cutOff},
		{name: stepConfirm, done: "cut-off confirmed by the central service", act: confirm},
		{name: stepCodes, done: "two codes belong to its seed, which is unchanged; its counter is known", act: place, commit: placed},
		{name: "assign", done: "recorded for the new owner, and left for the central service", commit: assignAsItIs, gives: true},
	}
}

// place finds the counter that two codes belong to.
func place(ctx context.Context, w *work) error {
	if len(w.typed) == 0 {
		return ErrCodesWanted
	}
	var t vault.Token
	var seed secret.Secret
	err := w.Vault.View(func(tx *vault.Tx) (err error) {
		if t, err = tx.Token(w.job.Token); err != nil {
			return err
		}
		seed, err = tx.Seed(t.ID, t.Generation)
		return err
	})
	if err != nil {
		return err
	}
	defer seed.Wipe()
	if len(w.typed) != proofCodes {
		return refuse("", "two codes in a row prove it, not %d", len(w.typed))
	}
	from := t.Counter
	if w.Counter != nil {
		there, err := w.Counter(ctx, t.ID)
		if err != nil {
			w.tell(Progress{Kind: Note, Text: "the central service's counter could not be read, only the vault's was used: " + err.Error()})
		}
		from = max(from, there)
	}
	n, found := hotpscan.Search(seed, t.Digits, from, verifyWindow, w.typed)
	if !found {
		return ErrMismatch
	}
	w.found = n + proofCodes
	w.params.Proof = vault.Proof{Codes: proofCodes, Generation: t.Generation, Counter: n, Typed: true}
	return confirmCodes(seed, t.Digits, n, w.typed)
}

// placed moves the counter behind the codes.
func placed(tx *vault.Tx, w *work, now time.Time) error {
	t, err := tx.Token(w.job.Token)
	if err != nil {
		return err
	}
	t.Counter, t.LastUsed, t.Stale = max(t.Counter, w.found), now, false
	return tx.PutToken(t)
}

// assignAsItIs gives the token to its new owner with the seed that it has.
func assignAsItIs(tx *vault.Tx, w *work, _ time.Time) error {
	t, err := tx.Token(w.job.Token)
	if err != nil {
		return err
	}
	t.Owner, t.Replaces, t.ReplacedBy = w.params.User, "", ""
	if err := tx.PutToken(t); err != nil {
		return err
	}
	_, err = w.push(tx, t, vault.Assign, t.Owner)
	return errors.Join(err, w.notify(tx, NoticeInvitation, t.ID, t.Owner, "", w.params.Reason))
}
