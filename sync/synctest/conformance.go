package synctest

import (
	"errors"
	"testing"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// Login tries to log a user in at the central service with the password and a code; an empty code
// is the bare password.
type Login = func(user, code string) error

// Conformance is what every connector has to pass. open gives a connector to an empty service with
// the users alice, bob and carol (and nobody called "nobody"), and a way to really log in there.
func Conformance(t *testing.T, open func(t *testing.T) (syncer.Connector, Login)) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, d *desk)
	}{
		{"UnknownToken", unknownToken},
		{"PutAssignLogin", putAssignLogin},
		{"StockIsNotAccepted", stockIsNotAccepted},
		{"CounterNeverLowered", counterNeverLowered},
		{"Advance", advance},
		{"UnassignClosesTheDoor", unassignClosesTheDoor},
		{"DisableEnable", disableEnable},
		{"Reseed", reseed},
		{"HandOver", handOver},
		{"UnknownUser", unknownUser},
		{"SecondToken", secondToken},
		{"OneUserPerToken", oneUserPerToken},
		{"EightDigits", eightDigits},
		{"Healthy", healthy},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, login := open(t)
			c.test(t, &desk{t: t, c: conn, login: login, seed: secret.Random(20), token: "yk-1234567/otp2", generation: 1, digits: 6})
		})
	}
}

// desk is one token and the service.
type desk struct {
	t          *testing.T
	c          syncer.Connector
	login      Login
	token      device.TokenID
	seed       secret.Secret
	generation int
	digits     int
}

func (d *desk) change(kind vault.ChangeKind, user string, counter uint64) vault.Change {
	return vault.Change{Kind: kind, Token: d.token, User: user, Generation: d.generation, Counter: counter, Digits: d.digits}
}

func (d *desk) try(kind vault.ChangeKind, user string, counter uint64) (syncer.Observation, error) {
	var seed secret.Secret
	if kind == vault.Put || kind == vault.Enable {
		seed = d.seed
	}
	return d.c.Apply(d.t.Context(), d.change(kind, user, counter), seed)
}

// apply makes the change twice: delivery is at least once, so the second time must not hurt.
func (d *desk) apply(kind vault.ChangeKind, user string, counter uint64) syncer.Observation {
	d.t.Helper()
	first, err := d.try(kind, user, counter)
	if err != nil {
		d.t.Fatalf("%s: %v", kind, err)
	}
	second, err := d.try(kind, user, counter)
	if err != nil {
		d.t.Fatalf("%s for the second time: %v", kind, err)
	}
	if first != second {
		d.t.Fatalf("%s is not idempotent: %+v, then %+v", kind, first, second)
	}
	if seen := d.observe(); seen != first {
		d.t.Fatalf("%s said %+v, the service shows %+v", kind, first, seen)
	}
	return first
}

func (d *desk) observe() syncer.Observation {
	d.t.Helper()
	o, err := d.c.Observe(d.t.Context(), d.token)
	if err != nil {
		d.t.Fatalf("observe: %v", err)
	}
	return o
}

func (d *desk) expect(want syncer.Observation) {
	d.t.Helper()
	if got := d.observe(); got != want {
		d.t.Fatalf("the service shows %+v, want %+v", got, want)
	}
}

func (d *desk) code(n uint64) string { return hotpscan.Code(d.seed, d.digits, n) }

func (d *desk) accepts(user string, n uint64) {
	d.t.Helper()
	if err := d.login(user, d.code(n)); err != nil {
		d.t.Fatalf("login of %s with code %d: %v", user, n, err)
	}
}

func (d *desk) rejects(user, code, why string) {
	d.t.Helper()
	if d.login(user, code) == nil {
		d.t.Fatalf("login of %s was accepted: %s", user, why)
	}
}

func (d *desk) refused(kind vault.ChangeKind, user string) {
	d.t.Helper()
	before := d.observe()
	if _, err := d.try(kind, user, 0); !errors.Is(err, syncer.ErrRefused) {
		d.t.Fatalf("%s: got %v, want a refusal", kind, err)
	}
	d.expect(before)
}

func unknownToken(t *testing.T, d *desk) {
	d.expect(syncer.Observation{})
	if names, err := d.c.UserTokens(t.Context(), "alice"); err != nil || len(names) != 0 {
		t.Fatalf("alice has %q, %v", names, err)
	}
	d.refused(vault.Assign, "alice")
	d.refused(vault.Advance, "")
	d.apply(vault.Unassign, "alice", 0)
	d.apply(vault.Disable, "", 0)
}

func putAssignLogin(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 2)
	d.expect(syncer.Observation{Exists: true, Counter: 2, Enabled: true})
	d.apply(vault.Assign, "alice", 2)
	d.expect(syncer.Observation{Exists: true, Counter: 2, Owner: "alice", Enabled: true})
	if names, err := d.c.UserTokens(t.Context(), "alice"); err != nil || len(names) != 1 || names[0] != d.token.Central() {
		t.Fatalf("alice has %q, %v, want %s", names, err, d.token.Central())
	}
	d.rejects("alice", d.code(1), "the code is behind the counter")
	d.accepts("alice", 2)
	d.rejects("alice", d.code(2), "the code was used")
	d.expect(syncer.Observation{Exists: true, Counter: 3, Owner: "alice", Enabled: true})
	d.accepts("alice", 7) // within the look-ahead
	d.expect(syncer.Observation{Exists: true, Counter: 8, Owner: "alice", Enabled: true})
}

