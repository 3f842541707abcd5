package provision

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// seedSize is 160 bits, what RFC 4226 section 4 (R6) recommends and YubiKeys hold.
const seedSize = 20

// program writes the sealed seed into the device. After a crash nobody knows whether the write before
// it took, so it is written again: under the vault's access code if it did, without one if it did not.
func program(ctx context.Context, w *work) error {
	var seed, code secret.Secret
	err := w.Vault.View(func(tx *vault.Tx) (err error) {
		if seed, err = tx.Seed(w.job.Token, w.params.Generation); err != nil {
			return err
		}
		code, err = codeFor(tx, w.job.Token)
		return err
	})
	if err != nil {
		return err
	}
	defer seed.Wipe()
	defer code.Wipe()
	c := device.HOTPConfig{
		Seed: seed, Digits: w.params.Digits, StartCounter: w.params.StartCounter,
		TokenIdentifier: w.params.Identifier, Enter: w.params.Enter,
	}
	if shared(w.job.Token) {
		if err := w.unlock(ctx, w.device, w.job.Token); err != nil {
			return err
		}
		c.CurrentAccessCode = code
		if _, err := w.announce(ctx, w.device); err != nil {
			return err
		}
		return w.device.Program(ctx, c)
	}
	c.NewAccessCode = code
	state, err := w.device.Describe(ctx)
	if err != nil {
		return err
	}
	if state.Configured || state.Stale {
		c.CurrentAccessCode = code
	}
	err = w.device.Program(ctx, c)
	if rejected := (*device.RejectedError)(nil); c.CurrentAccessCode.IsZero() || !errors.As(err, &rejected) {
		return err
	}
	if (w.job.Kind == planEnroll || w.params.Fresh) && !w.params.Occupied && !w.params.Written && !state.Stale {
		return refuse("give the "+w.job.Kind+" up with tokendesk resolve --undo, and look what it is used for",
			"%s was empty when the %s began and now holds something that the desk did not write", w.job.Token.Place(), w.job.Kind)
	}
	c.CurrentAccessCode = secret.Secret{}
	return w.device.Program(ctx, c)
}

// announce asks for the touch by which some devices have it confirmed that what a token holds is erased or replaced, if it holds
// something.
func (w *work) announce(ctx context.Context, t device.HOTPToken) (state device.State, err error) {
	state, err = t.Describe(ctx)
	if row, _ := device.ApplicationOf(w.job.Token); err == nil && state.Configured && row.Confirms {
		w.tell(Progress{Kind: Touch, Text: "touch the key, to let it erase what it holds"})
	}
	return state, err
}

// written remembers that the device has held the sealed seed.
func written(_ *vault.Tx, w *work, _ time.Time) error {
	w.params.Written = true
	return nil
}

// verify captures codes from the very device that was programmed, or takes typed ones, until two consecutive
// ones prove that it holds the sealed seed and, where there was another one before, that it no longer holds that.
func verify(ctx context.Context, w *work) error {
	var seed, old secret.Secret
	before := vault.Token{}
	err := w.Vault.View(func(tx *vault.Tx) (err error) {
		if seed, err = tx.Seed(w.job.Token, w.params.Generation); err != nil {
			return err
		}
		t, err := tx.Token(w.job.Token)
		if err != nil || t.Generation == 0 || t.Generation == w.params.Generation {
			return err
		}
		before = t
		old, err = tx.Seed(w.job.Token, t.Generation)
		return err
	})
	if err != nil {
		return err
	}
	defer seed.Wipe()
	defer old.Wipe()
	if w.params.Typed && len(w.typed) == 0 {
		return ErrCodesWanted
	}
	p := proof{seed: seed, digits: w.params.Digits, start: w.params.StartCounter, old: old, oldCounter: before.Counter}
	accept := func(codes []string) (ok bool, err error) {
		w.found, ok, err = p.check(codes)
		switch {
		case ok:
			w.params.Proof = p.shown(w.found, w.params.Generation, before.Generation)
			w.params.Proof.Typed = len(w.typed) > 0
		case errors.Is(err, errBoth) && len(w.typed) == 0:
			w.tell(Progress{Kind: Note, Text: "by chance a code fits the old seed as well: one more touch tells"})
			err = nil
		}
		return ok, err
	}
	if len(w.typed) > 0 {
		if ok, err := accept(w.typed); err != nil || ok {
			return err
		}
		return ErrMismatch
	}
	return w.capture(ctx, w.device, w.job.Token, accept, w.tell)
}

