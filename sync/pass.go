package syncer

import (
	"context"
	"errors"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
)

// pass is one way through the outbox. It goes by cursors: the cut-offs first, then, one by one, what somebody waits for and the
// rest in the order of Seq; but before each of these come the cut-offs that are new. So each entry is tried once, and only one is
// in memory at a time.
type pass struct {
	*Outbox
	cut   uint64 // cut-offs up to here were looked at
	after uint64 // and everything else up to here
	row   row    // what is wanted before its turn

	cutDue  time.Time // when the first pause of a cut-off ends
	due     time.Time // when the first pause ends; zero if none is waited for
	moved   bool      // something else was delivered since the cut-offs were last gone through
	waiting bool      // something waits for other entries
	freed   bool      // one that it may have waited for was delivered out of its turn
	gone    bool      // the service does not answer
	apart   bool      // a provider that it needs to remove what is closed does not
}

// row is the entries of one token up to one of them, and the place among them.
type row struct {
	token    device.TokenID
	at, upto uint64
}

// turn says why an entry is looked at.
type turn int

const (
	asCutOff turn = iota
	asWanted
	asNext
)

// examined is how many entries are looked at in one transaction.
const examined = 256

// pass delivers until nothing is left that can be tried now, each entry at most once, and returns when
// the next pause ends (zero if none does). An outcome that the vault does not take keeps it from nothing else:
// the entry stays, and the error is returned at the end.
func (o *Outbox) pass(ctx context.Context) (due time.Time, err error) {
	if o.c == nil {
		return time.Time{}, ctx.Err()
	}
	select {
	case <-o.turn:
		defer func() { o.turn <- struct{}{} }()
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
	defer o.rest()
	defer func() {
		if lost := o.record(); err == nil {
			err = lost
		}
	}()
	p := &pass{Outbox: o}
	for !p.gone {
		if err := ctx.Err(); err != nil {
			return time.Time{}, err
		}
		a, ok, err := p.next(ctx)
		if err != nil {
			return time.Time{}, err
		}
		if !ok {
			if !p.again() {
				break
			}
			continue
		}
		if err := p.deliver(ctx, a); isFinal(ctx, err) || isUnusable(err) {
			return time.Time{}, err
		}
	}
	return p.due, nil
}

// again begins anew if something that was passed by may go now.
func (p *pass) again() bool {
	if !p.freed {
		return false
	}
	p.after, p.waiting, p.freed = 0, false, false
	return true
}

// next finds the entry to be delivered next; ok is false if there is none now.
func (p *pass) next(ctx context.Context) (a attempt, ok bool, err error) {
	for more := true; more && !ok && err == nil; {
		if err := ctx.Err(); err != nil {
			return attempt{}, false, err
		}
		open := p.books.open() // first: what is recorded after this may be missing in the transaction, but not in open
		err = p.v.View(func(tx *vault.Tx) (err error) {
			a, ok, more, err = p.choose(tx, open)
			return err
		})
	}
	return a, ok, err
}

// choose looks at entries until one can be delivered; more says that there are others.
func (p *pass) choose(tx *vault.Tx, open unrecorded) (a attempt, ok, more bool, err error) {
	s := schedule{tx: tx, open: open, now: p.now(), longest: p.backoff.Max}
	for range examined {
		c, why, found, err := p.candidate(tx)
		if err != nil || !found {
			return attempt{}, false, false, err
		}
		a, token, hold, err := s.consider(c)
		if err != nil {
			return attempt{}, false, false, err
		}
		if hold.Kind == "" && why == asNext && c.Closed && !a.renewed && p.apart {
			continue // as the one did that found it out; due is when that is tried again
		}
		switch hold.Kind {
		case HeldByPause:
			p.pause(c, hold.Until)
		case HeldByEarlier, HeldByAnother, HeldByCutOff:
			p.waiting = true
		case "":
			if why == asNext && p.cutOffsAreDue(s.now) {
				p.cut, p.cutDue, p.moved, p.after = 0, time.Time{}, false, c.Seq-1
				continue
			}
			a.owner, a.why = token.Owner, why
			if a.obsolete == "" {
				a.seed, err = s.seed(c, token)
			}
			return a, err == nil, false, err
		}
	}
	return attempt{}, false, true, nil
}

// candidate returns the next entry to be looked at.
func (p *pass) candidate(tx *vault.Tx) (c vault.Change, why turn, found bool, err error) {
	for {
		cuts, err := tx.CutOffsFrom(p.cut, 1)
		if err != nil {
			return c, 0, false, err
		}
		if len(cuts) == 0 {
			break
		}
		if p.cut = cuts[0].Seq; isUrgent(cuts[0]) {
			return cuts[0], asCutOff, true, nil
		}
	}
	if c, found, err = p.wantedNext(tx); found || err != nil {
		return c, asWanted, found, err
	}
	for {
		rest, err := tx.ChangesFrom(p.after, 1)
		if err != nil || len(rest) == 0 {
			return c, 0, false, err
		}
		if p.after = rest[0].Seq; !isUrgent(rest[0]) {
			return rest[0], asNext, true, nil
		}
	}
}

// isUrgent tells what goes before everything else: cut-offs, but for what is closed already and only to be cleared away.
func isUrgent(c vault.Change) bool { return c.Kind.CutOff() && !c.Closed }

// wantedNext returns the next of the entries that have to go, of one token, until one that is wanted has gone.
func (p *pass) wantedNext(tx *vault.Tx) (vault.Change, bool, error) {
	for {
		seq, err := uint64(0), error(nil)
		if p.row.upto > 0 {
			seq, err = tx.NextOf(p.row.token, p.row.at)
		}
		switch {
		case err != nil:
			return vault.Change{}, false, err
		case seq > 0 && seq <= p.row.upto:
			p.row.at = seq
			c, err := tx.ChangeAt(seq)
			return c, err == nil, err
		}
		p.row = row{}
		wanted := p.nextWanted()
		if wanted == 0 {
			return vault.Change{}, false, nil
		}
		c, err := tx.ChangeAt(wanted)
		if errors.Is(err, vault.ErrNotFound) {
			continue
		}
		if err != nil {
			return vault.Change{}, false, err
		}
		p.row = row{token: c.Token, upto: wanted}
	}
}

// cutOffsAreDue tells whether cut-offs that were paused go first again. They do not if all that has been done since is to try them.
func (p *pass) cutOffsAreDue(now time.Time) bool {
	return p.moved && !p.cutDue.IsZero() && !p.cutDue.After(now)
}

// pause notes when an entry's pause ends.
func (p *pass) pause(c vault.Change, until time.Time) {
	p.due = earlier(p.due, until)
	if isUrgent(c) {
		p.cutDue = earlier(p.cutDue, until)
	}
}

// earlier is the first of two times of which either may be zero, for never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// isFinal tells errors after which nothing can go on from those that pass, such as a full disk.
func isFinal(ctx context.Context, err error) bool {
	return err != nil && (ctx.Err() != nil || errors.Is(err, vault.ErrClosed))
}

// isUnusable tells that the vault is locked, or cannot be used before somebody has mended it.
func isUnusable(err error) bool {
	var state *vault.StateError
	return errors.As(err, &state) && !errors.Is(err, vault.ErrUnanchored)
}
