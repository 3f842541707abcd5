package synctest

import (
	"errors"
	"testing"

	syncer "tokendesk/sync"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// removeCases are about tokens that are deleted, and about others of the same name that come after them.
var removeCases = []conformanceCase{
	{"RemoveUnknown", removeUnknown},
	{"RemoveClosesTheDoor", removeClosesTheDoor},
	{"RemoveReachesTheUnseen", removeReachesTheUnseen},
	{"RemoveWhateverItWas", removeWhateverItWas},
	{"RemoveFreesTheUser", removeFreesTheUser},
	{"PutAfterRemove", putAfterRemove},
	{"PutAfterRemoveAndLoginElsewhere", putAfterRemoveAndLoginElsewhere},
}

// gone tells that no provider has the token any more.
func (d *desk) gone() {
	d.t.Helper()
	d.expect(syncer.Observation{})
	d.settle()
	for provider := range d.service.Providers() {
		_, counter := d.counters(provider)[d.token.Central()]
		if _, entry := d.entries(provider)[d.token.Central()]; counter || entry {
			d.t.Fatalf("provider %d still has %s", provider, d.token.Central())
		}
	}
	for _, user := range Users {
		if u, err := d.c.FindUser(d.t.Context(), user); err != nil || len(u.Tokens) != 0 {
			d.t.Fatalf("%s is %+v, %v", user, u, err)
		}
	}
}

func removeUnknown(t *testing.T, d *desk) {
	d.apply(vault.Remove, "", 0)
	d.apply(vault.Remove, "alice", 0)
	d.apply(vault.Remove, "nobody", 0)
	d.gone()
}

func removeClosesTheDoor(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	d.accepts("alice", 0)
	if seen := d.apply(vault.Remove, "alice", 0); seen != (syncer.Observation{}) {
		t.Errorf("what was removed is %+v", seen)
	}
	d.gone()
	d.rejects("alice", d.code(1), "the token was removed")
	d.rejects("alice", "", "the bare password must not do once a token was required")
	d.refused(vault.Assign, "alice")
	d.refused(vault.Advance, "alice")
}

func removeReachesTheUnseen(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	if err := d.service.Move("alice"); err != nil {
		t.Fatal(err)
	}
	d.accepts("alice", 0) // nothing was taken from her
	d.apply(vault.Remove, "alice", 0)
	d.rejects("alice", d.code(1), "the token was removed, wherever she is")
	d.rejects("alice", "", "the bare password must not do once a token was required")
}

// In every state that a token can be in, and with a seed that the desk does not know of.
func removeWhateverItWas(t *testing.T, d *desk) {
	for _, prepare := range []func(){
		func() {},
		func() { d.apply(vault.Assign, "alice", 0) },
		func() { d.apply(vault.Assign, "alice", 0); d.apply(vault.Disable, "alice", 0) },
		func() { d.apply(vault.Assign, "alice", 0); d.apply(vault.Unassign, "alice", 0) },
		func() { d.seed = secret.Random(20); d.apply(vault.Put, "alice", 0) },
	} {
		d.seed = secret.Random(20)
		d.apply(vault.Put, "", 0)
		prepare()
		d.apply(vault.Remove, "alice", 0)
		d.gone()
		d.rejects("alice", d.code(0), "the token was removed")
		d.generation++
	}
}

func removeFreesTheUser(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	next := d.another("yk-7654321/otp1")
	next.apply(vault.Put, "", 0)
	d.apply(vault.Remove, "alice", 0)
	next.apply(vault.Assign, "alice", 0)
	next.accepts("alice", 0)
	d.apply(vault.Remove, "alice", 0) // as when nobody has noted that it was done
	next.accepts("alice", 1)
	d.rejects("alice", d.code(0), "the token was removed")
}

// The name is taken again. The new token has nothing of the old one's.
func putAfterRemove(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 100)
	d.apply(vault.Assign, "alice", 100)
	d.accepts("alice", 103)
	old := *d
	d.apply(vault.Remove, "alice", 104)
	d.seed, d.generation = secret.Random(20), 2
	d.apply(vault.Put, "bob", 5)
	d.expect(syncer.Observation{Exists: true, Counter: 5, Enabled: true})
	d.rejects("bob", d.code(5), "nothing was assigned yet")
	d.apply(vault.Assign, "bob", 5)
	d.accepts("bob", 5)
	d.rejects("alice", d.code(6), "it is bob's token")
	d.rejects("alice", old.code(104), "her token was removed")
	d.rejects("bob", old.code(104), "the seed was replaced")
	for _, kind := range []vault.ChangeKind{vault.Put, vault.Assign, vault.Enable, vault.Advance} {
		if _, err := old.try(kind, "bob", 200); !errors.Is(err, syncer.ErrRefused) {
			t.Fatalf("%s of the token that was removed: %v, want a refusal", kind, err)
		}
	}
	d.accepts("bob", 6)
}

// Of logins that only one provider knows of, nothing is left either.
func putAfterRemoveAndLoginElsewhere(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 200)
	d.apply(vault.Assign, "alice", 200)
	d.acceptsAt(d.last(), "alice", 205)
	d.apply(vault.Remove, "alice", 200)
	d.seed, d.generation = secret.Random(20), 2
	if o := d.apply(vault.Put, "alice", 4); o.Counter != 4 {
		t.Fatalf("the new token's counter is %d, want 4", o.Counter)
	}
	d.apply(vault.Assign, "alice", 4)
	d.settle()
	for provider := range d.service.Providers() {
		if got := d.next(provider); got != 4 {
			t.Errorf("provider %d has the new token at %d, want 4", provider, got)
		}
	}
	d.acceptsAt(d.last(), "alice", 4)
}
