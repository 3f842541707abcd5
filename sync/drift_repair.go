package syncer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// stepsPerTransaction is how many tokens one transaction of a repair changes at most.
const stepsPerTransaction = 100

// ChangedError says that a plan is out of date: it would not do any more what it was shown to do.
type ChangedError struct {
	Token device.TokenID // the first one that changed; empty if the plan is another one altogether
	Done  int            // steps that were made before it was noticed
}

func (e *ChangedError) Error() string {
	what := "the plan is not the one that was shown"
	if e.Token != "" {
		what = fmt.Sprintf("%s changed since the plan was made", e.Token)
	}
	if e.Done > 0 {
		what += fmt.Sprintf(" (after %d steps)", e.Done)
	}
	return what + ": look at the drift again"
}

// Repaired is what a repair has led to.
type Repaired struct {
	Steps   int      `json:"steps"`
	Changes []uint64 `json:"changes,omitempty"` // outbox entries
}

// Repair carries out a plan that an officer has seen: digest is what the plan showed then. In the transaction of each hundred
// steps all are computed once more, and if one would do something else by now, nothing of it is done and a ChangedError is returned. What the steps
// want of the central service waits in the outbox afterwards.
func (d *Drift) Repair(ctx context.Context, by audit.Officer, p Plan, digest string) (done Repaired, err error) {
	if digest == "" || p.Digest != digest || p.digest() != digest {
		return done, &ChangedError{}
	}
	for part := range slices.Chunk(p.Steps, tokensPerView) { // so that nothing is done if that is clear from the start
		err := d.v.View(func(tx *vault.Tx) error {
			for _, s := range part {
				if err := d.stillTrue(tx, s, p.Choice); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return done, err
		}
	}
	for part := range slices.Chunk(p.Steps, stepsPerTransaction) {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		made, err := d.repair(by, p.Choice, part)
		if changed := (*ChangedError)(nil); errors.As(err, &changed) {
			changed.Done = done.Steps
		}
		if err != nil && !errors.Is(err, vault.ErrUnanchored) { // else it is recorded
			return done, err
		}
		done.Steps += len(part)
		done.Changes = append(done.Changes, made...)
		if d.cfg.Wake != nil {
			d.cfg.Wake()
		}
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// repair makes some steps in one transaction.
func (d *Drift) repair(by audit.Officer, choice Choice, steps []Step) (made []uint64, err error) {
	for _, s := range steps {
		if d.cfg.Claim == nil {
			break
		}
		release, err := d.cfg.Claim(s.Token)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	err = d.v.Update(func(tx *vault.Tx) error {
		for _, s := range steps {
			if err := d.stillTrue(tx, s, choice); err != nil {
				return err
			}
			seqs, err := s.make(tx, by, choice)
			if err != nil {
				return fmt.Errorf("cannot repair %s: %w", s.Token, err)
			}
			made = append(made, seqs...)
		}
		return nil
	})
	return made, err
}

// stillTrue computes a step once more, with the vault as it is now and the providers as they were seen.
func (d *Drift) stillTrue(tx *vault.Tx, s Step, choice Choice) error {
	changed := &ChangedError{Token: s.Token}
	now := s.row
	if err := now.look(tx); err != nil {
		return err
	}
	if (now.Desk == nil) != (s.row.Desk == nil) || (now.Deleted == nil) != (s.row.Deleted == nil) {
		return changed
	}
	again, skip := d.step(now, choice)
	was, wasThere := s.binding()
	is, isThere := again.binding()
	if was == (here{}) && len(wasThere) == 0 {
		return nil // only counters
	}
	if skip != "" || is != was || !slices.Equal(isThere, wasThere) || now.generation() != s.row.generation() {
		return changed
	}
	return nil
}

// make changes the token here and leaves word for the central service, as the desk's own actions do.
func (s Step) make(tx *vault.Tx, by audit.Officer, choice Choice) (seqs []uint64, err error) {
	t := vault.Token{ID: s.Token, Generation: s.row.generation()} // of one that was deleted there is no more
	if s.row.Deleted == nil {
		if t, err = tx.Token(s.Token); err != nil {
			return nil, err
		}
	}
	before := t
	switch {
	case s.here.release: // somebody has it, and the desk does not
		t.Owner, t.ReseedDue = "", t.ReseedDue || t.ID.Programmable()
	case s.here.assign != "":
		t.Owner = s.here.assign
	case s.here.disable:
		t.Status = vault.Disabled
	}
	if s.here.raise {
		for _, p := range s.row.There {
			if p.Exists && p.Ours && p.Generation == t.Generation {
				t.Counter = max(t.Counter, p.Counter)
			}
		}
	}
	if t != before {
		if err := tx.PutToken(t); err != nil {
			return nil, err
		}
	}
	audited := func(action, user string) error {
		a := vault.Done(by, "repair: "+action, t.ID, user)
		a.Reason = strings.TrimPrefix(a.Reason+"; ", "; ") + string(choice) + ": " + s.Why
		return tx.Audit(a)
	}
	if s.here.raise {
		if err := audited("raise counter here", ""); err != nil {
			return nil, err
		}
	}
	for _, a := range s.there {
		c, err := tx.Enqueue(vault.Change{
			Kind: a.kind, Token: t.ID, User: a.user, Generation: t.Generation, Counter: t.Counter, Digits: t.Digits,
		})
		if err != nil {
			return nil, err
		}
		if err := audited(string(a.kind), a.user); err != nil {
			return nil, err
		}
		seqs = append(seqs, c.Seq)
	}
	return seqs, nil
}
