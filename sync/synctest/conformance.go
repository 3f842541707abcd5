package synctest

import (
	"errors"
	"slices"
	"testing"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// Open gives a connector, which counts generations for a desk of some name, and the empty service behind it
// with the users alice, bob and carol (and nobody called "nobody").
type Open func(t *testing.T) (syncer.Connector, Service)

type conformanceCase struct {
	name string
	test func(t *testing.T, d *desk)
}

// Conformance is what every connector has to pass, on one provider or several.
func Conformance(t *testing.T, open Open) {
	for _, cases := range [][]conformanceCase{changeCases, removeCases, capabilityCases, readingCases, providerCases} {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				conn, service := open(t)
				if got := len(conn.Providers()); got != service.Providers() {
					t.Fatalf("the connector names %d providers, the service has %d", got, service.Providers())
				}
				// With several providers, now the one and now the other is where users log in.
				d := &desk{t: t, c: conn, service: service, at: len(c.name) % service.Providers(),
					seed: secret.Random(20), token: "yk-1234567/otp2", generation: 1, digits: 6}
				c.test(t, d)
				d.nothingLowered()
			})
		}
	}
}

// desk is one token and the service.
type desk struct {
	t          *testing.T
	c          syncer.Connector
	service    Service
	at         int // the provider where users log in
	token      device.TokenID
	seed       secret.Secret
	generation int
	digits     int
}

// withSeed tells changes that bring a seed, if the token has an owner.
var withSeed = []vault.ChangeKind{vault.Put, vault.Assign, vault.Enable}

func (d *desk) change(kind vault.ChangeKind, user string, counter uint64) vault.Change {
	return vault.Change{Kind: kind, Token: d.token, User: user, Generation: d.generation, Counter: counter, Digits: d.digits}
}

// try makes a change as the outbox does for an active token: with its seed if it has an owner.
func (d *desk) try(kind vault.ChangeKind, user string, counter uint64) (syncer.Observation, error) {
	var seed secret.Secret
	if user != "" && slices.Contains(withSeed, kind) {
		seed = d.seed
	}
	return d.c.Apply(d.t.Context(), d.change(kind, user, counter), seed)
}

// apply makes the change twice: delivery is at least once, so the second time must not hurt, and writes nothing.
func (d *desk) apply(kind vault.ChangeKind, user string, counter uint64) syncer.Observation {
	d.t.Helper()
	before := len(d.writes())
	first, err := d.try(kind, user, counter)
	if err != nil {
		d.t.Fatalf("%s: %v", kind, err)
	}
	written := d.writes()
	for _, w := range written[min(before, len(written)):] {
		if !w.Changes() {
			d.t.Fatalf("%s wrote what was there already: %s", kind, w)
		}
	}
	second, err := d.try(kind, user, counter)
	if err != nil {
		d.t.Fatalf("%s for the second time: %v", kind, err)
	}
	if first != second {
		d.t.Fatalf("%s is not idempotent: %+v, then %+v", kind, first, second)
	}
	if d.behindFlaky() { // one provider may have missed both times, and has it from the others
		d.settle()
	}
	if again := d.writes(); len(again) > len(written) {
		d.t.Fatalf("%s for the second time wrote again: %v", kind, again)
	}
	if seen := d.observe(); seen != first {
		d.t.Fatalf("%s said %+v, the service shows %+v", kind, first, seen)
	}
	return first
}

// writes is what the service has logged, in order; nothing if it keeps no log. Behind a Flaky only what changed
// something counts: who has lost an answer may write again to be sure.
func (d *desk) writes() []Write {
	d.t.Helper()
	logged, ok := d.service.(Logged)
	if !ok {
		return nil
	}
	all, err := logged.Writes()
	if err != nil {
		d.t.Fatalf("the access log: %v", err)
	}
	if d.behindFlaky() {
		all = slices.DeleteFunc(all, func(w Write) bool { return !w.Changes() })
	}
	slices.SortStableFunc(all, func(a, b Write) int { return a.Time.Compare(b.Time) })
	return all
}

// nothingLowered holds at the end of every case.
func (d *desk) nothingLowered() {
	d.t.Helper()
	d.settle()
	if logged, ok := d.service.(Logged); ok {
		if all, err := logged.Lowered(); err != nil || len(all) > 0 {
			d.t.Errorf("a counter was lowered: %v, %v", all, err)
		}
	}
}

func (d *desk) behindFlaky() bool {
	_, yes := d.c.(*insistent)
	return yes
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
	d.acceptsAt(d.at, user, n)
}

func (d *desk) acceptsAt(provider int, user string, n uint64) {
	d.t.Helper()
	if err := d.service.LoginAt(provider, user, d.code(n)); err != nil {
		d.t.Fatalf("login of %s with code %d at provider %d: %v", user, n, provider, err)
	}
}

// rejects tries all providers.
func (d *desk) rejects(user, code, why string) {
	d.t.Helper()
	for provider := range d.service.Providers() {
		if d.service.LoginAt(provider, user, code) == nil {
			d.t.Fatalf("login of %s was accepted at provider %d: %s", user, provider, why)
		}
	}
}

// used tells that a code is not accepted again where it was used. Other providers may not know of a login before
// the desk's next write.
func (d *desk) used(user string, n uint64) {
	d.t.Helper()
	if d.service.LoginAt(d.at, user, d.code(n)) == nil {
		d.t.Fatalf("code %d of %s was accepted twice", n, user)
	}
}

func (d *desk) refused(kind vault.ChangeKind, user string) {
	d.t.Helper()
	before, written := d.observe(), len(d.writes())
	if _, err := d.try(kind, user, 0); !errors.Is(err, syncer.ErrRefused) {
		d.t.Fatalf("%s: got %v, want a refusal", kind, err)
	}
	d.expect(before)
	if all := d.writes(); len(all) != written {
		d.t.Fatalf("%s was refused and wrote all the same: %v", kind, all)
	}
}

// settle waits for replication.
func (d *desk) settle() {
	d.t.Helper()
	if err := d.service.Settle(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
}

// another is a second token of the same desk.
func (d *desk) another(token device.TokenID) *desk {
	other := *d
	other.token, other.seed = token, secret.Random(20)
	return &other
}