// activate records what verify found and destroys the seeds before it, with what still waited to push them.
func activate(tx *vault.Tx, w *work, now time.Time) error {
	t, err := tx.Token(w.job.Token)
	if err != nil {
		return err
	}
	generations, err := tx.Generations(t.ID)
	if err != nil {
		return err
	}
	waiting, err := tx.ChangesOf(t.ID)
	if err != nil {
		return err
	}
	for _, c := range waiting {
		if c.Generation != w.params.Generation && (c.Kind == vault.Put || c.Kind == vault.Enable) {
			if err := tx.DeleteChange(c.Seq); err != nil {
				return err
			}
		}
	}
	for _, g := range generations {
		if g != w.params.Generation {
			if err := tx.DeleteSeed(t.ID, g); err != nil {
				return err
			}
		}
	}
	t.Status, t.Generation, t.Counter = vault.Active, w.params.Generation, w.found
	t.Emulated = t.Emulated || w.params.Emulated
	t.ReseedDue, t.Stale = false, false
	t.Digits, t.Identifier, t.Enter, t.LastUsed = w.params.Digits, w.params.Identifier, w.params.Enter, now
	return tx.PutToken(t)
}

// assign gives the verified token to its user and leaves word of both for the central service.
func assign(tx *vault.Tx, w *work, _ time.Time) error {
	t, err := tx.Token(w.job.Token)
	if err != nil {
		return err
	}
	t.Owner, t.Replaces, t.ReplacedBy = w.params.User, w.params.Old, ""
	if err := errors.Join(tx.PutToken(t), replacedBy(tx, w.params.Old, t.ID)); err != nil {
		return err
	}
	if _, err := w.push(tx, t, vault.Put, t.Owner); err != nil || t.Owner == "" {
		return err
	}
	_, err = w.push(tx, t, vault.Assign, t.Owner)
	return errors.Join(err, w.notify(tx, NoticeInvitation, t.ID, t.Owner, "", w.params.Reason))
}

// push leaves a change of t for the central service. What gives it to somebody goes after what cuts off who had it, or what it
// replaces.
func (w *work) push(tx *vault.Tx, t vault.Token, kind vault.ChangeKind, user string) (vault.Change, error) {
	c := changeOf(t, kind, user)
	if !kind.CutOff() {
		var err error
		if c.After, err = w.cutOffWaits(tx); err != nil {
			return c, err
		}
	}
	c, err := tx.Enqueue(c)
	w.left = append(w.left, c)
	return c, err
}

func enqueue(tx *vault.Tx, t vault.Token, kind vault.ChangeKind, user string) (vault.Change, error) {
	return tx.Enqueue(changeOf(t, kind, user))
}

func changeOf(t vault.Token, kind vault.ChangeKind, user string) vault.Change {
	return vault.Change{Kind: kind, Token: t.ID, User: user, Generation: t.Generation, Counter: t.Counter, Digits: t.Digits}
}

// inspect reads what an inserted device says of a token, before anything is decided.
func (r *Runner) inspect(ctx context.Context, id device.TokenID) (state device.State, emulated bool, err error) {
	err = r.Open(ctx, id, func(t device.HOTPToken, e bool) (err error) {
		emulated = e
		if err := r.unlock(ctx, t, id); err != nil {
			return err
		}
		state, err = t.Describe(ctx)
		return err
	})
	if err != nil {
		return state, emulated, err
	}
	if want, _ := id.Device().Serial(); state.Serial != want {
		return state, emulated, fmt.Errorf("the inserted key says it is %s, not %s: pull all keys and insert the right one", state.Serial, want)
	}
	return state, emulated, nil
}

// checkUser refuses a user who cannot get a token, as far as that is known now, and returns the user's proper name. Until
// release is called nobody else gets one for that user: two officers would each find that there is none yet.
func (r *Runner) checkUser(ctx context.Context, user string) (name string, release func(), err error) {
	if user == "" || r.CheckUser == nil {
		return user, func() {}, nil
	}
	if release, err = r.claim("for "+strings.ToLower(user), "for "+user); err != nil {
		return "", nil, err
	}
	if name, err = r.CheckUser(ctx, user); err != nil {
		release()
		return "", nil, err
	}
	return name, release, nil
}
