package syncer_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/sync/hotpscan"
	"tokendesk/sync/openldap"
	"tokendesk/sync/synctest"
	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

// site is an office whose directory has two providers.
type site struct {
	*office
	pair *synctest.Pair
	r    *syncer.Refresher
	d    *syncer.Drift
}

func openPair(t *testing.T) *site {
	t.Helper()
	pair, err := synctest.StartPair(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pair.Stop)
	one := pair.Providers[0]
	f := &office{T: t, slapd: one, v: vaulttest.New(t), log: &record{}}
	c, err := openldap.New(openldap.Config{URLs: []string{one.URL, pair.Providers[1].URL}, BindDN: one.BindDN,
		Password: secret.New([]byte(one.Password)), PeopleBase: synctest.PeopleBase, TokensBase: synctest.TokensBase, Timeout: 5 * time.Second,
		Params: map[int]string{6: synctest.Params6, 8: synctest.Params8}, Desk: f.v.ID()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	f.c = c
	f.o = syncer.NewOutbox(f.v, c, slog.New(f.log.handler()), quick)
	s := &site{office: f, pair: pair}
	s.r, s.d = s.refresher(c), syncer.NewDrift(f.v, c, syncer.DriftConfig{Wake: f.o.Wake})
	return s
}

func (s *site) refresher(c syncer.Connector) *syncer.Refresher {
	return syncer.NewRefresher(s.v, c, slog.New(s.log.handler()), syncer.RefreshConfig{Interval: time.Hour, Patience: 20 * time.Second,
		Retry: syncer.Backoff{Min: 5 * time.Millisecond, Max: 50 * time.Millisecond}, Wake: s.o.Wake})
}

func (s *site) quietLog() *slog.Logger { return slog.New(s.log.handler()) }

// issue gives a user a token, there too.
func (s *site) issue(id device.TokenID, user string) secret.Secret {
	s.Helper()
	seed := s.enroll(id, 1, 0)
	s.enqueue(vault.Put, id, "", 1, 0)
	if user != "" {
		s.assign(id, user)
	}
	s.drain()
	return seed
}

// drain delivers everything and waits for the providers to agree.
func (s *site) drain() {
	s.Helper()
	if n := s.deliver(); n != 0 {
		s.Fatalf("%d changes are left: %+v", n, s.changes())
	}
	s.settled()
}

func (s *site) settled() {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 20*time.Second)
	defer cancel()
	if err := s.pair.AwaitSync(ctx); err != nil {
		s.Fatal(err)
	}
}

func (s *site) once() syncer.Report {
	s.Helper()
	r, err := s.r.Once(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	return r
}

// loginAt logs a user in at provider 1 or 2.
func (s *site) loginAt(provider int, user string, seed secret.Secret, n uint64) bool {
	return s.pair.Providers[provider-1].Login(user, hotpscan.Code(seed, 6, n)) == nil
}

func (s *site) wantLoginAt(provider int, user string, seed secret.Secret, n uint64, want bool) {
	s.Helper()
	if got := s.loginAt(provider, user, seed, n); got != want {
		s.Errorf("code %d of %s at provider %d: accepted %t, want %t", n, user, provider, got, want)
	}
}

// wantStored compares the counters that both providers hold, next ones.
func (s *site) wantStored(id device.TokenID, want ...int64) {
	s.Helper()
	for i, p := range s.pair.Providers {
		got, err := p.Stored(id.Central())
		if err != nil {
			s.Fatal(err)
		}
		if got+1 != want[i] {
			s.Errorf("provider %d: the next counter of %s is %d, want %d", i+1, id, got+1, want[i])
		}
	}
}

func (s *site) token(id device.TokenID) (t vault.Token) {
	s.Helper()
	if err := s.v.View(func(tx *vault.Tx) (err error) { t, err = tx.Token(id); return err }); err != nil {
		s.Fatal(err)
	}
	return t
}

// admin changes an entry with the server's own tools at provider 1 or 2, and has it replicated.
func (s *site) admin(provider int, dn string, how func(*ldap.ModifyRequest)) {
	s.Helper()
	m := ldap.NewModifyRequest(dn, nil)
	how(m)
	if err := s.pair.Providers[provider-1].AsAdmin(func(c *ldap.Conn) error { return c.Modify(m) }); err != nil {
		s.Fatal(err)
	}
	s.settled()
}

func tokenDN(id device.TokenID) string { return "cn=" + id.Central() + "," + synctest.TokensBase }

// naively edits the token's entry, as an administrator does who thinks of something else.
func (s *site) naively(provider int, id device.TokenID) {
	s.Helper()
	s.admin(provider, tokenDN(id), func(m *ldap.ModifyRequest) { m.Replace("l", []string{rand.Text()}) })
}

// acts are those of the audit trail whose action contains a text, oldest first.
func (s *site) acts(action string) (all []string) {
	s.Helper()
	err := s.v.View(func(tx *vault.Tx) error {
		for e, err := range actsOf(tx) {
			if err != nil {
				return err
			}
			if strings.Contains(e.Action, action) {
				all = append(all, e.Object+" "+e.Outcome+" "+e.Reason)
			}
		}
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
	return all
}

// runRefresher starts Run and ends it with the test.
func (s *site) runRefresher(r *syncer.Refresher) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	s.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			s.Errorf("Run: %v", err)
		}
	})
}

// until looks again and again until a condition holds.
func (s *site) until(what string, holds func() bool) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 20*time.Second)
	defer cancel()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			s.Fatalf("%s did not come about; %s", what, s.log.text())
		case <-again.C:
		}
	}
}
