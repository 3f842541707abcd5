package provision_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
)

// leave puts somebody into the queue who has to be taken.
func (b *bench) leave(l provision.Leave) provision.Leaver {
	b.t.Helper()
	added, refusals, err := b.AddLeavers(officer, []provision.Leave{l})
	if err = errors.Join(append(refusals, err)...); err != nil {
		b.t.Fatal(err)
	}
	return added[0]
}

func (b *bench) leaver(user string) (l provision.Leaver) {
	b.t.Helper()
	b.view(func(tx *vault.Tx) (err error) {
		found := false
		if l, found, err = provision.LeaverOf(tx, user); err == nil && !found {
			err = fmt.Errorf("%s is not in the queue", user)
		}
		return err
	})
	return l
}

// settle says something of a leaver's token that has to be taken.
func (b *bench) settle(user string, state vault.ReturnState, token device.TokenID) provision.Leaver {
	b.t.Helper()
	l, _, err := b.Settle(b.t.Context(), officer, provision.Settlement{User: user, Token: token, State: state})
	if err != nil {
		b.t.Fatal(err)
	}
	return l
}

// closed has it noted who is settled: of the only leaver, once and for all.
func (b *bench) closed() {
	b.t.Helper()
	open := func() (n int) {
		b.view(func(tx *vault.Tx) error { n = tx.Counts().Leavers; return nil })
		return n
	}
	for _, want := range []int{1, 0, 0} {
		if n := open(); n != want {
			b.t.Errorf("%d leavers are not settled, not %d", n, want)
		}
		if err := b.CloseLeavers(); err != nil {
			b.t.Fatal(err)
		}
	}
}

// wantItem checks the only token of a leaver.
func wantItem(t testing.TB, l provision.Leaver, settled bool, state vault.ReturnState, fact, next string) {
	t.Helper()
	if len(l.Tokens) != 1 {
		t.Fatalf("%+v", l.Tokens)
	}
	s := l.Tokens[0]
	if s.Settled != settled || s.State != state || !strings.Contains(s.Fact, fact) || s.Next != next {
		t.Errorf("it is %+v, and expected settled %v, %s, %q, next %q", s, settled, state, fact, next)
	}
	if (l.Open() == 0) != settled || !l.Settled.IsZero() != settled {
		t.Errorf("%d are open, settled %v", l.Open(), l.Leaver.Settled)
	}
}

const next0 = "tokendesk leavers settle alice yk-20000001/otp1 --"

// To say that somebody leaves takes nothing from them. What is said again replaces what was said.
func TestLeavingTakesNothing(t *testing.T) {
	b := withTokens(t, "alice", "bob")
	if others[0] != "yk-20000001/otp1" {
		t.Fatalf("the first token is %s", others[0])
	}
	before := b.token(others[0])
	l := b.leave(provision.Leave{User: "alice", Successor: "bob", Words: " retires "})
	wantItem(t, l, false, vault.Open, "alice can still log in with it", next0+"returned")
	if !l.Deadline.Equal(provision.EndOfDay(time.Now())) || l.Words != "retires" || l.By != officer || l.Overdue(time.Now()) {
		t.Errorf("%+v", l)
	}
	if b.token(others[0]) != before || b.outbox() != "" {
		t.Errorf("%+v, outbox %q", b.token(others[0]), b.outbox())
	}
	late := time.Now().Add(-time.Hour)
	again := b.leave(provision.Leave{User: "ALICE", Deadline: late})
	wantItem(t, again, false, vault.Open, "can still log in", strings.Replace(next0, "alice", "ALICE", 1)+"not-returned")
	if again.Successor != "" || again.Words != "" || !again.Created.Equal(l.Created) || !again.Overdue(time.Now()) {
		t.Errorf("%+v", again)
	}
	b.view(func(tx *vault.Tx) error {
		all, err := provision.Leavers(tx)
		if len(all) != 1 || tx.Counts().Leavers != 1 {
			t.Errorf("%+v", all)
		}
		return err
	})
	if err := b.RemoveLeaver(officer, "alice"); err != nil {
		t.Fatal(err)
	}
	unknown := (*provision.NotLeavingError)(nil)
	if err := b.RemoveLeaver(officer, "alice"); !errors.As(err, &unknown) || unknown.User != "alice" {
		t.Error(err)
	}
	if b.token(others[0]) != before {
		t.Errorf("%+v", b.token(others[0]))
	}
}

