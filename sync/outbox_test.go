package syncer_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/sync/hotpscan"
	"tokendesk/sync/openldap"
	"tokendesk/sync/synctest"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

const (
	tokenA device.TokenID = "yk-1111111/otp2"
	tokenB device.TokenID = "yk-2222222/otp2"
)

// office is a vault, a directory and the outbox between them.
type office struct {
	*testing.T
	slapd *synctest.Slapd
	gate  *synctest.Gate
	v     *vault.Vault
	c     syncer.Connector
	o     *syncer.Outbox
	log   *record
	seeds []secret.Secret
}

var quick = syncer.Backoff{Min: time.Millisecond, Max: 20 * time.Millisecond}

var officer = audit.Officer{UID: 1000, Name: "olga"}

func open(t *testing.T, b syncer.Backoff) *office {
	t.Helper()
	s, err := synctest.StartSlapd(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	g, err := synctest.NewGate(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return (&office{T: t, slapd: s, gate: g}).desk(b)
}

// anotherDesk has a vault of its own and the same directory.
func (f *office) anotherDesk() *office {
	f.Helper()
	return (&office{T: f.T, slapd: f.slapd, gate: f.gate}).desk(quick)
}

func (f *office) desk(b syncer.Backoff) *office {
	f.Helper()
	f.v, f.log = vaulttest.New(f.T), &record{}
	c, err := openldap.New(openldap.Config{URL: f.gate.URL, BindDN: f.slapd.BindDN, Password: secret.New([]byte(f.slapd.Password)),
		PeopleBase: synctest.PeopleBase, TokensBase: synctest.TokensBase, Timeout: 5 * time.Second,
		Params: map[int]string{6: synctest.Params6, 8: synctest.Params8}, Desk: f.v.ID()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { c.Close() })
	f.c = c
	f.o = syncer.NewOutbox(f.v, c, slog.New(f.log.handler()), b)
	return f
}

// enroll puts an active token with a fresh seed into the vault.
func (f *office) enroll(id device.TokenID, generation int, counter uint64) secret.Secret {
	f.Helper()
	seed := secret.Random(20)
	f.seeds = append(f.seeds, seed)
	f.update(func(tx *vault.Tx) error {
		if err := tx.SetSeed(id, generation, seed); err != nil {
			return err
		}
		serial, _ := id.Device().Serial()
		return tx.PutToken(vault.Token{ID: id, Serial: serial, Status: vault.Active, Digits: 6, Counter: counter, Generation: generation, Created: time.Now()})
	})
	return seed
}

// alter changes a token and leaves word of it, in one transaction, as the desk does.
func (f *office) alter(id device.TokenID, kind vault.ChangeKind, how func(*vault.Token)) uint64 {
	f.Helper()
	var c vault.Change
	f.update(func(tx *vault.Tx) error {
		t, err := tx.Token(id)
		if err != nil {
			return err
		}
		before := t.Owner
		how(&t)
		c, err = tx.Enqueue(vault.Change{Kind: kind, Token: id, User: cmp.Or(t.Owner, before), Generation: t.Generation, Counter: t.Counter, Digits: t.Digits})
		return errors.Join(err, tx.PutToken(t))
	})
	f.o.Wake()
	return c.Seq
}

func (f *office) assign(id device.TokenID, user string) uint64 {
	f.Helper()
	return f.alter(id, vault.Assign, func(t *vault.Token) { t.Owner = user })
}

func (f *office) unassign(id device.TokenID) uint64 {
	f.Helper()
	return f.alter(id, vault.Unassign, func(t *vault.Token) { t.Owner = "" })
}

func (f *office) disable(id device.TokenID) uint64 {
	f.Helper()
	return f.alter(id, vault.Disable, func(t *vault.Token) { t.Status = vault.Disabled })
}

func (f *office) enable(id device.TokenID) uint64 {
	f.Helper()
	return f.alter(id, vault.Enable, func(t *vault.Token) { t.Status = vault.Active })
}

func (f *office) update(fn func(*vault.Tx) error) {
	f.Helper()
	if err := f.v.Update(fn); err != nil {
		f.Fatal(err)
	}
}

func (f *office) enqueue(kind vault.ChangeKind, id device.TokenID, user string, generation int, counter uint64) uint64 {
	f.Helper()
	var c vault.Change
	f.update(func(tx *vault.Tx) (err error) {
		c, err = tx.Enqueue(vault.Change{Kind: kind, Token: id, User: user, Generation: generation, Counter: counter, Digits: 6})
		return err
	})
	f.o.Wake()
	return c.Seq
}

func (f *office) changes() (all []vault.Change) {
	f.Helper()
	if err := f.v.View(func(tx *vault.Tx) (err error) {
		all, err = tx.Changes()
		return err
	}); err != nil {
		f.Fatal(err)
	}
	return all
}

func (f *office) left() (seqs []uint64) {
	f.Helper()
	for _, c := range f.changes() {
		seqs = append(seqs, c.Seq)
	}
	return seqs
}

func (f *office) deliver() int {
	f.Helper()
	n, err := f.o.Deliver(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	return n
}

// run starts the worker and stops it with the test.
func (f *office) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.o.Run(ctx) }()
	f.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			f.Errorf("Run: %v", err)
		}
	})
}

