package provision_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
)

// act carries out an order on one token by its name.
func (b *bench) act(name string, id device.TokenID, user string) (tok vault.Token, changes []vault.Change, err error) {
	b.t.Helper()
	o := provision.Order{Action: provision.Action(name), Tokens: []device.TokenID{id}, Reason: "as the test wants"}
	if name == "assign" {
		o.User = user
	}
	if name == "compromise" {
		o.Loss = vault.Stolen
	}
	tokens, changes, err := b.Do(b.t.Context(), officer, o)
	if len(tokens) == 1 {
		tok = tokens[0]
	}
	return tok, changes, err
}

func TestLifecycleTransitions(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		name    string
		from    vault.Status
		owner   string
		user    string // assign: to whom
		status  vault.Status
		then    string // the owner afterwards
		outbox  string
		refused string // instead
	}{
		{name: "assign", from: vault.Active, user: "bob", status: vault.Active, then: "bob", outbox: "assign/1:bob"},
		{name: "assign", from: vault.Active, user: "", refused: "name the user"},
		{name: "assign", from: vault.Active, user: "nobody", refused: "no such user"},
		{name: "assign", from: vault.Active, owner: "bob", user: "bob", refused: "belongs to bob already"},
		{name: "assign", from: vault.Active, owner: "alice", user: "bob", refused: "tokendesk reissue " + string(slot2) + " --to bob"},
		{name: "assign", from: vault.Disabled, user: "bob", refused: "is disabled; only an active token"},
		{name: "assign", from: vault.Pending, user: "bob", refused: "is pending; only an active token"},
		{name: "assign", from: vault.Limbo, user: "bob", refused: "is limbo; only an active token"},

		{name: "unassign", from: vault.Active, owner: "alice", status: vault.Active, outbox: "unassign/1:alice"},
		{name: "unassign", from: vault.Disabled, owner: "alice", status: vault.Disabled, outbox: "unassign/1:alice"},
		{name: "unassign", from: vault.Active, refused: "belongs to nobody"},

		{name: "disable", from: vault.Active, owner: "alice", status: vault.Disabled, then: "alice", outbox: "disable/1:alice"},
		{name: "disable", from: vault.Active, status: vault.Disabled, outbox: "disable/1"},
		{name: "disable", from: vault.Disabled, owner: "alice", refused: "is disabled; only an active token"},
		{name: "disable", from: vault.Pending, refused: "is pending; only an active token"},
		{name: "disable", from: vault.Limbo, refused: "is limbo; only an active token"},

		{name: "enable", from: vault.Disabled, owner: "alice", status: vault.Active, then: "alice", outbox: "enable/1:alice"},
		{name: "enable", from: vault.Disabled, status: vault.Active, outbox: "enable/1"},
		{name: "enable", from: vault.Active, owner: "alice", refused: "is active; only a disabled token can be enabled"},
		{name: "enable", from: vault.Pending, refused: "is pending; only a disabled token"},
		{name: "enable", from: vault.Limbo, refused: "is limbo; only a disabled token"},
	} {
		t.Run(c.name+" of "+string(c.from)+" of "+c.owner+" to "+c.user, func(t *testing.T) {
			b := &bench{Runner: b.Runner, t: t}
			woken := false
			b.Wake = func() { woken = true }
			b.CheckUser = func(_ context.Context, user string) (string, error) {
				if user == "nobody" {
					return "", &provision.RefusedError{Reason: "no such user"}
				}
				return strings.ToLower(user), nil
			}
			b.deliver()
			before := vault.Token{ID: slot2, Serial: serial, Status: c.from, Owner: c.owner, Digits: 6, Counter: 5, Generation: 1}
			b.put(before)
			tok, changes, err := b.act(c.name, slot2, c.user)
			stored := b.token(slot2)
			if c.refused != "" {
				wantRefused(t, err, c.refused)
				if stored.Status != c.from || stored.Owner != c.owner || b.outbox() != "" || len(changes) != 0 || woken {
					t.Errorf("refused, and yet: %+v, outbox %q", stored, b.outbox())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if stored.Status != c.status || stored.Owner != c.then || tok.Status != c.status || tok.Owner != c.then || stored.Counter != 5 {
				t.Errorf("%+v; answered %+v", stored, tok)
			}
			b.wantOutbox(c.outbox)
			if len(changes) != 1 || changes[0].Seq == 0 || changes[0].Counter != 5 || !woken {
				t.Errorf("changes %+v, outbox woken: %v", changes, woken)
			}
		})
	}
}

func TestUnfinishedWorkHoldsOffEverythingElse(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	b.deliver()
	b.Confirm = func(context.Context, uint64) error { return errors.New("not yet") }
	if err := b.reissue(t.Context(), slot2, "bob"); err == nil {
		t.Fatal("the reissue did not stop")
	}
	for _, name := range []string{"assign", "unassign", "disable", "enable"} {
		_, _, err := b.act(name, slot2, "carol")
		wantRefused(t, err, "an unfinished reissue of "+string(slot2), "tokendesk resolve "+string(slot2))
	}
	wantRefused(t, b.Ready(slot2, provision.ActTest), "an unfinished reissue")
	b.wantOutbox("unassign/1:alice")
	if err := b.Ready(slot1, provision.ActTest); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("an unknown token: %v", err)
	}
}

func TestLifecycleOfAnUnknownToken(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"assign", "unassign", "disable", "enable"} {
		if _, _, err := b.act(name, slot1, "alice"); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"undo":    b.Undo(t.Context(), officer, slot1, b.tell),
		"resolve": func() error { _, err := b.Resolve(t.Context(), officer, slot1, nil, b.tell); return err }(),
	} {
		t.Run(name, func(t *testing.T) { wantRefused(t, err, "nothing to resolve") })
	}
}

func TestAReleasedTokenGoesToTheNextUser(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	for _, name := range []string{"disable", "unassign", "enable", "assign"} {
		if _, _, err := b.act(name, slot2, "bob"); err != nil {
			t.Fatal(err)
		}
	}
	b.wantOutbox("put/1 assign/1:alice disable/1:alice unassign/1:alice enable/1 assign/1:bob")
	b.wantOnDevice(slot2)
}

// Two officers give one user a token at the same time: the second is refused while the first has not finished.
func TestOneTokenForAUserAtATime(t *testing.T) {
	b := newBench(t)
	b.update(func(tx *vault.Tx) error {
		return errors.Join(tx.PutToken(vault.Token{ID: slot1, Status: vault.Active, Digits: 6, Generation: 1}), tx.SetSeed(slot1, 1, randomSeed()),
			tx.PutToken(vault.Token{ID: slot2, Status: vault.Active, Digits: 6, Generation: 1}), tx.SetSeed(slot2, 1, randomSeed()))
	})
	asked := false
	b.CheckUser = func(ctx context.Context, user string) (string, error) {
		if asked {
			return user, nil
		}
		asked = true
		if _, _, err := b.act("assign", slot1, "ALICE"); err == nil || !strings.Contains(err.Error(), "another officer's work for ALICE is going on") {
			t.Errorf("the second officer: %v", err)
		}
		return user, nil
	}
	if _, _, err := b.act("assign", slot2, "alice"); err != nil {
		t.Fatal(err)
	}
	if owner := b.token(slot1).Owner; owner != "" {
		t.Errorf("the other token belongs to %s", owner)
	}
	if _, _, err := b.act("assign", slot1, "alice"); err != nil { // nobody is held back for good
		t.Error(err)
	}
}