// Whoever has no token has nothing to return.
func TestLeaverWithoutToken(t *testing.T) {
	b := withTokens(t, "bob")
	if l := b.leave(provision.Leave{User: "alice"}); len(l.Tokens) != 0 || l.Settled.IsZero() {
		t.Errorf("%+v", l)
	}
	_, _, err := b.Settle(t.Context(), officer, provision.Settlement{User: "alice", State: vault.Returned})
	wantRefused(t, err, "alice has no token")
}

// Of several, each is taken or refused by itself.
func TestLeaversThatCannotBeMeant(t *testing.T) {
	b := withTokens(t, "alice")
	bad := map[string]provision.Leave{
		"nobody is named":             {},
		"a name has at most 64 bytes": {User: strings.Repeat("x", 65)},
		"nobody is their own":         {User: "alice", Successor: "Alice"},
		"the text contains control":   {User: "alice", Words: "a\x1b[2J"},
		"the text has 201 bytes":      {User: "alice", Words: strings.Repeat("x", 201)},
		"the name contains control":   {User: "al\nice"},
		"the deadline is too far":     {User: "alice", Deadline: time.Now().AddDate(400, 0, 0)},
		"deadline is too far away":    {User: "alice", Deadline: time.Unix(-1, 0)},
	}
	var all []provision.Leave
	var want []string
	for words, l := range bad {
		all, want = append(all, l), append(want, words)
	}
	all = append(all, provision.Leave{User: "alice"})
	added, refusals, err := b.AddLeavers(officer, all)
	if err != nil {
		t.Fatal(err)
	}
	for i, words := range want {
		wantRefused(t, refusals[i], words)
	}
	if refusals[len(bad)] != nil || added[len(bad)].User != "alice" {
		t.Errorf("%+v, %v", added, refusals)
	}
}

// Who waits comes first, then who is due first; those who are settled come last.
func TestOrderOfTheQueue(t *testing.T) {
	b := withTokens(t, "alice", "bob", "carol", "dave")
	day := func(n int) time.Time { return time.Now().AddDate(0, 0, n) }
	b.leave(provision.Leave{User: "alice", Deadline: day(1)})
	b.leave(provision.Leave{User: "bob", Deadline: day(-1)})
	b.leave(provision.Leave{User: "carol", Deadline: day(9), Successor: "x"})
	b.leave(provision.Leave{User: "dave", Deadline: day(3), Successor: "y"})
	b.leave(provision.Leave{User: "eve", Deadline: day(-9), Successor: "z"})
	var names []string
	b.view(func(tx *vault.Tx) error {
		all, err := provision.Leavers(tx)
		for _, l := range all {
			names = append(names, fmt.Sprint(l.User, " ", l.Overdue(time.Now())))
		}
		return err
	})
	if want := []string{"dave false", "carol false", "bob true", "alice false", "eve false"}; !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
}

// A token is known as a leaver's, whoever has it.
func TestLeaverWith(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	with := func() (user, former string, found bool) {
		b.view(func(tx *vault.Tx) error {
			tok, err := tx.Token(slot2)
			if err != nil {
				return err
			}
			l, s, is, err := provision.LeaverWith(tx, tok)
			if err != nil {
				return err
			}
			if is && s.Token != slot2 {
				t.Errorf("%+v", s)
			}
			user, found = l.User, is
			former, err = provision.FormerOwner(tx, tok)
			return err
		})
		return user, former, found
	}
	if user, former, found := with(); found || former != "" {
		t.Errorf("nobody leaves: %q, %q", user, former)
	}
	b.leave(provision.Leave{User: "alice"})
	if user, _, found := with(); !found || user != "alice" {
		t.Errorf("alice leaves: %q, %v", user, found)
	}
	b.settle("alice", vault.NotReturned, "")
	if user, former, found := with(); !found || user != "alice" || former != "alice" {
		t.Errorf("alice has not returned it: %q, %q, %v", user, former, found)
	}
	b.settle("alice", vault.Returned, "")
	if user, former, found := with(); found || former != "alice" {
		t.Errorf("alice is settled: %q, %q, %v", user, former, found)
	}
}
