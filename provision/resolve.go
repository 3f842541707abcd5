package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

// Resolve goes on with the unfinished work on a token, from the step it stopped at. Work that stopped at the
// verification programs the device once more, so that two touches settle it whatever the device holds now; unless
// codes are given, which the device has typed since it was programmed.
func (r *Runner) Resolve(ctx context.Context, by audit.Officer, id device.TokenID, codes []string, tell Tell) ([]vault.Change, error) {
	release, err := r.Claim(id)
	if err != nil {
		return nil, err
	}
	defer release()
	w, err := r.load(by, id, tell)
	if err != nil {
		return nil, err
	}
	plan := plans()[w.job.Kind]
	switch {
	case len(codes) > 0 && plan[w.job.Step].name != "verify" && plan[w.job.Step].name != stepCodes:
		return nil, refuse("settle it without codes: tokendesk resolve "+string(id), "%s of %s stopped at %q, before any codes", w.job.Kind, id, plan[w.job.Step].name)
	case len(codes) > 0:
		w.typed = codes
	case plan[w.job.Step].repeat:
		w.params.Typed = false
		tell(Progress{Kind: Note, Text: "the sealed seed is programmed once more, and then verified"})
		w.job.Step--
	}
	return w.run(ctx)
}

// ResolveOffline goes on with a reissue although the central service has not confirmed its cut-off. It takes a reason.
func (r *Runner) ResolveOffline(ctx context.Context, by audit.Officer, id device.TokenID, reason string, tell Tell) ([]vault.Change, error) {
	reason, err := sensible(reason)
	if err != nil {
		return nil, err
	}
	release, err := r.Claim(id)
	if err != nil {
		return nil, err
	}
	defer release()
	w, err := r.load(by, id, tell)
	if err != nil {
		return nil, err
	}
	switch at := plans()[w.job.Kind][w.job.Step].name; {
	case at != stepConfirm:
		return nil, refuse("settle it without: tokendesk resolve "+string(id), "%s of %s stopped at %q, and no cut-off is waited for", w.job.Kind, id, at)
	case reason == "":
		return nil, refuse("say why: --reason WORDS", "to go on before the cut-off is confirmed takes a reason")
	}
	w.params.Anyway, w.params.Reason = true, reason
	return w.run(ctx)
}

// Undo erases what an unfinished enroll, or a replacement by a new device, has left, on the device and in the vault. Of a
// reissue that has not sealed a new seed yet, only the rest is called off: the token stays in stock, and the old owner cut off.
// Nothing else can be undone.
func (r *Runner) Undo(ctx context.Context, by audit.Officer, id device.TokenID, tell Tell) error {
	release, err := r.Claim(id)
	if err != nil {
		return err
	}
	defer release()
	w, err := r.load(by, id, tell)
	if err != nil {
		return err
	}
	switch w.job.Kind {
	case planReissue, planAbsent, planReplace, planUnchanged:
		plan := plans()[w.job.Kind]
		switch begun := w.job.Step > slices.IndexFunc(plan, func(s step) bool { return s.name == stepSeal }); {
		case !w.undoable(plan):
			return refuse("finish it: tokendesk resolve "+string(id), "this %s cannot be undone any more: a new seed is sealed for the key", w.job.Kind)
		case !w.params.Fresh || !begun:
			return w.callOff()
		}
	case planPIV:
		return w.undoPIV(ctx)
	case planPIVUnblock:
		return w.dropUnblock()
	case planReseed:
		return keepOn(id)
	case planWipe, planPIVWipe:
		return refuse(fmt.Sprintf("finish it: tokendesk resolve %s; or, without the key: tokendesk delete %s", id, id), "this wipe cannot be undone: the key may be erased")
	}
	var erased bool
	err = w.Open(ctx, id, func(t device.HOTPToken, _ bool) (err error) { erased, err = w.erase(ctx, t); return err })
	if err != nil {
		return fmt.Errorf("cannot erase %s: %w", id.Place(), err)
	}
	if erased {
		tell(Progress{Kind: Done, Step: "erase", Text: id.Noun() + " erased"})
	} else {
		tell(Progress{Kind: Note, Text: "the " + id.Noun() + " never took the desk's seed and refuses to be erased: it was left as it is"})
	}
	err = r.Vault.Update(func(tx *vault.Tx) error {
		if err := tx.DeleteJob(w.job.ID); err != nil {
			return err
		}
		return errors.Join(tx.DeleteToken(id), tx.RaiseTombstone(id, w.params.Generation), forgetPassword(tx, id), w.record(tx, "undo "+w.job.Kind, ""))
	})
	if err != nil {
		return err
	}
	tell(Progress{Kind: Done, Step: "undo", Text: "seed and record removed from the vault"})
	return nil
}

// callOff ends a reissue that has not touched the device.
func (w *work) callOff() error {
	err := w.Vault.Update(func(tx *vault.Tx) error {
		err := tx.DeleteJob(w.job.ID)
		switch {
		case err != nil:
		case w.params.Fresh:
			err = withdraw(tx, w.job.Token)
		case w.job.Kind == planReissue && reseedable(w.job.Token) && !w.atHand(w.job.Token):
			err = reseedLater(tx, w.job.Token)
		}
		return errors.Join(err, w.record(tx, "undo "+w.job.Kind, ""))
	})
	if err != nil {
		return err
	}
	text := "reissue called off; the token is stock, with its old seed, and the cut-off of its old owner stands"
	if w.job.Kind == planReplace {
		text = fmt.Sprintf("replacement called off; what became of %s stands", w.params.Old)
	}
	w.tell(Progress{Kind: Done, Step: "undo", Text: text})
	return nil
}

