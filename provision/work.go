package provision

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// params is what a job has to remember between its steps. It holds no secret.
type params struct {
	User         string         `json:"user,omitempty"`
	Tenant       string         `json:"tenant,omitempty"` // of a token that is new
	Digits       int            `json:"digits"`
	StartCounter uint64         `json:"start_counter"`
	Identifier   bool           `json:"identifier"`
	Enter        bool           `json:"enter"`
	Generation   int            `json:"generation"`         // of the seed being programmed
	Leaver       string         `json:"leaver,omitempty"`   // reissue, wipe: who had the token
	CutOff       uint64         `json:"cut_off,omitempty"`  // reissue: the outbox entry that cuts the leaver off
	Anyway       bool           `json:"anyway,omitempty"`   // reissue: go on although that is not confirmed
	GivenUp      bool           `json:"given_up,omitempty"` // reissue: officers have given that up, and the service was never told
	Serial       device.Serial  `json:"serial"`
	Firmware     device.Version `json:"firmware"`
	Emulated     bool           `json:"emulated"`
	Occupied     bool           `json:"occupied,omitempty"` // enroll: the slot held something before
	Written      bool           `json:"written,omitempty"`  // the device has confirmed the seed at least once
	Typed        bool           `json:"typed,omitempty"`    // verify by codes that somebody types in, not by captured ones
	Reason       string         `json:"reason,omitempty"`   // the officer's words
	Proof        vault.Proof    `json:"proof,omitzero"`     // what the codes have shown

	// Of a replacement:
	Old       device.TokenID `json:"old,omitempty"` // in whose place the token comes
	OldSerial device.Serial  `json:"old_serial,omitempty"`
	OldEnd    OldEnd         `json:"old_end,omitzero"`
	Fresh     bool           `json:"fresh,omitempty"` // the token was not in the inventory before

	// Of PIV applications:
	Keys       []device.PIVKeySpec `json:"keys,omitempty"`       // to be made
	Subject    string              `json:"subject,omitempty"`    // of their requests
	Overwrite  bool                `json:"overwrite,omitempty"`  // an officer has said that what the card holds may go
	Recognized bool                `json:"recognized,omitempty"` // the card has shown that it is the one on record, before it was reset
	Revoke     []vault.Revocation  `json:"revoke,omitempty"`     // what has to be revoked because of this
	CardOf     *string             `json:"card_of,omitempty"`    // reissue: another tenant, whose card may be reset with its key
}

// work is a job being carried out.
type work struct {
	*Runner
	by     audit.Officer
	job    vault.Job
	began  int // the step it went on from
	params params
	tell   Tell
	device device.HOTPToken // while the step's device is lent
	piv    device.PIV       // or its PIV application
	typed  []string         // verify: codes that somebody has typed in
	there  census           // cut-off: who has tokens elsewhere
	found  uint64           // verify: the next moving factor
	made   []device.PIVKey  // attest: what the card has proven
	asked  []PIVRequest     // request
	other  string           // what the step's act has come to, if not to what the plan says
	left   []vault.Change   // what was left for the central service
}

// step is one entry of a plan.
type step struct {
	name string
	done string // what an officer reads afterwards, worded
	// device says that act works on the inserted device. It is held from one such step to the next,
	// so that no touch in between reaches another window.
	device bool
	piv    bool // so it is on the device's PIV application
	// repeat has Resolve start with the step before: what that one wrote may have been lost since, and
	// writing it again does no harm.
	repeat bool
	act    func(ctx context.Context, w *work) error         // effect outside the vault; may be repeated
	commit func(tx *vault.Tx, w *work, now time.Time) error // change inside it, together with the journal
	gives  bool                                             // it ends with the token in somebody's hands, as the codes have proven
}

// begin carries out a new job. It enters the journal together with what its first step commits.
func (r *Runner) begin(ctx context.Context, kind string, by audit.Officer, id device.TokenID, p params, tell Tell) ([]vault.Change, error) {
	return r.job(kind, by, id, p, tell).run(ctx)
}

func (r *Runner) job(kind string, by audit.Officer, id device.TokenID, p params, tell Tell) *work {
	return &work{Runner: r, by: by, params: p, tell: tell, job: vault.Job{
		Kind: kind, Token: id, Officer: by.Name, Created: time.Now().UTC(),
	}}
}

// run carries out the steps that are left, and returns what they left for the central service.
func (w *work) run(ctx context.Context) ([]vault.Change, error) {
	plan := plans()[w.job.Kind]
	w.began = w.job.Step
	for w.job.Step < len(plan) {
		var err error
		switch s := plan[w.job.Step]; {
		case s.device:
			err = w.Open(ctx, w.job.Token, func(t device.HOTPToken, emulated bool) error {
				w.device = t
				defer func() { w.device = nil }()
				return w.runHeld(ctx, plan, emulated)
			})
		case s.piv:
			err = w.openPIV(ctx, w.job.Token.Device(), func(p device.PIV, emulated bool) error {
				w.piv = p
				defer func() { w.piv = nil }()
				return w.runHeld(ctx, plan, emulated)
			})
		default:
			err = w.runStep(ctx, plan)
		}
		if err != nil {
			return w.left, w.park(plan, err)
		}
	}
	return w.left, w.remind()
}

