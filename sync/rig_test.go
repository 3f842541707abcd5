package syncer_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

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
	c := f.connect(f.gate.URL, f.slapd.BindDN, f.slapd.Password)
	f.c = c
	f.o = syncer.NewOutbox(f.v, c, slog.New(f.log.handler()), b)
	return f
}

// connect makes a connector to a directory.
func (f *office) connect(url, bindDN, password string) *openldap.Connector {
	f.Helper()
	c, err := openldap.New(openldap.Config{URLs: []string{url}, BindDN: bindDN, Password: secret.New([]byte(password)),
		PeopleBase: synctest.PeopleBase, TokensBase: synctest.TokensBase, Timeout: 5 * time.Second,
		Params: map[int]string{6: synctest.Params6, 8: synctest.Params8}, Desk: f.v.ID()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { c.Close() })
	return c
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
		all, err = tx.ChangesFrom(0, 0)
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
