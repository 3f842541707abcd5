package notice

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"tokendesk/vault"
)

const (
	// pageSize is how many notices are in memory at a time.
	pageSize = 64
	// patience is how many mails in a row the line may break at before that is the server's fault.
	patience = 3
)

// pass is one way through the notices, in their order. A later notice to somebody waits for an earlier one that has a pause:
// "switched off" must not be what they read last.
type pass struct {
	*Queue
	trail   string
	session *session
	held    map[string]bool // users, folded, with a notice that waits
	due     time.Time       // when the first pause ends
	breaks  int             // of the line, one after the other
}

func (q *Queue) pass(ctx context.Context) (due time.Time, err error) {
	if until := q.away(); !until.IsZero() {
		return until, nil
	}
	p := &pass{Queue: q, held: map[string]bool{}}
	defer func() {
		if p.session != nil {
			p.session.close()
		}
	}()
	for after := uint64(0); ; {
		var page []vault.Notice
		if err := q.v.View(func(tx *vault.Tx) (err error) { page, err = tx.Notices(after, pageSize); return err }); err != nil || len(page) == 0 {
			return p.due, err
		}
		for _, n := range page {
			after = n.ID
			if gone, err := p.treat(ctx, n); err != nil || gone {
				return p.due, err
			}
		}
	}
}

// treat sends a notice that is due. Gone says that nothing more can be sent now; an error, that the vault has failed.
func (p *pass) treat(ctx context.Context, n vault.Notice) (gone bool, err error) {
	who := strings.ToLower(n.User)
	switch {
	case n.Parked:
		return false, nil
	case p.held[who]:
		return false, nil
	case p.waits(n.NotBefore):
		p.held[who] = true
		p.pause(n.NotBefore)
		return false, nil
	}
	failure := p.deliver(ctx, n)
	if ctx.Err() != nil { // which says nothing about the notice
		return true, ctx.Err()
	}
	if isUnusable(failure) {
		return true, failure
	}
	refused := (*refusedError)(nil)
	about := failure == nil || errors.As(failure, &refused) // this notice
	if p.breaks++; about && (refused == nil || !refused.broken) {
		p.breaks = 0
	}
	if !about || p.breaks == patience {
		p.due = p.out(failure)
		p.log.Warn("cannot send notices", "problem", failure, "again", p.due)
		return true, p.fail(n, failure, false, time.Time{})
	}
	p.back()
	switch {
	case failure == nil:
		return false, p.record(n)
	case refused.permanent:
		return false, p.fail(n, failure, true, time.Time{})
	}
	again := p.now().UTC().Add(p.c.pause(n.Attempts + 1))
	p.held[who] = true
	p.pause(again)
	return false, p.fail(n, failure, false, again)
}

// deliver sends a mail, unless that was done already. An error that is not about this notice alone is no refusedError.
func (p *pass) deliver(ctx context.Context, n vault.Notice) error {
	if p.sent[n.ID] {
		return nil
	}
	to, err := p.c.Address(ctx, n.User)
	if errors.Is(err, ErrNoAddress) {
		return &refusedError{permanent: true, text: said(err).Error()}
	}
	if err != nil {
		return fmt.Errorf("cannot look up the address of %s: %w", n.User, err)
	}
	if err := CheckAddress(to); err != nil {
		return &refusedError{permanent: true, text: fmt.Sprintf("the address of %s: %v", n.User, err)}
	}
	if p.trail == "" {
		if p.trail, err = p.Queue.trail(); err != nil {
			return err
		}
	}
	message, err := compose(n, p.trail, p.c.From, p.c.ReplyTo, to, p.c.Templates)
	if err != nil {
		return &refusedError{permanent: true, text: "its words: " + said(err).Error()}
	}
	if err := p.hand(ctx, to, message); err != nil {
		return err
	}
	p.sent[n.ID] = true
	return nil
}

// hand hands a mail in, in the session of the mail before if the server keeps it open.
func (p *pass) hand(ctx context.Context, to string, message []byte) (err error) {
	reused := p.session != nil
	if !reused {
		if p.session, err = p.c.Server.open(ctx); err != nil {
			return err
		}
	}
	err = p.session.send(p.c.From.Address, to, message)
	refused := (*refusedError)(nil)
	if err == nil || errors.As(err, &refused) && p.session.forget() == nil {
		return err
	}
	p.session.close()
	p.session = nil
	if reused && refused == nil && ctx.Err() == nil { // it may take only so many mails in a session
		return p.hand(ctx, to, message)
	}
	return err
}

// record takes a notice that was sent out of the vault.
func (p *pass) record(n vault.Notice) error {
	err := p.v.Update(func(tx *vault.Tx) error {
		if err := tx.DeleteNotice(n.ID); err != nil {
			if errors.Is(err, vault.ErrNotFound) {
				return nil // discarded meanwhile
			}
			return err
		}
		return tx.Audit(vault.Done(desk, "notify "+n.Kind, n.Token, n.User))
	})
	if err == nil || errors.Is(err, vault.ErrUnanchored) { // which is recorded all the same
		delete(p.sent, n.ID)
		p.log.Info("sent a notice", "notice", n.ID, "kind", n.Kind, "token", n.Token, "user", n.User)
	}
	return err
}

// fail notes why a notice could not be sent in what it is by now.
func (p *pass) fail(n vault.Notice, failure error, parked bool, again time.Time) error {
	problem := failure.Error()
	err := p.v.Update(func(tx *vault.Tx) error {
		now, err := tx.Notice(n.ID)
		if errors.Is(err, vault.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		now.Attempts++
		now.Problem, now.NotBefore, now.Parked = problem, again, parked
		if parked {
			act := vault.Done(desk, "notify "+n.Kind, n.Token, n.User)
			act.Outcome, act.Reason = "parked", act.Reason+"; "+problem
			if err := tx.Audit(act); err != nil {
				return err
			}
		}
		return tx.PutNotice(&now)
	})
	switch {
	case err != nil:
	case parked:
		p.log.Warn("parked a notice", "notice", n.ID, "kind", n.Kind, "user", n.User, "problem", problem)
	default:
		p.log.Info("cannot send a notice yet", "notice", n.ID, "kind", n.Kind, "user", n.User, "problem", problem, "again", again)
	}
	return err
}

// pause notes when a pause ends.
func (p *pass) pause(until time.Time) {
	if p.due.IsZero() || until.Before(p.due) {
		p.due = until
	}
}
