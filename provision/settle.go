package provision

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// Leave says who leaves.
type Leave struct {
	User      string
	Successor string    // who is to get their tokens; empty: nobody, they go to stock
	Deadline  time.Time // zero: the end of today
	Words     string    // an officer's, up to 200 bytes
}

// maxUser is how long a user's name can be, in bytes.
const maxUser = 64

// normal returns what was said in full, or refuses what cannot be meant.
func (l Leave) normal(now time.Time) (Leave, error) {
	l.Words = strings.TrimSpace(l.Words)
	if l.Deadline.IsZero() {
		l.Deadline = EndOfDay(now)
	}
	l.Deadline = l.Deadline.UTC().Round(0)
	switch {
	case l.User == "":
		return l, refuse("name the user", "nobody is named who leaves")
	case len(l.User) > maxUser, len(l.Successor) > maxUser:
		return l, refuse("", "a name has at most %d bytes", maxUser)
	case strings.EqualFold(l.User, l.Successor):
		return l, refuse("leave the successor out, if there is none", "nobody is their own successor")
	case !l.Deadline.Before(vault.LastMoment) || l.Deadline.Before(time.Unix(0, 0)):
		return l, refuse("give a date of this century", "the deadline is too far away")
	}
	return l, errors.Join(legible("name", l.User, maxUser), legible("name", l.Successor, maxUser), legible("text", l.Words, maxReason))
}

// EndOfDay is the last second of a day, where the desk is.
func EndOfDay(t time.Time) time.Time {
	y, m, d := t.Local().Date()
	return time.Date(y, m, d+1, 0, 0, -1, 0, time.Local)
}

// AddLeavers puts people into the queue, or changes successor, deadline and words of those who are there. It takes nothing from
// anybody. One that is refused keeps no other one out: refusals has an entry for each, nil if it was taken.
func (r *Runner) AddLeavers(by audit.Officer, all []Leave) (added []Leaver, refusals []error, err error) {
	err = r.Vault.Update(func(tx *vault.Tx) error {
		added, refusals = make([]Leaver, len(all)), make([]error, len(all))
		for i, l := range all {
			l, err := l.normal(time.Now())
			if err != nil {
				refusals[i] = err
				continue
			}
			if added[i], err = l.add(tx, by); err != nil {
				return err
			}
		}
		return nil
	})
	return added, refusals, err
}

func (l Leave) add(tx *vault.Tx, by audit.Officer) (Leaver, error) {
	put := vault.Leaver{User: l.User, Successor: l.Successor, Deadline: l.Deadline, Words: l.Words, By: by}
	action := "leaver add"
	old, there, err := tx.Leaver(l.User)
	if err != nil {
		return Leaver{}, err
	}
	if there && old.Settled.IsZero() {
		put.By, put.Created, put.Items = old.By, old.Created, old.Items
		action = "leaver change"
	}
	held, err := heldBy(tx, l.User)
	if err != nil {
		return Leaver{}, err
	}
	for _, id := range held {
		if itemOf(put.Items, id) < 0 {
			put.Items = append(put.Items, vault.LeaverItem{Token: id, State: vault.Open})
		}
	}
	why := "by " + l.Deadline.Local().Format("2006-01-02 15:04")
	if l.Successor != "" {
		why += ", successor " + l.Successor
	}
	act := explained(audit.Act{Officer: by, Action: action, Object: leaverName(l.User), Outcome: "done", Reason: why}, "", l.Words)
	if err := errors.Join(tx.PutLeaver(put), tx.Audit(act)); err != nil {
		return Leaver{}, err
	}
	return conclude(tx, put.User)
}

func leaverName(user string) string { return "leaver " + user }

// itemOf is where a token stands among items, or -1.
func itemOf(items []vault.LeaverItem, id device.TokenID) int {
	return slices.IndexFunc(items, func(i vault.LeaverItem) bool { return i.Token == id })
}

// conclude notes that a leaver is settled if nothing is open any more, and returns how they are.
func conclude(tx *vault.Tx, user string) (Leaver, error) {
	l, found, err := LeaverOf(tx, user)
	if err != nil || !found || l.Open() > 0 || !l.Settled.IsZero() {
		return l, err
	}
	l.Settled = time.Now()
	return l, tx.PutLeaver(l.Leaver)
}

// CloseLeavers notes which leavers were settled by what was done to their tokens elsewhere. It writes nothing if none was.
func (r *Runner) CloseLeavers() error {
	var settled []string
	err := r.Vault.View(func(tx *vault.Tx) error {
		if tx.Counts().Leavers == 0 {
			return nil
		}
		queue, err := Leavers(tx)
		for _, l := range queue {
			if l.Settled.IsZero() && l.Open() == 0 {
				settled = append(settled, l.User)
			}
		}
		return err
	})
	if err != nil || len(settled) == 0 {
		return err
	}
	return r.Vault.Update(func(tx *vault.Tx) error {
		for _, user := range settled {
			if _, err := conclude(tx, user); err != nil {
				return err
			}
		}
		return nil
	})
}

// Settlement is what an officer says of a leaver's token.
type Settlement struct {
	User  string
	Token device.TokenID // empty: all about which something is open
	State vault.ReturnState
	Words string // up to 200 bytes
}

