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

// Service is the central service behind a connector, as others than the desk use it.
type Service interface {
	// Login tries to log a user in with the password and a code; an empty code is the bare password.
	Login(user, code string) error
	// Move puts a user where the connector does not look, without taking anything from them.
	Move(user string) error
}

// Conformance is what every connector has to pass. open gives a connector, which counts generations
// for a desk of some name, to an empty service with the users alice, bob and carol (and nobody called "nobody").
func Conformance(t *testing.T, open func(t *testing.T) (syncer.Connector, Service)) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, d *desk)
	}{
		{"UnknownToken", unknownToken},
		{"PutAssignLogin", putAssignLogin},
		{"StockIsNotAccepted", stockIsNotAccepted},
		{"NoSeedNoSecret", noSeedNoSecret},
		{"CounterNeverLowered", counterNeverLowered},
		{"Advance", advance},
		{"UnassignClosesTheDoor", unassignClosesTheDoor},
		{"UnassignReachesTheUnseen", unassignReachesTheUnseen},
		{"DisableEnable", disableEnable},
		{"Reseed", reseed},
		{"HandOver", handOver},
		{"HandOverOfTheSameSeed", handOverOfTheSameSeed},
		{"UnknownUser", unknownUser},
		{"SecondToken", secondToken},
		{"OneUserPerToken", oneUserPerToken},
		{"EightDigits", eightDigits},
		{"Healthy", healthy},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, service := open(t)
			c.test(t, &desk{t: t, c: conn, service: service, seed: secret.Random(20), token: "yk-1234567/otp2", generation: 1, digits: 6})
		})
	}
}

// desk is one token and the service.
type desk struct {
	t          *testing.T
	c          syncer.Connector
	service    Service
	token      device.TokenID
	seed       secret.Secret
	generation int
	digits     int
}

func (d *desk) change(kind vault.ChangeKind, user string, counter uint64) vault.Change {
	return vault.Change{Kind: kind, Token: d.token, User: user, Generation: d.generation, Counter: counter, Digits: d.digits}
}

