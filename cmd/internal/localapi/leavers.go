package localapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
)

// LeaverPath (exported, or the router would not fill it when embedded) is in the path of every operation on one leaver. The
// name is not what operations are recorded under: it is a caller's word until somebody of that name is found.
type LeaverPath struct {
	User string `path:"user" doc:"Name of a leaver" minLength:"1" maxLength:"64" pattern:"^[A-Za-z0-9._@-]+$"`
}

func (p *LeaverPath) object() string { return "leavers" }

type (
	newLeaver  struct{ Body api.NewLeaver }
	newLeavers struct{ Body api.LeaverLines }
	settlement struct {
		LeaverPath
		Body api.Settlement
	}
)

func (in *newLeaver) object() string  { return "leavers" }
func (in *newLeavers) object() string { return "leavers" }

func (in *settlement) object() string {
	if _, err := device.ParseTokenID(in.Body.Token); err == nil {
		return in.Body.Token
	}
	return "leavers"
}

type leaversQuery struct {
	All     bool `query:"all" doc:"Also those of whom nothing is open"`
	Overdue bool `query:"overdue" doc:"Only those whose deadline has passed"`
}

func (d *Desk) leavers(_ context.Context, q *leaversQuery) (api.Leavers, error) {
	out := api.Leavers{Leavers: []api.Leaver{}}
	err := d.Vault.View(func(tx *vault.Tx) error {
		queue, err := provision.Leavers(tx)
		for _, l := range queue {
			if shown := d.leaverOf(l); (q.All || shown.Open > 0) && (!q.Overdue || shown.Overdue) {
				out.Leavers = append(out.Leavers, shown)
			}
		}
		return err
	})
	return out, err
}

func (d *Desk) leaverOf(l provision.Leaver) api.Leaver {
	out := api.Leaver{
		User: l.User, Successor: l.Successor, Deadline: l.Deadline, Overdue: l.Overdue(time.Now()), Words: l.Words, Officer: l.By.Name,
		Created: l.Created, Settled: timed(l.Settled), Open: l.Open(), Tokens: []api.LeaverToken{},
	}
	for _, t := range l.Tokens {
		shown := api.LeaverToken{
			Token: string(t.Token), State: string(t.State), Time: timed(t.Time), Officer: t.Officer, Words: t.Words,
			Fact: t.Fact, Held: t.Held, Settled: t.Settled, Next: t.Next, Inserted: d.inserted(t.Token.Device()),
		}
		if shown.Inserted && t.AtHand != "" {
			shown.Next = t.AtHand
		}
		out.Tokens = append(out.Tokens, shown)
	}
	return out
}

// countLeavers adds the queue to how the desk is.
func countLeavers(s *api.Status, queue []provision.Leaver) {
	for _, l := range queue {
		if l.Open() > 0 {
			s.Leavers++
		}
		if l.Overdue(time.Now()) {
			s.Overdue++
		}
	}
}

// closeLeavers notes whom something that was done has settled. What cannot be noted now is noted later.
func (d *Desk) closeLeavers() {
	err := d.Runner.CloseLeavers()
	if state := (*vault.StateError)(nil); err != nil && !errors.As(err, &state) {
		d.Log.Warn("cannot note which leavers are settled", "error", err)
	}
}

// inserted tells whether a device is at hand.
func (d *Desk) inserted(id device.ID) bool { return d.Keys.Inserted(id) }

func (d *Desk) addLeaver(ctx context.Context, in *newLeaver) (api.Added, error) {
	results, err := d.addLeavers(ctx, []api.NewLeaver{in.Body})
	if err == nil && results[0].Problem != nil {
		err = results[0].Problem
	}
	if err != nil {
		return api.Added{Leaver: api.Leaver{Tokens: []api.LeaverToken{}}}, err
	}
	return *results[0].Added, nil
}

func (d *Desk) importLeavers(ctx context.Context, in *newLeavers) (api.LeaverResults, error) {
	out := api.LeaverResults{Results: []api.LeaverResult{}}
	results, err := d.addLeavers(ctx, in.Body.Leavers)
	out.Results = append(out.Results, results...)
	return out, err
}

// addLeavers puts people into the queue, in one transaction. An error is none of theirs.
func (d *Desk) addLeavers(ctx context.Context, all []api.NewLeaver) ([]api.LeaverResult, error) {
	results := make([]api.LeaverResult, len(all))
	ask := inquiry{d: d}
	var leaves []provision.Leave
	var at []int // in results
	var notes [][]string
	for i, one := range all {
		l, about, err := ask.about(ctx, one)
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if results[i].Problem = d.classified(err); results[i].Problem == nil {
				return nil, err
			}
			continue
		}
		leaves, at, notes = append(leaves, l), append(at, i), append(notes, about)
	}
	if len(leaves) == 0 {
		return results, nil
	}
	added, refusals, err := d.Runner.AddLeavers(officer(ctx), leaves)
	if err != nil {
		return nil, err
	}
	for i, l := range added {
		if refusals[i] != nil {
			results[at[i]].Problem = d.failure(refusals[i])
			continue
		}
		results[at[i]].Added = &api.Added{Leaver: d.leaverOf(l), Notes: notes[i]}
	}
	return results, nil
}

