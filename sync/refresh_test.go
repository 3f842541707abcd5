package syncer_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"os"
	"strings"
	"testing"
	"time"

	syncer "tokendesk/sync"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

func actsOf(tx *vault.Tx) iter.Seq2[audit.Entry, error] {
	return func(yield func(audit.Entry, error) bool) {
		err := tx.Acts(1, func(e audit.Entry) (bool, error) { return yield(e, nil), nil })
		if err != nil {
			yield(audit.Entry{}, err)
		}
	}
}

func TestRefreshLevelsTheProviders(t *testing.T) {
	s := openPair(t)
	seed := s.issue(tokenA, "alice")
	s.once()
	s.wantLoginAt(2, "alice", seed, 4, true)
	s.wantStored(tokenA, 0, 5)
	began := time.Now()
	_, before := vaulttest.Board.Counters()
	r := s.once()
	if r.Read != 2 || r.Moved != 1 || r.Levelled != 1 || r.Rollbacks != 0 || len(r.Missing) != 0 || r.Ended.IsZero() {
		t.Errorf("the report is %+v", r)
	}
	if got := s.token(tokenA); got.Counter != 5 || got.LastUsed.Before(began) {
		t.Errorf("the vault has counter %d, last used %v", got.Counter, got.LastUsed)
	}
	if _, after := vaulttest.Board.Counters(); after != before {
		t.Errorf("a refresh wrote the TPM's memory %d times", after-before)
	}
	if c := s.changes(); len(c) != 1 || c[0].Kind != vault.Advance || c[0].Counter != 5 || c[0].Generation != 1 || c[0].User != "alice" {
		t.Fatalf("the outbox has %+v", c)
	}
	if r := s.once(); r.Levelled != 0 {
		t.Errorf("it was levelled again while that waited: %+v", r)
	}
	s.drain()
	s.wantStored(tokenA, 5, 5)
	s.wantLoginAt(1, "alice", seed, 4, false)
	s.once()
	s.wantQuiet()
}

// wantQuiet has a cycle write nothing.
func (s *site) wantQuiet() {
	s.Helper()
	before, err := os.ReadFile(s.v.Path())
	if err != nil {
		s.Fatal(err)
	}
	r := s.once()
	after, err := os.ReadFile(s.v.Path())
	if err != nil {
		s.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		s.Errorf("a cycle without news has written: %+v", r)
	}
	if r.Moved+r.Levelled+r.Rollbacks+r.Repaired != 0 {
		s.Errorf("a cycle without news reports %+v", r)
	}
	if left := s.changes(); len(left) != 0 {
		s.Errorf("a cycle without news left %+v", left)
	}
}

// An edit of the entry at one provider is replicated with the counter that it has there, over what was counted at the other.
func TestRefreshFindsARollback(t *testing.T) {
	s := openPair(t)
	seed := s.issue(tokenA, "alice")
	s.once()
	s.wantLoginAt(2, "alice", seed, 4, true)
	good := time.Now().Truncate(time.Second)
	s.once() // an Advance waits now
	s.naively(1, tokenA)
	s.wantStored(tokenA, 0, 0)
	s.wantLoginAt(2, "alice", seed, 4, true) // the hazard: that code was used
	s.naively(1, tokenA)
	s.wantStored(tokenA, 0, 0)
	back := time.Now().Truncate(time.Second)
	r := s.once()
	if r.Rollbacks != 1 || r.Repaired != 0 {
		t.Fatalf("the report is %+v", r)
	}
	s.log.await(t, "a provider's counter went back", 1)
	if !strings.Contains(s.log.text(), `"level":"WARN","msg":"a provider's counter went back`) {
		t.Errorf("it is no warning: %s", s.log.text())
	}
	two := s.c.Providers()[1]
	if all, err := s.r.Rollbacks(); err != nil || len(all) != 1 || all[0].Token != tokenA || all[0].Provider != two ||
		all[0].From != 5 || all[0].To != 0 || all[0].LastGood.Before(good) || all[0].LastGood.After(back.Add(time.Second)) || all[0].Noticed.Before(back) || !all[0].Repaired.IsZero() {
		t.Errorf("rollbacks: %+v, %v", all, err)
	}
	if r := s.once(); r.Rollbacks != 0 {
		t.Errorf("it was raised twice: %+v", r)
	}
	s.drain()
	s.wantStored(tokenA, 5, 5)
	s.wantLoginAt(2, "alice", seed, 4, false)
	if r := s.once(); r.Repaired != 1 {
		t.Errorf("the repair is not noticed: %+v", r)
	}
	again := s.refresher(s.c) // as after a restart
	all, err := again.Rollbacks()
	if err != nil || len(all) != 1 || all[0].From != 5 || all[0].Provider != two || all[0].Repaired.Before(back) || all[0].LastGood.Before(good.Add(-time.Second)) {
		t.Errorf("rollbacks: %+v, %v", all, err)
	}
	if acts := s.acts("counter went back"); len(acts) != 2 || !strings.Contains(acts[0], string(tokenA)+" noticed user alice: "+two+" went from counter 5 back to 0") ||
		!strings.Contains(acts[1], "repaired") {
		t.Errorf("the trail has %q", acts)
	}
	s.wantQuiet()
}

