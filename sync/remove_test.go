package syncer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// remove deletes a token as the desk does.
func (f *office) remove(id device.TokenID) uint64 {
	f.Helper()
	var c vault.Change
	f.update(func(tx *vault.Tx) error {
		t, err := tx.Token(id)
		if err != nil {
			return err
		}
		err = tx.Bury(vault.Tombstone{ID: id, Generation: t.Generation, Owner: t.Owner, Status: t.Status, Officer: officer.Name})
		if err != nil {
			return err
		}
		c, err = tx.Enqueue(vault.Change{Kind: vault.Remove, Token: id, User: t.Owner, Generation: t.Generation, Counter: t.Counter, Digits: t.Digits})
		return err
	})
	f.o.Wake()
	return c.Seq
}

// asked is what a connector was asked to do, in order.
func asked(f *office, spoils func(vault.Change) error) *[]string {
	var all []string
	f.through(&poison{f.c, func(c vault.Change) error {
		if err := spoils(c); err != nil {
			return err
		}
		all = append(all, fmt.Sprintf("%s %s %d", c.Kind, c.Token, c.Generation))
		return nil
	}}, quick)
	return &all
}

func fine(vault.Change) error { return nil }

func TestRemoveOfWhatIsGoneHere(t *testing.T) {
	f := open(t, quick)
	seed := f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.assign(tokenA, "alice")
	f.deliver()
	f.wantLogin("alice", seed, 0, true)
	f.remove(tokenA)
	if all := f.changes(); len(all) != 1 || all[0].Kind != vault.Remove || all[0].User != "alice" {
		t.Fatalf("on its way: %+v", all)
	}
	f.deliver()
	f.wantLeft()
	f.wantOutcomes("delivered put", "delivered assign", "delivered remove")
	f.wantLogin("alice", seed, 1, false)
	if seen, err := f.c.Observe(t.Context(), tokenA); err != nil || seen != (syncer.Observation{}) {
		t.Errorf("afterwards the service shows %+v, %v", seen, err)
	}
}

// What was on its way for a token that is gone is not delivered after its removal.
func TestRemoveBeforeAnythingArrived(t *testing.T) {
	f := open(t, quick)
	f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.assign(tokenA, "alice")
	f.disable(tokenA)
	f.remove(tokenA)
	f.deliver()
	f.wantLeft()
	f.wantOutcomes("delivered disable", "delivered remove")
	if seen, err := f.c.Observe(t.Context(), tokenA); err != nil || seen.Exists {
		t.Errorf("afterwards the service shows %+v, %v", seen, err)
	}
}

// closes is a directory without one of its providers: what it removes is only closed.
type closes struct{ syncer.Connector }

func (c *closes) Apply(ctx context.Context, ch vault.Change, seed secret.Secret) (syncer.Observation, error) {
	if ch.Kind != vault.Remove {
		return c.Connector.Apply(ctx, ch, seed)
	}
	ch.Kind = vault.Unassign
	_, err := c.Connector.Apply(ctx, ch, seed)
	return syncer.Observation{}, errors.Join(err, syncer.ErrRemains, errBusy)
}