func (f *office) wait(seq uint64) error {
	ctx, cancel := context.WithTimeout(f.Context(), 20*time.Second)
	defer cancel()
	return f.o.Wait(ctx, seq)
}

func (f *office) login(user string, seed secret.Secret, n uint64) bool {
	return f.slapd.Login(user, hotpscan.Code(seed, 6, n)) == nil
}

func (f *office) counter(id device.TokenID) uint64 {
	f.Helper()
	var t vault.Token
	if err := f.v.View(func(tx *vault.Tx) (err error) {
		t, err = tx.Token(id)
		return err
	}); err != nil {
		f.Fatal(err)
	}
	return t.Counter
}

func TestDeliversInOrderAndRaisesTheCounter(t *testing.T) {
	f := open(t, quick)
	f.run()
	seed := f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	if err := f.wait(f.assign(tokenA, "alice")); err != nil {
		t.Fatal(err)
	}
	if !f.login("alice", seed, 6) {
		t.Fatal("alice cannot log in")
	}
	if base, seen, err := f.o.Observe(t.Context(), tokenA); err != nil || base != 7 || seen.Owner != "alice" {
		t.Fatalf("base %d, %+v, %v", base, seen, err)
	}
	if err := f.wait(f.enqueue(vault.Advance, tokenA, "", 1, 3)); err != nil {
		t.Fatal(err)
	}
	if n := f.counter(tokenA); n != 7 {
		t.Errorf("the vault's counter is %d, the service showed 7", n)
	}
}

func TestDrainsAfterAnOutage(t *testing.T) {
	f := open(t, quick)
	f.run()
	seed := f.enroll(tokenA, 1, 0)
	if err := f.wait(f.enqueue(vault.Put, tokenA, "", 1, 0)); err != nil {
		t.Fatal(err)
	}
	f.slapd.Stop()
	f.assign(tokenA, "alice")
	f.log.await(t, "cannot deliver yet", 3)
	last := f.enqueue(vault.Advance, tokenA, "", 1, 5)
	if c := f.changes()[0]; c.Parked || c.Attempts < 3 || c.Problem == "" || c.NotBefore.IsZero() {
		t.Errorf("an entry in backoff looks like this: %+v", c)
	}
	if err := f.slapd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := f.wait(last); err != nil {
		t.Fatal(err)
	}
	if left := f.left(); len(left) > 0 || !f.login("alice", seed, 5) {
		t.Errorf("left: %v; or alice cannot log in", left)
	}
}

// The state of a pause stands in the change, so another process goes on where this one stopped.
func TestBackoffSurvivesRestart(t *testing.T) {
	f := open(t, syncer.Backoff{Min: time.Hour, Max: 3 * time.Hour})
	f.gate.Judge(func(uint8) synctest.Verdict { return synctest.Busy })
	f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	for attempt, longest := range []time.Duration{time.Hour, 2 * time.Hour, 3 * time.Hour, 3 * time.Hour} {
		before := time.Now()
		if n := f.deliver(); n != 1 {
			t.Fatalf("%d left", n)
		}
		c := f.changes()[0]
		if pause := c.NotBefore.Sub(before); c.Attempts != attempt+1 || pause < longest/2 || pause > longest+time.Minute {
			t.Fatalf("attempt %d: %+v, a pause of %s", attempt+1, c, pause)
		}
	}
	f.gate.Judge(func(uint8) synctest.Verdict { return synctest.Pass })
	f.o = syncer.NewOutbox(f.v, f.c, slog.New(f.log.handler()), syncer.Backoff{Min: time.Hour, Max: 3 * time.Hour})
	f.run()                // a fresh worker honours the pause …
	f.enroll(tokenB, 1, 0) // … which is this token's alone
	if err := f.wait(f.enqueue(vault.Put, tokenB, "", 1, 0)); err != nil {
		t.Fatal(err)
	}
	if left := f.left(); len(left) != 1 {
		t.Fatalf("left: %v", left)
	}
	if err := f.o.Retry(officer, f.left()[0]); err != nil { // until somebody asks for it
		t.Fatal(err)
	}
	if err := f.wait(1); err != nil {
		t.Fatal(err)
	}
}

