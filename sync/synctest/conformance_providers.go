package synctest

import (
	"testing"

	syncer "tokendesk/sync"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// providerCases are about several providers that replicate each other, but not what a login leaves behind. With one
// provider they hold all the same.
var providerCases = []conformanceCase{
	{"UsedElsewhere", usedElsewhere},
	{"NoProviderIsLowered", noProviderIsLowered},
	{"CutOffKeepsCounters", cutOffKeepsCounters},
	{"HandOverAfterLoginElsewhere", handOverAfterLoginElsewhere},
	{"ReseedAfterLoginElsewhere", reseedAfterLoginElsewhere},
	{"ObservesAllProviders", observesAllProviders},
}

func (d *desk) last() int { return d.service.Providers() - 1 }

// A code that was used at one provider is not accepted at any other, once the desk has written.
func usedElsewhere(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	for _, kind := range []vault.ChangeKind{vault.Advance, vault.Put, vault.Enable, vault.Assign} {
		for provider := range d.service.Providers() {
			base := d.observe().Counter
			d.acceptsAt(provider, "alice", base+5)
			d.apply(kind, "alice", base+2) // which the vault knows of
			d.rejects("alice", d.code(base+5), "the code was used, at another provider maybe")
			d.acceptsAt(provider, "alice", base+6)
		}
	}
}

// No write of ours takes any provider back, by replication either.
func noProviderIsLowered(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	for _, kind := range []vault.ChangeKind{vault.Advance, vault.Put, vault.Enable, vault.Assign} {
		for ahead := range d.service.Providers() { // who has seen more logins than the others
			base := d.observe().Counter
			highest := base
			for provider := range d.service.Providers() {
				n := base + uint64(provider+d.service.Providers()-ahead)%uint64(d.service.Providers())*3
				if int64(n) < d.next(provider) {
					n = uint64(d.next(provider))
				}
				d.acceptsAt(provider, "alice", n)
				highest = max(highest, n+1)
			}
			if o := d.apply(kind, "alice", base); o.Counter != highest {
				t.Fatalf("%s: the counter is %d, want %d", kind, o.Counter, highest)
			}
			d.settle()
			d.atLeast(kind, base)
			d.rejects("alice", d.code(highest-1), "the code was used")
		}
	}
}

// atLeast tells that no provider is behind what was used anywhere before the change.
func (d *desk) atLeast(kind vault.ChangeKind, n uint64) {
	d.t.Helper()
	for provider := range d.service.Providers() {
		if got := d.next(provider); got < int64(n) {
			d.t.Fatalf("after %s provider %d is at %d, behind %d", kind, provider, got, n)
		}
	}
}

// Cut-offs are writes too: what comes after them must know the logins before them.
func cutOffKeepsCounters(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	d.acceptsAt(d.last(), "alice", 5)
	d.apply(vault.Disable, "alice", 0)
	d.settle()
	d.atLeast(vault.Disable, 6)
	d.apply(vault.Enable, "alice", 0)
	d.settle()
	d.rejects("alice", d.code(5), "the code was used before the token was disabled")
	d.acceptsAt(0, "alice", 6)
}

func handOverAfterLoginElsewhere(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	d.acceptsAt(d.last(), "alice", 7)
	d.apply(vault.Unassign, "alice", 0)
	d.settle()
	d.atLeast(vault.Unassign, 8)
	d.apply(vault.Assign, "bob", 0)
	d.rejects("bob", d.code(7), "the code was used, by alice")
	d.rejects("alice", d.code(8), "it is bob's now")
	d.acceptsAt(0, "bob", 8)
}

// Another seed has a counter of its own, whatever the old one's was anywhere.
func reseedAfterLoginElsewhere(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 200)
	d.apply(vault.Assign, "alice", 200)
	d.acceptsAt(d.last(), "alice", 205)
	d.seed, d.generation = secret.Random(20), 2
	if o := d.apply(vault.Put, "alice", 4); o.Counter != 4 {
		t.Fatalf("the new seed's counter is %d, want 4", o.Counter)
	}
	d.settle()
	for provider := range d.service.Providers() {
		if got := d.next(provider); got != 4 {
			t.Errorf("provider %d has the new seed at %d, want 4", provider, got)
		}
	}
	d.acceptsAt(d.last(), "alice", 4)
}

func observesAllProviders(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	for provider := range d.service.Providers() {
		n := uint64(4 * (provider + 1))
		d.acceptsAt(provider, "alice", n)
		d.expect(syncer.Observation{Exists: true, Counter: n + 1, Owner: "alice", Enabled: true})
	}
}