// As after every cut-off, the user gets no other token before. But once the old one is closed for good, nothing that is left of it
// matters to her.
func TestRemoveHoldsBackTheUsersNextToken(t *testing.T) {
	f := open(t, quick)
	old, next := f.enroll(tokenA, 1, 0), f.enroll(tokenB, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.enqueue(vault.Put, tokenB, "", 1, 0)
	f.assign(tokenA, "alice")
	f.deliver()
	asked(f, func(vault.Change) error { return errBusy })
	removal := f.remove(tokenA)
	assignment := f.assign(tokenB, "alice")
	f.deliver()
	f.wantLeft(removal, assignment)
	out, err := f.o.Show(assignment)
	if err != nil || len(out.Holds) == 0 || out.Holds[len(out.Holds)-1].Kind != syncer.HeldByCutOff || out.Holds[len(out.Holds)-1].Seq != removal {
		t.Errorf("the assignment's outlook: %+v, %v", out, err)
	}
	f.through(&closes{f.c}, quick)
	f.deliver() // in one pass
	f.wantLeft(removal)
	f.wantLogin("alice", next, 0, true)
	f.wantLogin("alice", old, 0, false)
	if left := f.changes()[0]; left.User != "" || left.Parked || !strings.Contains(left.Problem, "nobody can log in") {
		t.Errorf("what is left is %+v", left)
	}
	f.deliver()
	if acts := (&site{office: f}).acts("push remove"); len(acts) != 1 || acts[0] != string(tokenA)+" closed user alice" {
		t.Errorf("the trail has %q", acts)
	}
	f.through(f.c, quick)
	f.deliver()
	f.wantLeft()
	if seen, err := f.c.Observe(t.Context(), tokenA); err != nil || seen.Exists {
		t.Errorf("afterwards the service shows %+v, %v", seen, err)
	}
	f.wantLogin("alice", next, 1, true)
}

// A new token of the same name comes after the removal, and does not have to wait for every provider.
func TestNameThatIsTakenAgain(t *testing.T) {
	f := open(t, quick)
	old := f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.assign(tokenA, "alice")
	f.deliver()
	f.wantLogin("alice", old, 0, true)
	away := true
	all := asked(f, func(c vault.Change) error {
		if c.Kind == vault.Remove && away {
			return errBusy
		}
		return nil
	})
	f.remove(tokenA)
	f.deliver()
	seed := f.enroll(tokenA, 2, 7)
	put := f.enqueue(vault.Put, tokenA, "", 2, 7)
	assign := f.assign(tokenA, "bob")
	out, err := f.o.Show(put)
	if err != nil || out.Obsolete != "" || len(out.Holds) != 1 || out.Holds[0].Kind != syncer.HeldByEarlier {
		t.Errorf("the outlook of the new token's put (assignment %d): %+v, %v", assign, out, err)
	}
	f.deliver()
	f.wantLeft()
	if want := []string{"unassign yk-1111111/otp2 1", "put yk-1111111/otp2 2", "assign yk-1111111/otp2 2"}; !slices.Equal(*all, want) {
		t.Errorf("the connector did %q, want %q", *all, want)
	}
	f.wantLogin("bob", seed, 7, true)
	f.wantLogin("alice", old, 1, false)
	f.wantLogin("alice", seed, 8, false)
	f.wantLogin("bob", old, 1, false)
	if f.counter(tokenA) < 7 {
		t.Errorf("the new token's counter is %d", f.counter(tokenA))
	}
}

// While an enrollment under the old name is under way, the new token has no generation yet: the old one is removed.
func TestRemoveDuringTheNextEnrollment(t *testing.T) {
	f := open(t, quick)
	f.enroll(tokenA, 3, 0)
	f.enqueue(vault.Put, tokenA, "", 3, 0)
	f.deliver()
	all := asked(f, fine)
	f.remove(tokenA)
	f.update(func(tx *vault.Tx) error {
		serial, _ := tokenA.Device().Serial()
		return tx.PutToken(vault.Token{ID: tokenA, Serial: serial, Status: vault.Pending, Digits: 6})
	})
	f.deliver()
	if want := []string{"remove yk-1111111/otp2 3"}; !slices.Equal(*all, want) {
		t.Errorf("the connector did %q, want %q", *all, want)
	}
	if seen, err := f.c.Observe(t.Context(), tokenA); err != nil || seen.Exists {
		t.Errorf("afterwards the service shows %+v, %v", seen, err)
	}
}

// Expired and compromised tokens are as good as disabled: nothing brings their seed there.
func TestExpiredAndCompromisedAreNotAccepted(t *testing.T) {
	for _, status := range []vault.Status{vault.Expired, vault.Compromised} {
		f := open(t, quick)
		seed := f.enroll(tokenA, 1, 0)
		f.enqueue(vault.Put, tokenA, "", 1, 0)
		f.assign(tokenA, "alice")
		f.deliver()
		f.wantLogin("alice", seed, 0, true)
		cut := vault.Disable
		if status == vault.Compromised {
			cut = vault.Unassign
		}
		f.alter(tokenA, cut, func(t *vault.Token) {
			if t.Status = status; status == vault.Compromised {
				t.Loss, t.Owner = vault.Loss{Kind: vault.Lost, Time: t.Created, Owner: t.Owner}, ""
			}
		})
		f.enqueue(vault.Put, tokenA, "alice", 1, 0)
		f.enqueue(vault.Advance, tokenA, "alice", 1, 30)
		f.enqueue(vault.Enable, tokenA, "alice", 1, 0)
		f.deliver()
		f.wantLeft()
		f.wantLogin("alice", seed, 30, false)
		want := []string{"delivered put", "delivered assign", "delivered " + string(cut), "delivered put", "delivered advance", "obsolete enable"}
		f.wantOutcomes(want...)
	}
}
