package syncer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// MaxReason is how many bytes an officer's reason may have.
const MaxReason = 600

// ErrReason means that a reason is missing, too long, or not one line of text.
var ErrReason = fmt.Errorf("give a reason, in one line of at most %d bytes", MaxReason)

// ErrCutOffStays is what Park returns for a cut-off.
var ErrCutOffStays = errors.New("a cut-off cannot be put off: somebody goes on logging in until it is delivered; " +
	"if it must not be, discard it, which takes an approver")

// ApprovalError means that a cut-off may be discarded only if somebody else approves.
type ApprovalError struct {
	Change vault.Change
	By     audit.Officer // who wants to, and so cannot approve
}

func (e *ApprovalError) Error() string {
	whose := "whoever has it"
	if e.Change.User != "" {
		whose = e.Change.User
	}
	return fmt.Sprintf("change %d ends an access: without it, %s may go on logging in with %s; discarding it needs the approval of an officer other than %s",
		e.Change.Seq, whose, e.Change.Token, e.By.Name)
}

// Hurry ends an entry's pause, has it tried at once and waits for it as Wait does. A parked entry stays parked.
func (o *Outbox) Hurry(ctx context.Context, seq uint64) error {
	err := o.change(seq, func(tx *vault.Tx, c vault.Change) error {
		if c.NotBefore.IsZero() {
			return nil
		}
		c.NotBefore = time.Time{}
		return tx.PutChange(c)
	})
	if err != nil && !errors.Is(err, vault.ErrNotFound) {
		return fmt.Errorf("cannot hurry change %d: %w", seq, err)
	}
	return o.Wait(ctx, seq)
}

// Retry takes an entry out of its parking place or its pause and has it tried at once. If there is none (any more), that is
// vault.ErrNotFound, here and in what follows.
func (o *Outbox) Retry(by audit.Officer, seq uint64) error {
	err := o.change(seq, func(tx *vault.Tx, c vault.Change) error {
		c.Parked, c.ParkedBy, c.Reason, c.Problem, c.Attempts, c.NotBefore = false, audit.Officer{}, "", "", 0, time.Time{}
		return errors.Join(tx.PutChange(c), tx.Audit(vault.Done(by, "retry "+string(c.Kind), c.Token, c.User)))
	})
	if err != nil {
		return fmt.Errorf("cannot retry change %d: %w", seq, err)
	}
	return nil
}

// Park has an entry wait until Retry, for a reason, and with it the later ones of its token. A cut-off is not to wait
// (ErrCutOffStays). What is on its way to the service just now may still arrive.
func (o *Outbox) Park(by audit.Officer, seq uint64, reason string) error {
	err := checkReason(reason)
	if err == nil {
		err = o.change(seq, func(tx *vault.Tx, c vault.Change) error {
			if c.Kind.CutOff() {
				return ErrCutOffStays
			}
			c.Parked, c.ParkedBy, c.Reason, c.NotBefore = true, by, reason, time.Time{}
			return errors.Join(tx.PutChange(c), tx.Audit(explained(by, "park ", c, "", reason)))
		})
	}
	if err != nil {
		return fmt.Errorf("cannot park change %d: %w", seq, err)
	}
	o.log.Warn("an officer parked a change", "change", seq, "officer", by.Name, "reason", reason)
	return nil
}

// Discard gives an entry up, for a reason: the central service is never told. For a cut-off that takes the approval of an officer
// who is not the same person, or it is an ApprovalError; otherwise approver may be zero. What is on its way to the service just now
// may still arrive.
//
// The vault stays as it is: it says what should be, and the service shows something else, which is drift, until a later change
// of the token brings it in line. What a discarded cut-off has held back goes out now. It lets nobody in who should not be: a
// change carries what the vault says by then, and a connector refuses to give somebody a token that is another's there.
func (o *Outbox) Discard(by audit.Officer, seq uint64, reason string, approver audit.Officer) error {
	err := checkReason(reason)
	if err == nil {
		err = o.discard(seq, func(tx *vault.Tx, c vault.Change) error {
			approved := approver != (audit.Officer{}) && approver.UID != by.UID
			if c.Kind.CutOff() && !approved {
				return &ApprovalError{Change: c, By: by}
			}
			err, which := tx.DeleteChange(seq), fmt.Sprintf("change %d", seq) // by which others find what was given up
			if !approved {
				return errors.Join(err, tx.Audit(explained(by, "discard ", c, which, reason)))
			}
			return errors.Join(err, tx.Audit(explained(by, "discard ", c, which+"; approved by "+who(approver), reason)),
				tx.Audit(explained(approver, "approve discard ", c, "wanted by "+who(by), reason)))
		})
	}
	if err != nil {
		return fmt.Errorf("cannot discard change %d: %w", seq, err)
	}
	o.log.Warn("an officer discarded a change", "change", seq, "officer", by.Name, "approver", approver.Name, "reason", reason)
	return nil
}

// discard is change; whoever waits for the entry is told that it did not get there.
func (o *Outbox) discard(seq uint64, do func(*vault.Tx, vault.Change) error) error {
	defer o.Wake()
	o.books.writer.Lock()
	defer o.books.writer.Unlock()
	err := o.changeNow(seq, do)
	if err == nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		if w := o.waiters[seq]; w != nil {
			w.discarded = true
		}
	}
	return err
}

// change does something to an entry that waits.
func (o *Outbox) change(seq uint64, do func(*vault.Tx, vault.Change) error) error {
	defer o.Wake()
	o.books.writer.Lock()
	defer o.books.writer.Unlock()
	err := o.changeNow(seq, do)
	if err == nil {
		o.want(seq)
	}
	return err
}

// changeNow records first what has become of entries so far: nobody parks what was delivered already. The caller is the writer.
func (o *Outbox) changeNow(seq uint64, do func(*vault.Tx, vault.Change) error) error {
	if err := o.writeAll(); err != nil {
		return err
	}
	return o.v.Update(func(tx *vault.Tx) error {
		c, err := tx.ChangeAt(seq)
		if err != nil {
			return err
		}
		return do(tx, c)
	})
}

// explained is the act of an officer who has given a reason. That comes last, so that nothing can be made up in it.
func explained(by audit.Officer, action string, c vault.Change, how, reason string) audit.Act {
	a := vault.Done(by, action+string(c.Kind), c.Token, c.User)
	var parts []string
	for _, part := range []string{a.Reason, how, "reason: " + reason} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	a.Reason = strings.Join(parts, "; ")
	return a
}

func who(o audit.Officer) string { return fmt.Sprintf("%s (uid %d)", o.Name, o.UID) }

func checkReason(reason string) error {
	if strings.TrimSpace(reason) == "" || len(reason) > MaxReason || !utf8.ValidString(reason) || strings.ContainsFunc(reason, unicode.IsControl) {
		return ErrReason
	}
	return nil
}