// try makes a change as the outbox does for an active token: with its seed if it has an owner.
func (d *desk) try(kind vault.ChangeKind, user string, counter uint64) (syncer.Observation, error) {
	var seed secret.Secret
	if user != "" && (kind == vault.Put || kind == vault.Assign || kind == vault.Enable) {
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
	if err := d.service.Login(user, d.code(n)); err != nil {
		d.t.Fatalf("login of %s with code %d: %v", user, n, err)
	}
}

func (d *desk) rejects(user, code, why string) {
	d.t.Helper()
	if d.service.Login(user, code) == nil {
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
	if u, err := d.c.FindUser(t.Context(), "alice"); err != nil || u.Name != "alice" || len(u.Tokens) != 0 {
		t.Fatalf("alice is %+v, %v", u, err)
	}
	d.refused(vault.Assign, "alice")
	d.refused(vault.Advance, "")
	d.apply(vault.Unassign, "alice", 0)
	d.apply(vault.Disable, "", 0)
}

func putAssignLogin(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 2)
	d.expect(syncer.Observation{Exists: true, Counter: 2})
	d.apply(vault.Assign, "alice", 2)
	d.expect(syncer.Observation{Exists: true, Counter: 2, Owner: "alice", Enabled: true})
	if u, err := d.c.FindUser(t.Context(), "alice"); err != nil || u.Name != "alice" || len(u.Tokens) != 1 || u.Tokens[0] != d.token.Central() {
		t.Fatalf("alice is %+v, %v, want her with %s", u, err, d.token.Central())
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
	d.expect(syncer.Observation{Exists: true})
	for _, user := range []string{"alice", "bob"} {
		d.rejects(user, d.code(0), "nobody owns the token")
	}
}

// A change without a seed takes away what is there.
func noSeedNoSecret(t *testing.T, d *desk) {
	d.apply(vault.Put, "alice", 5)
	d.expect(syncer.Observation{Exists: true, Counter: 5, Enabled: true})
	for _, kind := range []vault.ChangeKind{vault.Assign, vault.Put, vault.Enable} {
		d.apply(vault.Assign, "alice", 5)
		d.expect(syncer.Observation{Exists: true, Counter: 5, Owner: "alice", Enabled: true})
		seen, err := d.c.Apply(t.Context(), d.change(kind, "alice", 3), secret.Secret{})
		if want := (syncer.Observation{Exists: true, Counter: 5, Owner: "alice"}); err != nil || seen != want {
			t.Fatalf("%s without a seed: %+v, %v, want %+v", kind, seen, err, want)
		}
		d.rejects("alice", d.code(5), "the vault says that its codes may not be accepted")
		d.rejects("alice", "", "the bare password must not do once a token was required")
	}
	d.apply(vault.Enable, "alice", 3)
	d.accepts("alice", 5)
}

func counterNeverLowered(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	d.accepts("alice", 5)
	for _, kind := range []vault.ChangeKind{vault.Put, vault.Advance, vault.Enable, vault.Assign} {
		if o := d.apply(kind, "alice", 3); o.Counter != 6 {
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
	d.expect(syncer.Observation{Exists: true, Counter: 1})
	d.rejects("alice", d.code(1), "the token was taken away")
	d.rejects("alice", "", "the bare password must not do once a token was required")
}

func unassignReachesTheUnseen(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	if err := d.service.Move("alice"); err != nil {
		t.Fatal(err)
	}
	d.accepts("alice", 0) // nothing was taken from her
	d.apply(vault.Unassign, "alice", 0)
	d.rejects("alice", d.code(1), "the token was taken away, wherever she is")
	d.rejects("alice", "", "the bare password must not do once a token was required")
	d.apply(vault.Put, "", 0)
	d.rejects("alice", d.code(1), "stock is nobody's")
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
	d.apply(vault.Put, "alice", 16)
	d.expect(syncer.Observation{Exists: true, Counter: 16, Owner: "alice", Enabled: true})
	d.rejects("alice", old.code(101), "the seed was replaced")
	d.accepts("alice", 16)
	for _, kind := range []vault.ChangeKind{vault.Put, vault.Assign, vault.Enable, vault.Advance} {
		old.refused(kind, "alice")
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
	d.apply(vault.Put, "bob", 0)
	d.rejects("bob", d.code(0), "nothing was assigned yet")
	d.apply(vault.Assign, "bob", 0)
	d.rejects("alice", leaver.code(1), "the leaver was cut off")
	d.rejects("alice", d.code(0), "it is the successor's token")
	d.rejects("bob", leaver.code(1), "the seed was replaced")
	d.accepts("bob", 0)
}

func handOverOfTheSameSeed(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "alice", 0)
	d.accepts("alice", 7)
	d.apply(vault.Unassign, "alice", 0)
	d.apply(vault.Assign, "bob", 0)
	d.rejects("alice", d.code(8), "it is bob's now")
	d.rejects("bob", d.code(7), "the code was used, by alice")
	d.accepts("bob", 8)
}

func unknownUser(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	for _, user := range []string{"nobody", "*", "alice)(uid=*", ""} {
		d.refused(vault.Assign, user)
		if _, err := d.c.FindUser(t.Context(), user); !errors.Is(err, syncer.ErrRefused) {
			t.Fatalf("looking %q up: got %v, want a refusal", user, err)
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
	d.refused(vault.Put, "carol")
	d.refused(vault.Put, "")
	d.accepts("alice", 0)
}

func eightDigits(t *testing.T, d *desk) {
	d.digits = 8
	d.apply(vault.Put, "", 0)
	d.apply(vault.Assign, "carol", 0)
	d.accepts("carol", 3)
	d.digits = 7 // RFC 4226 allows it, YubiKeys do not
	d.refused(vault.Put, "carol")
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