// withdraw takes out a token for which nothing was sealed. An access code is of an earlier one of its name, and may protect the
// slot still.
func withdraw(tx *vault.Tx, id device.TokenID) error {
	code, err := tx.AccessCode(id)
	if errors.Is(err, vault.ErrNotFound) {
		return tx.DeleteToken(id)
	}
	if err != nil {
		return err
	}
	defer code.Wipe()
	if err := tx.DeleteToken(id); err != nil {
		return err
	}
	return tx.SetAccessCode(id, code)
}

// reseedLater remembers of a token whose device is gone that whoever has that has the seed.
func reseedLater(tx *vault.Tx, id device.TokenID) error {
	t, err := tx.Token(id)
	if err != nil {
		return err
	}
	t.ReseedDue = true
	return tx.PutToken(t)
}

// erase empties the slot if it holds our seed, or may. A slot that was protected by somebody else's code all
// the time cannot, and is left alone.
func (w *work) erase(ctx context.Context, t device.HOTPToken) (erased bool, err error) {
	var code secret.Secret
	err = w.Vault.View(func(tx *vault.Tx) (err error) {
		code, err = codeFor(tx, w.job.Token)
		return err
	})
	if err != nil {
		return false, err
	}
	defer code.Wipe()
	if err := w.unlock(ctx, t, w.job.Token); err != nil {
		return false, err
	}
	state, err := w.announce(ctx, t)
	if err != nil || !state.Configured && !state.Stale {
		return err == nil, err
	}
	err = t.Delete(ctx, code)
	if rejected := (*device.RejectedError)(nil); errors.As(err, &rejected) {
		if w.params.Occupied && !w.params.Written {
			return false, nil
		}
		err = fmt.Errorf("%w; the %s no longer holds what the desk wrote: erase it with the program that changed it, and repeat", err, w.job.Token.Noun())
	}
	return err == nil, err
}

// Desk is who finishes interrupted work at start.
var Desk = audit.Officer{UID: audit.DeskUID, Name: "tokendeskd"}

// Recover finishes, at start, the jobs whose remaining steps need neither a device nor an answer, and says which wait.
func (r *Runner) Recover(ctx context.Context) error {
	var jobs []vault.Job
	if err := r.Vault.View(func(tx *vault.Tx) (err error) { jobs, err = tx.Jobs(); return err }); err != nil {
		return err
	}
	for _, job := range jobs {
		plan, known := plans()[job.Kind]
		if !known || job.Step >= len(plan) {
			return fmt.Errorf("the journal holds a %q of %s that this version does not know: run the version that wrote it", job.Kind, job.Token)
		}
		finish := true
		for _, s := range plan[job.Step:] {
			finish = finish && s.act == nil
		}
		if !finish {
			r.Log.Warn("unfinished work waits for an officer", "plan", job.Kind, "token", job.Token, "step", plan[job.Step].name, "cure", "tokendesk resolve "+string(job.Token))
			continue
		}
		if err := r.finish(ctx, job); err != nil {
			r.Log.Error("cannot finish interrupted work", "token", job.Token, "error", err)
			continue
		}
		r.Log.Info("finished interrupted work", "plan", job.Kind, "token", job.Token)
	}
	return nil
}

// finish goes on with a job in the desk's name, unless an officer does something with its token just now.
func (r *Runner) finish(ctx context.Context, job vault.Job) error {
	release, err := r.Claim(job.Token)
	if err != nil {
		return err
	}
	defer release()
	w, err := r.load(Desk, job.Token, func(Progress) {})
	if err == nil {
		_, err = w.run(ctx)
	}
	return err
}

func (r *Runner) load(by audit.Officer, id device.TokenID, tell Tell) (*work, error) {
	w := &work{Runner: r, by: by, tell: tell}
	err := r.Vault.View(func(tx *vault.Tx) error {
		job, found, err := tx.JobFor(id)
		if err != nil {
			return err
		}
		if !found {
			return refuse("", "there is nothing to resolve: no work on %s is unfinished", id)
		}
		w.job = job
		return json.Unmarshal(job.Params, &w.params)
	})
	return w, err
}

// JobsFor lists the unfinished work that is to give user a token of which the central service is told.
func JobsFor(tx *vault.Tx, user string) (found []vault.Job, err error) {
	jobs, err := tx.Jobs()
	for _, job := range jobs {
		var p params
		if err := json.Unmarshal(job.Params, &p); err != nil {
			return nil, err
		}
		if user != "" && strings.EqualFold(p.User, user) && TypeOf(job.Token).Told() {
			found = append(found, job)
		}
	}
	return found, err
}

// Waiting says in words where an unfinished job stands.
func Waiting(job vault.Job) string {
	plan := plans()[job.Kind]
	if job.Step >= len(plan) {
		return job.Kind
	}
	if plan[job.Step].name == stepDevice && strings.HasPrefix(job.Problem, ErrDeviceWanted.Error()) {
		return fmt.Sprintf("its reissue waits for the device: insert %s", job.Token.Device())
	}
	text := fmt.Sprintf("%s stopped at %q", job.Kind, plan[job.Step].name)
	if job.Problem != "" {
		text += ": " + job.Problem
	}
	return text
}

// Awaited tells of a reissue that waits for its device who was cut off, if anybody, and whom it is for.
func (r *Runner) Awaited(id device.TokenID) (leaver, user string, err error) {
	w, err := r.load(audit.Officer{}, id, func(Progress) {})
	return w.params.Leaver, w.params.User, err
}
