package synctest

import (
	"errors"
	"testing"

	syncer "tokendesk/sync"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// changeCases are about what each change leaves behind.
var changeCases = []conformanceCase{
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
	{"OneUserPerToken", oneUserPerToken},
	{"EightDigits", eightDigits},
	{"Healthy", healthy},
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
	d.used("alice", 2)
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