func TestRefusedIsParkedAndHoldsBackItsTokenOnly(t *testing.T) {
	f := open(t, quick)
	f.enroll(tokenA, 1, 0)
	seedB := f.enroll(tokenB, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	refused := f.assign(tokenA, "dave")
	behind := f.enqueue(vault.Advance, tokenA, "", 1, 9)
	f.enqueue(vault.Put, tokenB, "", 1, 0)
	f.assign(tokenB, "bob")
	f.run()
	if err := f.wait(refused); !errors.Is(err, syncer.ErrParked) || !strings.Contains(err.Error(), "dave") {
		t.Fatalf("got %v, want it parked for dave", err)
	}
	if err := f.wait(5); err != nil || !f.login("bob", seedB, 0) {
		t.Fatalf("the other token was held back: %v", err)
	}
	if left := f.left(); !slices.Equal(left, []uint64{refused, behind}) {
		t.Fatalf("left: %v", left)
	}
	if n := f.deliver(); n != 2 {
		t.Fatalf("a parked entry was tried: %d left", n)
	}
	err := f.slapd.AsAdmin(func(c *ldap.Conn) error {
		a := ldap.NewAddRequest("uid=dave,"+synctest.PeopleBase, nil)
		a.Attribute("objectClass", []string{"inetOrgPerson"})
		a.Attribute("cn", []string{"dave"})
		a.Attribute("sn", []string{"dave"})
		return c.Add(a)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.o.Retry(officer, refused); err != nil {
		t.Fatal(err)
	}
	if err := f.wait(behind); err != nil {
		t.Fatal(err)
	}
	if err := f.o.Retry(officer, refused); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("retrying what is gone: %v", err)
	}
}

// Two tokens change hands: neither successor gets one before the cut-off that concerns them was confirmed.
func TestAssignWaitsForCutOff(t *testing.T) {
	f := open(t, quick)
	f.enroll(tokenA, 1, 0)
	f.enroll(tokenB, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.enqueue(vault.Put, tokenB, "", 1, 0)
	f.assign(tokenA, "alice")
	if n := f.deliver(); n != 0 {
		t.Fatalf("%d left", n)
	}
	cut := f.unassign(tokenA)
	given := f.assign(tokenB, "Alice") // directories compare names without case
	f.gate.Judge(func(op uint8) synctest.Verdict {
		if op == ldap.ApplicationModifyRequest {
			return synctest.Busy
		}
		return synctest.Pass
	})
	f.deliver()
	all := f.changes()
	if len(all) != 2 || all[0].Attempts != 1 || all[1].Attempts != 0 {
		t.Fatalf("the assignment was tried before the cut-off: %+v", all)
	}
	f.gate.Judge(func(uint8) synctest.Verdict { return synctest.Pass })
	f.run()
	if err := errors.Join(f.wait(cut), f.wait(given)); err != nil {
		t.Fatal(err)
	}
}

// A cut-off overtakes the new seed and so shows the counter of the one before, which says nothing about the new one.
func TestOldCounterIsNotTakenForTheNewSeed(t *testing.T) {
	f := open(t, quick)
	f.enroll(tokenA, 1, 500)
	f.enqueue(vault.Put, tokenA, "", 1, 500)
	f.deliver()
	f.assign(tokenA, "alice")
	f.unassign(tokenA)
	f.enroll(tokenA, 2, 16)
	f.enqueue(vault.Put, tokenA, "", 2, 16)
	f.disable(tokenA)
	if n := f.deliver(); n != 0 || f.counter(tokenA) != 16 {
		t.Errorf("%d left, the counter is %d, want 16", n, f.counter(tokenA))
	}
	if _, seen, err := f.o.Observe(t.Context(), tokenA); err != nil || seen.Counter != 16 {
		t.Errorf("the service shows %+v, %v", seen, err)
	}
}

// The counter that the service shows belongs to the seed before as long as the new one has not arrived.
func TestObserveIgnoresTheOldSeedsCounter(t *testing.T) {
	f := open(t, quick)
	f.enroll(tokenA, 1, 500)
	f.enqueue(vault.Put, tokenA, "", 1, 500)
	f.deliver()
	f.enroll(tokenA, 2, 16)
	f.enqueue(vault.Put, tokenA, "", 2, 16)
	if base, seen, err := f.o.Observe(t.Context(), tokenA); err != nil || base != 16 || seen.Counter != 500 {
		t.Errorf("base %d, %+v, %v, want the vault's 16", base, seen, err)
	}
	f.slapd.Stop()
	if base, _, err := f.o.Observe(t.Context(), tokenA); !errors.Is(err, syncer.ErrUnavailable) || base != 16 {
		t.Errorf("without the service: base %d, %v", base, err)
	}
}

// Whoever stops waiting is told what the entry fails with.
func TestWaitTellsTheProblem(t *testing.T) {
	f := open(t, quick)
	f.gate.Judge(func(uint8) synctest.Verdict { return synctest.Busy })
	f.enroll(tokenA, 1, 0)
	seq := f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.deliver()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.o.Wait(ctx, seq); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "busy") {
		t.Errorf("Wait: %v", err)
	}
}

func TestRunEndsWithItsVault(t *testing.T) {
	f := open(t, quick)
	if err := f.v.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.o.Run(t.Context()); !errors.Is(err, vault.ErrClosed) {
		t.Errorf("Run: %v", err)
	}
}

// While the vault is locked nothing is delivered; what waits is, once it is open and somebody says so.
func TestRunSleepsWhileLocked(t *testing.T) {
	f := open(t, quick)
	f.enroll(tokenA, 1, 7)
	seq := f.enqueue(vault.Put, tokenA, "", 1, 7)
	if err := f.v.Lock(); err != nil {
		t.Fatal(err)
	}
	f.run()
	f.o.Wake()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var state *vault.StateError
	if err := f.o.Wait(ctx, seq); !errors.As(err, &state) || state.State != vault.StateLocked {
		t.Errorf("Wait: %v", err)
	}
	if err := f.v.Unlock(secret.Secret{}); err != nil {
		t.Fatal(err)
	}
	f.o.Wake()
	if err := f.o.Wait(t.Context(), seq); err != nil {
		t.Error(err)
	}
}

func TestWithoutConnectorEntriesWait(t *testing.T) {
	f := &office{T: t, v: vaulttest.New(t), log: &record{}}
	f.o = syncer.NewOutbox(f.v, nil, slog.New(f.log.handler()), quick)
	f.run()
	f.enroll(tokenA, 1, 7)
	seq := f.enqueue(vault.Put, tokenA, "", 1, 7)
	if n := f.deliver(); n != 1 {
		t.Errorf("%d left, want 1", n)
	}
	if base, seen, err := f.o.Observe(t.Context(), tokenA); err != nil || base != 7 || seen.Exists {
		t.Errorf("base %d, %+v, %v", base, seen, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	waited := make(chan error, 1)
	go func() { waited <- f.o.Wait(ctx, seq) }()
	cancel()
	if err := <-waited; !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v", err)
	}
	f.update(func(tx *vault.Tx) error { return tx.DeleteChange(seq) }) // removed by somebody
	f.o.Wake()
	if err := f.wait(seq); err != nil {
		t.Errorf("Wait for a removed entry: %v", err)
	}
}

// The service repeats requests in its answers; neither log nor entries may.
func TestNoSecretInLogOrEntries(t *testing.T) {
	f := open(t, quick)
	f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.assign(tokenA, "alice") // only a token with an owner has its seed sent
	for _, op := range []uint8{ldap.ApplicationBindRequest, ldap.ApplicationAddRequest, ldap.ApplicationCompareRequest, ldap.ApplicationModifyRequest} {
		f.gate.Judge(func(got uint8) synctest.Verdict {
			if got == op {
				return synctest.Echo
			}
			return synctest.Pass
		})
		if f.deliver() == 0 {
			t.Fatalf("operation %d was never sent", op)
		}
		entries, err := json.Marshal(f.changes())
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ToLower(f.log.text() + string(entries))
		for _, hidden := range [][]byte{f.seeds[0].Reveal(), []byte(f.slapd.Password)} {
			for _, form := range []string{string(hidden), hex.EncodeToString(hidden), base32.StdEncoding.EncodeToString(hidden)[:16], base64.StdEncoding.EncodeToString(hidden)[:16]} {
				if strings.Contains(text, strings.ToLower(form)) {
					t.Errorf("operation %d: a secret stands in the log or in an entry", op)
				}
			}
		}
	}
}

// record is a log that can be waited for.
type record struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	grown chan struct{}
}

func (r *record) handler() slog.Handler { return slog.NewJSONHandler(r, nil) }

func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.grown != nil {
		close(r.grown)
		r.grown = nil
	}
	return r.buf.Write(b)
}

func (r *record) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

// await waits until a message was logged n times.
func (r *record) await(t *testing.T, message string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		r.mu.Lock()
		if strings.Count(r.buf.String(), message) >= n {
			r.mu.Unlock()
			return
		}
		if r.grown == nil {
			r.grown = make(chan struct{})
		}
		grown := r.grown
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			t.Fatalf("%q was not logged %d times:\n%s", message, n, r.text())
		case <-grown:
		}
	}
}

// outcomes lists what became of the entries, in order.
func (r *record) outcomes() (all []string) {
	for line := range strings.Lines(r.text()) {
		var l struct{ Msg, Kind string }
		if json.Unmarshal([]byte(line), &l) != nil {
			continue
		}
		switch {
		case l.Msg == "delivered":
			all = append(all, "delivered "+l.Kind)
		case strings.HasPrefix(l.Msg, "dropped"):
			all = append(all, "obsolete "+l.Kind)
		}
	}
	return all
}
