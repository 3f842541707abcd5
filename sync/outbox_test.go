package syncer_test

import (
	"context"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
	"tokendesk/sync/synctest"
	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

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