func TestRefreshOfOneProvider(t *testing.T) {
	f := open(t, quick)
	s := &site{office: f}
	s.r = s.refresher(f.c)
	seed := f.enroll(tokenA, 1, 0)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.assign(tokenA, "alice")
	f.deliver()
	if !f.login("alice", seed, 2) {
		t.Fatal("alice cannot log in")
	}
	f.update(func(tx *vault.Tx) error {
		t, err := tx.Token(tokenA)
		t.Stale = true
		return errors.Join(err, tx.PutToken(t))
	})
	if r := s.once(); r.Moved != 1 || r.Levelled != 0 {
		t.Errorf("the report is %+v", r)
	}
	if got := s.token(tokenA); got.Counter != 3 || !got.Stale {
		t.Errorf("the token is %+v", got)
	}
	s.wantQuiet()
}

// While the token's seed is still to be put there, and of a seed that is not the vault's, no counter tells anything.
func TestRefreshKnowsTheSeed(t *testing.T) {
	s := openPair(t)
	seed := s.issue(tokenA, "alice")
	s.wantLoginAt(1, "alice", seed, 4, true)
	s.enroll(tokenA, 2, 0)
	s.update(func(tx *vault.Tx) error {
		t, err := tx.Token(tokenA)
		t.Owner = "alice"
		return errors.Join(err, tx.PutToken(t))
	})
	put := s.enqueue(vault.Put, tokenA, "alice", 2, 0)
	if r := s.once(); r.Moved != 0 || r.Levelled != 0 || r.Unknown != 2 {
		t.Errorf("with another generation: %+v", r)
	}
	if got := s.token(tokenA); got.Counter != 0 || got.Seen != "" {
		t.Errorf("the token is %+v", got)
	}
	s.drain()
	s.enqueue(vault.Put, tokenA, "alice", 2, 0)
	if r := s.once(); r.Moved+r.Levelled != 0 || s.token(tokenA).Seen != "" {
		t.Errorf("with change %d waiting again: %+v", put, r)
	}
}

func TestRefreshWithAProviderDown(t *testing.T) {
	s := openPair(t)
	seed := s.issue(tokenA, "alice")
	s.run()
	s.runRefresher(s.r)
	s.until("the first cycle", func() bool { return !s.r.Progress().Ended.IsZero() })
	s.pair.Providers[1].Stop()
	s.r.Nudge()
	s.until("that it is missed", func() bool { return len(s.r.Progress().Missing) == 1 })
	s.wantLoginAt(1, "alice", seed, 3, true)
	s.r.Nudge()
	s.until("the counter", func() bool { return s.counter(tokenA) == 4 })
	if m := s.r.Progress().Missing; len(m) != 1 || m[0].Provider != s.c.Providers()[1] || m[0].Problem == "" {
		t.Errorf("missing: %+v", m)
	}
	if err := s.pair.Providers[1].Start(); err != nil {
		t.Fatal(err)
	}
	s.until("that it is back", func() bool { p := s.r.Progress(); return len(p.Missing) == 0 && !p.Ended.IsZero() })
	s.until("that both are level", func() bool {
		n, err := s.pair.Providers[1].Stored(tokenA.Central())
		return err == nil && n == 3
	})
	s.wantLoginAt(2, "alice", seed, 3, false)
}