func (d *Desk) settleLeaver(ctx context.Context, in *settlement) (api.Settled, error) {
	out := api.Settled{Leaver: api.Leaver{Tokens: []api.LeaverToken{}}, Changes: []api.Change{}}
	s := provision.Settlement{User: in.User, State: vault.ReturnState(in.Body.State), Words: in.Body.Reason}
	if len(s.Words) > maxWords {
		return out, api.Errorf(api.Invalid, "the request is not valid: body.reason: expected at most %d bytes", maxWords)
	}
	if in.Body.Token != "" {
		id, err := device.ParseTokenID(in.Body.Token)
		if err != nil {
			return out, api.Errorf(api.Invalid, "the request is not valid: body.token: expected the name of a token")
		}
		s.Token = id
	}
	if err := d.missed(s); err != nil {
		return out, notLeaving(err)
	}
	l, changes, err := d.Runner.Settle(ctx, officer(ctx), s)
	if waiting := (*provision.ApprovalError)(nil); errors.As(err, &waiting) {
		a := approvalOf(waiting.Approval)
		out.Approval, out.Text, err = &a, waiting.Error(), nil
	}
	if err != nil {
		return out, notLeaving(err)
	}
	out.Changes = append(out.Changes, d.settle(ctx, changes)...)
	if now, err := d.leaver(in.User); err == nil { // the outbox has gone on meanwhile
		l = now
	}
	out.Leaver = d.leaverOf(l)
	return out, nil
}

// missed refuses to believe that a device has not come back which is inserted.
func (d *Desk) missed(s provision.Settlement) error {
	if s.State != vault.NotReturned {
		return nil
	}
	l, err := d.leaver(s.User)
	for _, t := range l.Tokens {
		if (t.Token == s.Token || s.Token == "" && !t.Settled) && d.inserted(t.Token.Device()) {
			next := t.AtHand
			if next == "" {
				next = "tokendesk show " + string(t.Token)
			}
			return &provision.RefusedError{Reason: fmt.Sprintf("%s is inserted here, so it has come back", t.Token.Device()), Next: next}
		}
	}
	return err
}

func (d *Desk) leaver(user string) (l provision.Leaver, err error) {
	err = d.Vault.View(func(tx *vault.Tx) error {
		var found bool
		if l, found, err = provision.LeaverOf(tx, user); err == nil && !found {
			err = &provision.NotLeavingError{User: user}
		}
		return err
	})
	return l, err
}

func notLeaving(err error) error {
	if unknown := (*provision.NotLeavingError)(nil); errors.As(err, &unknown) {
		return api.Errorf(api.NotFound, "%v", err)
	}
	return err
}

// removeLeaver takes somebody out of the queue, and tells who is left.
func (d *Desk) removeLeaver(ctx context.Context, in *LeaverPath) (api.Leavers, error) {
	if err := d.Runner.RemoveLeaver(officer(ctx), in.User); err != nil {
		return api.Leavers{Leavers: []api.Leaver{}}, notLeaving(err)
	}
	return d.leavers(ctx, &leaversQuery{})
}

// inquiry asks the central service about people, until it does not answer: a long list would take for ever then.
type inquiry struct {
	d    *Desk
	away error
}

// inquiryPatience is how long the central service has for one answer.
const inquiryPatience = 3 * time.Second

// person is what the central service says of a user.
type person struct {
	name   string // as it spells it
	known  bool
	asked  bool
	tokens []string // by their central names
}

func (q *inquiry) find(ctx context.Context, name string) person {
	p := person{name: name}
	if q.d.Connector == nil || q.away != nil {
		return p
	}
	ctx, enough := context.WithTimeout(ctx, inquiryPatience)
	defer enough()
	u, err := q.d.Connector.FindUser(ctx, name)
	switch {
	case err == nil:
		return person{u.Name, true, true, u.Tokens}
	case refusedThere(err):
		p.asked = true
	default:
		q.away = err
	}
	return p
}

// about turns what a caller says of a leaver into what the queue keeps, with what is worth knowing. It refuses people whom
// nobody knows.
func (q *inquiry) about(ctx context.Context, in api.NewLeaver) (l provision.Leave, notes []string, err error) {
	who := q.find(ctx, in.User)
	held, err := q.d.held(who.name)
	if err == nil && who.name != in.User && len(held) == 0 { // the desk may have kept what somebody typed
		held, err = q.d.held(in.User)
	}
	if err != nil {
		return l, nil, err
	}
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	switch {
	case who.asked && !who.known && len(held) == 0:
		return l, nil, &provision.RefusedError{
			Reason: fmt.Sprintf("no user %q is known to the central service, and none has a token of this desk", in.User), Next: "look at the spelling"}
	case len(held) == 0:
		note("%s has no token of this desk: nothing is to come back", who.name)
	case who.asked && !who.known:
		note("the central service does not know %s any more", in.User)
	}
	for _, central := range who.tokens {
		if !slices.ContainsFunc(held, func(id device.TokenID) bool { return strings.EqualFold(id.Central(), central) }) {
			note("%s has %s in the central service, which is not of this desk: take it away with the tool that has given it", who.name, central)
		}
	}
	next := q.find(ctx, in.Successor)
	if in.Successor != "" && next.asked && !next.known {
		return l, nil, &provision.RefusedError{Reason: "the central service does not know the successor", Next: "look at the spelling"}
	}
	if q.away != nil {
		note("the central service could not be asked: %v", q.away)
	} else if next.known && len(held) > 0 && q.d.Runner.CheckUser != nil {
		if _, err := q.d.Runner.CheckUser(ctx, next.name); err != nil {
			note("%s cannot get another token yet: %v", next.name, err)
		}
	}
	l = provision.Leave{User: who.name, Successor: next.name, Words: in.Words}
	if in.Deadline != nil {
		l.Deadline = *in.Deadline
	}
	return l, notes, nil
}

// held are the tokens that somebody has of this desk.
func (d *Desk) held(user string) (held []device.TokenID, err error) {
	err = d.Vault.View(func(tx *vault.Tx) error {
		page, _, err := tx.Tokens(vault.Filter{Owner: user, Limit: 100})
		for _, t := range page {
			held = append(held, t.ID)
		}
		return err
	})
	return held, err
}