// runHeld carries out the steps up to the first that does not work on what is held.
func (w *work) runHeld(ctx context.Context, plan []step, emulated bool) error {
	w.params.Emulated = w.params.Emulated || emulated
	first := plan[w.job.Step]
	for w.job.Step < len(plan) && plan[w.job.Step].device == first.device && plan[w.job.Step].piv == first.piv {
		if err := w.runStep(ctx, plan); err != nil {
			return err
		}
	}
	return nil
}

// remind adds a cut-off of an earlier run that is not confirmed yet to what was left: until it is, somebody can still log in.
func (w *work) remind() error {
	if slices.ContainsFunc(w.left, func(c vault.Change) bool { return c.Seq == w.params.CutOff }) {
		return nil
	}
	return w.Vault.View(func(tx *vault.Tx) error {
		seq, err := w.cutOffWaits(tx)
		if err != nil || seq == 0 {
			return err
		}
		c, err := tx.ChangeAt(seq)
		w.left = append([]vault.Change{c}, w.left...)
		return err
	})
}

// runStep carries out a step, and those after it that have no effect outside the vault: they are one transaction.
func (w *work) runStep(ctx context.Context, plan []step) error {
	w.other = ""
	if act := plan[w.job.Step].act; act != nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := act(ctx, w); err != nil {
			return err
		}
	}
	steps := plan[w.job.Step:next(plan, w.job.Step)]
	job, p, left := w.job, w.params, w.left
	err := w.Vault.Update(func(tx *vault.Tx) error {
		w.job, w.params, w.left = job, p, left
		now := time.Now().UTC()
		for i, s := range steps {
			if s.commit != nil {
				if err := s.commit(tx, w, now); err != nil {
					return err
				}
			}
			outcome := ""
			switch {
			case s.gives:
				outcome = proven(w.params.Proof)
			case i == 0:
				outcome = w.other
			}
			if err := w.record(tx, w.job.Kind+": "+s.name, outcome); err != nil {
				return err
			}
			if s.gives && w.job.Kind != planReseed {
				if err := w.handOver(tx); err != nil {
					return err
				}
			}
			w.job.Step++
		}
		w.job.Problem = ""
		w.job.Updated = now
		if w.job.Step == len(plan) {
			return tx.DeleteJob(w.job.ID)
		}
		raw, err := json.Marshal(w.params)
		if err != nil {
			return err
		}
		w.job.Params = raw
		return tx.PutJob(&w.job)
	})
	if err != nil {
		if !errors.Is(err, vault.ErrUnanchored) { // else it is recorded, and the work goes on from there
			w.job, w.params, w.left = job, p, left
		} else {
			w.wake()
		}
		return err
	}
	for i, s := range steps {
		text := worded(s.done, w.job.Token)
		if i == 0 && w.other != "" {
			text = w.other
		}
		w.checkpoint(w.job.Kind, s.name)
		w.tell(Progress{Kind: Done, Step: s.name, Text: text})
	}
	w.tellDue(len(p.Revoke))
	w.wake()
	return nil
}

// worded puts what a token is, and what protects it, in place of %s and %c.
func worded(text string, id device.TokenID) string {
	code := " and access code"
	if shared(id) {
		code = ""
	}
	return strings.NewReplacer("%s", id.Noun(), "%c", code).Replace(text)
}

// next is the first step after step i that is not in one transaction with it.
func next(plan []step, i int) int {
	for i++; i < len(plan) && plan[i].act == nil; i++ {
	}
	return i
}

// record adds an act on the work's token to the audit trail: for whom it is, or else against whom, what it has come to or what
// was proven, and why.
func (w *work) record(tx *vault.Tx, action, outcome string) error {
	act := vault.Done(w.by, action, w.job.Token, cmp.Or(w.params.User, w.params.Leaver))
	return tx.Audit(explained(act, outcome, w.params.Reason))
}

// undoable tells whether the work can be given up: nothing is sealed yet for a device that has had another seed.
func (w *work) undoable(plan []step) bool {
	switch w.job.Kind {
	case planEnroll, planUnchanged, planPIV, planPIVUnblock:
		return true
	case planReissue, planAbsent, planReplace:
		return w.params.Fresh || w.job.Step <= slices.IndexFunc(plan, func(s step) bool { return s.name == stepSeal })
	}
	return false
}

// park notes in the journal why the work stopped. The job stays where it is.
func (w *work) park(plan []step, cause error) error {
	if w.job.ID == 0 || w.job.Step == len(plan) { // nothing has happened yet, or everything
		return cause
	}
	if errors.Is(cause, context.Canceled) {
		cause = fmt.Errorf("it was interrupted, or the desk was stopped: %w", cause)
	}
	stopped := &UnfinishedError{Token: w.job.Token, Plan: w.job.Kind, Step: plan[w.job.Step].name, Undo: w.undoable(plan), Err: cause}
	w.job.Problem = cause.Error()
	w.job.Updated = time.Now().UTC()
	if err := w.Vault.Update(func(tx *vault.Tx) error { return tx.PutJob(&w.job) }); err != nil {
		return errors.Join(stopped, err)
	}
	return stopped
}