// Logins on both sides of a split: when it heals, nobody is behind.
func TestRefreshAfterASplit(t *testing.T) {
	s := openPair(t)
	seed := s.issue(tokenA, "alice")
	s.once()
	s.pair.Cut(0)
	s.wantLoginAt(1, "alice", seed, 2, true)
	s.wantLoginAt(2, "alice", seed, 5, true)
	s.once()
	s.pair.Heal()
	s.drain()
	s.wantStored(tokenA, 6, 6)
	s.once()
	s.wantQuiet()
}

// pausing is a connector whose provider tells of each page before it is taken.
type pausing struct {
	syncer.Connector
	page func()
}

func (p *pausing) Counters(ctx context.Context, provider string, page func([]syncer.Reading) error) error {
	return p.Connector.Counters(ctx, provider, func(r []syncer.Reading) error {
		p.page()
		return page(r)
	})
}

func TestRefreshOfAVaultThatIsLocked(t *testing.T) {
	s := openPair(t)
	seed := s.issue(tokenA, "alice")
	s.wantLoginAt(1, "alice", seed, 3, true)
	locking := true
	locked := make(chan struct{}, 2)
	turn := make(chan struct{}, 1) // both providers' pages come at the same time
	turn <- struct{}{}
	s.r = s.refresher(&pausing{s.c, func() {
		<-turn
		defer func() { turn <- struct{}{} }()
		if locking {
			if err := s.v.Lock(); err != nil {
				t.Error(err)
			}
			locked <- struct{}{}
		}
	}})
	s.runRefresher(s.r)
	<-locked
	s.until("the end of the cycle", func() bool { return !s.r.Progress().Ended.IsZero() })
	if _, err := s.r.Once(t.Context()); !isLocked(err) {
		t.Errorf("with a locked vault: %v", err)
	}
	if _, err := s.r.Rollbacks(); !isLocked(err) {
		t.Errorf("with a locked vault: %v", err)
	}
	<-turn
	locking = false
	turn <- struct{}{}
	if err := s.v.Unlock(secret.Secret{}); err != nil {
		t.Fatal(err)
	}
	s.r.Nudge()
	s.until("the counter", func() bool { return s.counter(tokenA) == 4 })
	if strings.Contains(s.log.text(), "cannot refresh") {
		t.Errorf("a locked vault is an error: %s", s.log.text())
	}
}

func isLocked(err error) bool {
	var state *vault.StateError
	return errors.As(err, &state) && state.State == vault.StateLocked
}

func TestRefreshDoesNotWaitForTheSilent(t *testing.T) {
	s := openPair(t)
	s.issue(tokenA, "alice")
	hanging := &pausing{Connector: s.c, page: func() {}}
	r := syncer.NewRefresher(s.v, &silent{hanging, s.c.Providers()[1]}, s.quietLog(), syncer.RefreshConfig{Patience: 50 * time.Millisecond})
	report, err := r.Once(t.Context())
	if err != nil || report.Read != 1 || len(report.Missing) != 1 || report.Missing[0].Problem != "it does not answer in time" {
		t.Errorf("%+v, %v", report, err)
	}
}

// silent never hears from one provider.
type silent struct {
	syncer.Connector
	provider string
}

func (s *silent) Counters(ctx context.Context, provider string, page func([]syncer.Reading) error) error {
	if provider == s.provider {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.Connector.Counters(ctx, provider, page)
}

func TestRefreshWithoutAService(t *testing.T) {
	v := vaulttest.New(t)
	s := &site{office: &office{T: t, v: v, log: &record{}}}
	s.o = syncer.NewOutbox(v, nil, s.quietLog(), quick)
	s.r = syncer.NewRefresher(v, nil, s.quietLog(), syncer.RefreshConfig{})
	s.runRefresher(s.r)
	if _, err := s.r.Once(t.Context()); err == nil || !strings.Contains(err.Error(), "no central service") {
		t.Errorf("%v", err)
	}
	if all, err := s.r.Rollbacks(); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
}