func stockIsNotAccepted(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	d.expect(syncer.Observation{Exists: true, Enabled: true})
	for _, user := range []string{"alice", "bob"} {
		d.rejects(user, d.code(0), "nobody owns the token")
	}
}

func counterNeverLowered(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	d.accepts("alice", 5)
	for _, kind := range []vault.ChangeKind{vault.Put, vault.Advance, vault.Enable} {
		if o := d.apply(kind, "", 3); o.Counter != 6 {
			t.Fatalf("%s to 3 left the counter at %d, want 6", kind, o.Counter)
		}
	}
	d.rejects("alice", d.code(5), "the code was used")
	d.accepts("alice", 6)
}

func advance(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	d.apply(vault.Advance, "", 500)
	d.rejects("alice", d.code(499), "the counter was moved beyond it")
	d.accepts("alice", 500)
	d.expect(syncer.Observation{Exists: true, Counter: 501, Owner: "alice", Enabled: true})
}

func unassignClosesTheDoor(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	d.accepts("alice", 0)
	d.apply(vault.Unassign, "alice", 0)
	d.expect(syncer.Observation{Exists: true, Counter: 1, Enabled: true})
	d.rejects("alice", d.code(1), "the token was taken away")
	d.rejects("alice", "", "the bare password must not do once a token was required")
}

func disableEnable(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	d.apply(vault.Disable, "alice", 0)
	d.expect(syncer.Observation{Exists: true, Owner: "alice"})
	d.rejects("alice", d.code(0), "the token is disabled")
	d.rejects("alice", "", "disabled is not the same as bare password")
	d.apply(vault.Advance, "", 4)
	d.expect(syncer.Observation{Exists: true, Counter: 4, Owner: "alice"})
	d.apply(vault.Enable, "alice", 2)
	d.expect(syncer.Observation{Exists: true, Counter: 4, Owner: "alice", Enabled: true})
	d.rejects("alice", d.code(3), "it is behind the counter")
	d.accepts("alice", 4)
}

func reseed(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 100)
	d.apply(vault.Assign, "alice", 100)
	d.accepts("alice", 100)
	old := *d
	d.seed, d.generation = secret.Random(20), 2
	d.apply(vault.Put, "", 16)
	d.expect(syncer.Observation{Exists: true, Counter: 16, Owner: "alice", Enabled: true})
	d.rejects("alice", old.code(101), "the seed was replaced")
	d.accepts("alice", 16)
	for _, kind := range []vault.ChangeKind{vault.Put, vault.Enable, vault.Advance} {
		old.refused(kind, "")
	}
	d.accepts("alice", 17)
}

func handOver(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	d.accepts("alice", 0)
	leaver := *d
	d.apply(vault.Unassign, "alice", 0)
	d.seed, d.generation = secret.Random(20), 2
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "bob", 0)
	d.rejects("alice", leaver.code(1), "the leaver was cut off")
	d.rejects("alice", d.code(0), "it is the successor's token")
	d.rejects("bob", leaver.code(1), "the seed was replaced")
	d.accepts("bob", 0)
}

func unknownUser(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	for _, user := range []string{"nobody", "*", "alice)(uid=*", ""} {
		d.refused(vault.Assign, user)
		if _, err := d.c.UserTokens(t.Context(), user); !errors.Is(err, syncer.ErrRefused) {
			t.Fatalf("tokens of %q: got %v, want a refusal", user, err)
		}
	}
	d.apply(vault.Unassign, "nobody", 0)
}

func secondToken(t *testing.T, d *desk) {
	if d.c.TokensPerUser() != 1 {
		return // the service takes more
	}
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	second := *d
	second.token, second.seed = "yk-7654321/otp1", secret.Random(20)
	second.apply(vault.Put, "", 0)
	second.refused(vault.Assign, "alice")
	d.accepts("alice", 0)
	d.apply(vault.Unassign, "alice", 0)
	second.apply(vault.Assign, "alice", 0)
	second.accepts("alice", 0)
	d.rejects("alice", d.code(1), "the second token took its place")
}

func oneUserPerToken(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	d.refused(vault.Assign, "carol")
	d.accepts("alice", 0)
}

func eightDigits(t *testing.T, d *desk) {
	d.digits = 8
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "carol", 0)
	d.accepts("carol", 3)
	d.digits = 7 // RFC 4226 allows it, YubiKeys do not
	d.refused(vault.Put, "")
}

func healthy(t *testing.T, d *desk) {
	for _, put := range []bool{false, true} {
		if put {
			d.apply(vault.Put, "", 0)
			d.apply(vault.Assign, "alice", 0)
		}
		for _, p := range d.c.Check(t.Context()) {
			t.Errorf("a healthy service has a problem: %s (cure: %s)", p.What, p.Cure)
		}
	}
	d.expect(syncer.Observation{Exists: true, Owner: "alice", Enabled: true})
}
