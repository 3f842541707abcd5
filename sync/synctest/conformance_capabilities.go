package synctest

import (
	"errors"
	"testing"
	"time"

	syncer "tokendesk/sync"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// capabilityCases prove what a connector declares. What it does not declare is not asked for.
var capabilityCases = []conformanceCase{
	{"DeclaresSense", declaresSense},
	{"Stores", stores},
	{"LookAhead", lookAhead},
	{"SetCounter", setCounter},
	{"CompareAndSet", compareAndSet},
	{"FailClosed", failClosed},
	{"ReadsBack", readsBack},
	{"ReadsBackFingerprint", readsBackFingerprint},
	{"FindsUsers", findsUsers},
	{"TokensPerUser", tokensPerUser},
}

func declaresSense(t *testing.T, d *desk) {
	c := d.c.Capabilities()
	if c.Stores != syncer.NextCounter && c.Stores != syncer.LastCounter {
		t.Errorf("it stores %q", c.Stores)
	}
	if c.SetCounter != syncer.MoveAbsolute && c.SetCounter != syncer.MoveForward && c.SetCounter != syncer.MoveNone {
		t.Errorf("counters can be set %q", c.SetCounter)
	}
	if c.LookAhead < 0 || c.TokensPerUser < 0 {
		t.Errorf("look-ahead %d, %d tokens per user", c.LookAhead, c.TokensPerUser)
	}
	if c.ResyncCodes != 0 && c.ResyncCodes != 2 && c.ResyncCodes != 3 {
		t.Errorf("its resync takes %d codes", c.ResyncCodes)
	}
	if c.SetCounter == syncer.MoveNone && c.ResyncCodes == 0 {
		t.Error("neither the service nor the desk could ever bring a token back into step")
	}
	if d.c.Name() == "" {
		t.Error("it has no name")
	}
	seen := make(map[string]bool)
	for _, p := range d.c.Providers() {
		if p == "" || seen[p] {
			t.Errorf("provider %q has no name of its own", p)
		}
		seen[p] = true
	}
}

func (d *desk) stored(provider int) int64 {
	d.t.Helper()
	n, err := d.service.Stored(provider, d.token.Central())
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

// next is the stored counter as the desk counts.
func (d *desk) next(provider int) int64 {
	d.t.Helper()
	n := d.stored(provider)
	if d.c.Capabilities().Stores == syncer.LastCounter {
		n++
	}
	return n
}

func stores(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	d.accepts("alice", 4)
	want := int64(5)
	if d.c.Capabilities().Stores == syncer.LastCounter {
		want = 4
	}
	if got := d.stored(d.at); got != want {
		t.Fatalf("after a login with code 4 the service has %d, want %d", got, want)
	}
	d.expect(syncer.Observation{Exists: true, Counter: 5, Owner: "alice", Enabled: true})
}

func lookAhead(t *testing.T, d *desk) {
	d.c.Check(t.Context()) // it may have to ask the service
	ahead := uint64(d.c.Capabilities().LookAhead)
	if ahead == 0 {
		return // the service does not tell
	}
	d.apply(vault.Put, "", 3)
	d.apply(vault.Assign, "alice", 3)
	d.rejects("alice", d.code(3+ahead+1), "it is beyond the look-ahead")
	d.accepts("alice", 3+ahead)
}

func setCounter(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	move := d.c.Capabilities().SetCounter
	if move == syncer.MoveNone {
		d.refused(vault.Advance, "alice")
		return
	}
	d.apply(vault.Advance, "alice", 4000)
	d.accepts("alice", 4000)
	if move == syncer.MoveForward {
		return
	}
	d.seed, d.generation = secret.Random(20), 2
	d.apply(vault.Put, "alice", 7) // only with another seed
	d.accepts("alice", 7)
}

// A login between reading and writing is not lost.
func compareAndSet(t *testing.T, d *desk) {
	if !d.c.Capabilities().CompareAndSet {
		return
	}
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	d.at = 0
	for round, kind := range []vault.ChangeKind{vault.Advance, vault.Put, vault.Enable, vault.Assign} {
		base := d.observe().Counter
		var login error
		happened := false
		if err := d.service.BeforeWrite(func() {
			happened = true
			for provider := range d.service.Providers() {
				login = errors.Join(login, d.service.LoginAt(provider, "alice", d.code(base+6)))
			}
		}); err != nil && d.behindFlaky() {
			return // TLS hides where a write begins; proven without it
		} else if err != nil {
			t.Fatalf("compare-and-set is declared and cannot be proven: %v", err)
		}
		seen, err := d.try(kind, "alice", base+3) // lower than what the login leaves
		if err != nil || !happened || login != nil {
			t.Fatalf("round %d: %s: %v; the login happened: %t, %v", round, kind, err, happened, login)
		}
		if want := base + 7; seen.Counter != want {
			t.Fatalf("%s after a login in between left the counter at %d, want %d", kind, seen.Counter, want)
		}
		d.settle()
		d.rejects("alice", d.code(base+6), "the code was used between reading and writing")
	}
}

func failClosed(t *testing.T, d *desk) {
	if !d.c.Capabilities().FailClosed {
		return
	}
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	d.accepts("alice", 0)
	d.apply(vault.Disable, "alice", 0)
	for n := range uint64(5) {
		d.rejects("alice", d.code(n), "the token is disabled")
	}
	d.rejects("alice", "", "disabled is not the same as bare password")
}

func readsBack(t *testing.T, d *desk) {
	facts := d.c.Capabilities().ReadsBack
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	if r := d.reading(d.at, d.token.Central()); facts.LastUsed && !r.LastUsed.IsZero() {
		t.Fatalf("never used, and last used %v", r.LastUsed)
	}
	begin := time.Now().Add(-2 * time.Second) // directories count whole seconds
	d.accepts("alice", 5)
	seen, r := d.observe(), d.reading(d.at, d.token.Central())
	if facts.Counter && (seen.Counter != 6 || r.Counter != 6) {
		t.Errorf("after a login with code 5 it shows %d and %d, want 6", seen.Counter, r.Counter)
	}
	if facts.Owner && seen.Owner != "alice" {
		t.Errorf("the owner is %q, want alice", seen.Owner)
	}
	if facts.LastUsed && (r.LastUsed.Before(begin) || r.LastUsed.After(time.Now().Add(2*time.Second))) {
		t.Errorf("last used %v, want just now", r.LastUsed)
	}
}

// One seed keeps its counter, another one replaces it: so the connector can tell them apart.
func readsBackFingerprint(t *testing.T, d *desk) {
	if !d.c.Capabilities().ReadsBack.Fingerprint {
		return
	}
	d.apply(vault.Put, "alice", 100)
	d.apply(vault.Assign, "alice", 100)
	if o := d.apply(vault.Put, "alice", 2); o.Counter != 100 {
		t.Errorf("the same seed's counter went from 100 to %d", o.Counter)
	}
	d.seed = secret.Random(20)
	if o := d.apply(vault.Put, "alice", 2); o.Counter != 2 {
		t.Errorf("another seed has the counter %d, want 2", o.Counter)
	}
	d.accepts("alice", 2)
}

func findsUsers(t *testing.T, d *desk) {
	if !d.c.Capabilities().FindsUsers {
		return
	}
	for _, name := range Users {
		if u, err := d.c.FindUser(t.Context(), name); err != nil || u.Name != name {
			t.Errorf("%s is %+v, %v", name, u, err)
		}
	}
	if u, err := d.c.FindUser(t.Context(), "nobody"); !errors.Is(err, syncer.ErrRefused) {
		t.Errorf("nobody is %+v, %v, want a refusal", u, err)
	}
}

func tokensPerUser(t *testing.T, d *desk) {
	second := d.another("yk-7654321/otp1")
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	second.apply(vault.Put, "", 0)
	switch limit := d.c.Capabilities().TokensPerUser; limit {
	case 0:
		second.apply(vault.Assign, "alice", 0)
		d.accepts("alice", 0)
		second.accepts("alice", 0)
	case 1:
		second.refused(vault.Assign, "alice")
		d.accepts("alice", 0)
		d.apply(vault.Unassign, "alice", 0)
		second.apply(vault.Assign, "alice", 0)
		second.accepts("alice", 0)
		d.rejects("alice", d.code(1), "the second token took its place")
	default:
		t.Fatalf("%d tokens per user: write the case that proves it", limit)
	}
}