// Settle keeps what an officer says, and does what follows. A token that is returned goes to stock, unless a successor waits for
// it: then the reissue takes it from the leaver. One that is not returned is taken from the leaver at once, and stays in the
// queue; one that is written off is compromised as lost. All tokens are treated alike, or none.
//
// What takes a second officer waits for one, which is an *ApprovalError; what was said is kept then, too.
func (r *Runner) Settle(ctx context.Context, by audit.Officer, s Settlement) (l Leaver, changes []vault.Change, err error) {
	s.Words = strings.TrimSpace(s.Words)
	if err := legible("reason", s.Words, maxReason); err != nil {
		return l, nil, err
	}
	var meant []LeaverToken
	err = r.Vault.View(func(tx *vault.Tx) (err error) {
		if l, err = leaver(tx, s.User); err != nil {
			return err
		}
		if meant, err = l.meant(s.Token); err != nil || s.State == vault.WrittenOff { // which ends whatever is going on
			return err
		}
		for _, t := range meant {
			if err := idle(tx, t.Token); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return l, nil, err
	}
	var waiting *ApprovalError
	if o := s.order(l, meant); len(o.Tokens) > 0 {
		_, changes, err = r.Do(ctx, by, o)
		if err != nil && !errors.As(err, &waiting) {
			return l, nil, err
		}
	}
	// What was done stands by itself: if this fails, the list shows it, and the officer says it again.
	err = r.Vault.Update(func(tx *vault.Tx) (err error) { l, err = s.note(tx, by, meant); return err })
	if err == nil && waiting != nil {
		err = waiting
	}
	return l, changes, err
}

// leaver is LeaverOf for somebody who has to be in the queue.
func leaver(tx *vault.Tx, user string) (Leaver, error) {
	l, found, err := LeaverOf(tx, user)
	if err == nil && !found {
		err = &NotLeavingError{User: user}
	}
	return l, err
}

// NotLeavingError says that somebody is not in the queue of leavers.
type NotLeavingError struct{ User string }

func (e *NotLeavingError) Error() string {
	return fmt.Sprintf("no user %q is in the queue of leavers: tokendesk leavers add puts somebody there", e.User)
}

// meant are the tokens that a settlement is about: one, or all that are open.
func (l Leaver) meant(id device.TokenID) (meant []LeaverToken, err error) {
	for _, t := range l.Tokens {
		if id == "" && !t.Settled || id == t.Token {
			meant = append(meant, t)
		}
	}
	switch {
	case len(meant) > 0 && meant[0].Settled:
		return nil, refuse("", "%s is settled: it %s", id, meant[0].Fact)
	case len(meant) > 0:
		return meant, nil
	case id != "":
		return nil, refuse("to see them: tokendesk user show "+l.User, "%s is no token of %s", id, l.User)
	case len(l.Tokens) == 0:
		return nil, refuse("", "%s has no token", l.User)
	}
	return nil, refuse("", "all tokens of %s are settled", l.User)
}

// order is what follows from a settlement. Without tokens, nothing does.
func (s Settlement) order(l Leaver, meant []LeaverToken) Order {
	// That somebody leaves is a reason in itself.
	o := Order{Action: ActUnassign, Reason: cmp.Or(s.Words, "leaver")}
	if s.State == vault.WrittenOff {
		o.Action, o.Loss = ActCompromise, vault.Lost
	}
	for _, t := range meant {
		switch {
		case s.State == vault.Returned && l.heir(t.Token) != "": // the reissue takes it
		case t.Held, s.State == vault.WrittenOff:
			o.Tokens = append(o.Tokens, t.Token)
		}
	}
	return o
}

// note keeps what was said.
func (s Settlement) note(tx *vault.Tx, by audit.Officer, meant []LeaverToken) (Leaver, error) {
	l, err := leaver(tx, s.User)
	if err != nil {
		return l, err
	}
	for _, m := range meant {
		item := vault.LeaverItem{Token: m.Token, State: s.State, Time: time.Now().UTC(), Officer: by.Name, Words: s.Words}
		if i := itemOf(l.Items, m.Token); i >= 0 {
			l.Items[i] = item
		} else {
			l.Items = append(l.Items, item)
		}
		act := explained(vault.Done(by, string(s.State), m.Token, l.User), "", s.Words)
		if err := errors.Join(tx.Audit(act), s.spread(tx, m.Token)); err != nil {
			return l, err
		}
	}
	if err := tx.PutLeaver(l.Leaver); err != nil {
		return l, err
	}
	return conclude(tx, l.User)
}

// spread notes with a token that has not come back that somebody has its seed.
func (s Settlement) spread(tx *vault.Tx, id device.TokenID) error {
	t, err := tx.Token(id)
	if s.State != vault.NotReturned || errors.Is(err, vault.ErrNotFound) {
		return nil
	}
	if err != nil || t.Owner != "" || t.Status == vault.Compromised || t.ReseedDue || !reseedable(id) {
		return err
	}
	t.ReseedDue = true
	return tx.PutToken(t)
}

// RemoveLeaver takes somebody out of the queue. Their tokens stay as they are.
func (r *Runner) RemoveLeaver(by audit.Officer, user string) error {
	return r.Vault.Update(func(tx *vault.Tx) error {
		l, err := leaver(tx, user)
		if err != nil {
			return err
		}
		act := audit.Act{Officer: by, Action: "leaver remove", Object: leaverName(l.User), Outcome: "done"}
		if n := l.Open(); n > 0 {
			act.Reason = fmt.Sprintf("%d of %d tokens open", n, len(l.Tokens))
		}
		return errors.Join(tx.DeleteLeaver(user), tx.Audit(act))
	})
}
