package provision_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
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
)

// theDirectory is a slapd that is told of everything by an outbox.
type theDirectory struct {
	*syncer.Outbox
	c      *openldap.Connector
	server *synctest.Slapd
	users  []string
	logins map[bool]int // by whether they succeeded
}

// withDirectory has a player's changes go to a real slapd.
func withDirectory(t *testing.T, p *player) {
	dir, err := os.MkdirTemp("", "td")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &theDirectory{logins: map[bool]int{}}
	if d.server, err = synctest.StartSlapd(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.server.Stop)
	err = d.server.AsAdmin(func(c *ldap.Conn) error {
		for i := range 2 * len(p.names) {
			name := fmt.Sprintf("user%d", i)
			add := ldap.NewAddRequest(synctest.UserDN(name), nil)
			add.Attribute("objectClass", []string{"inetOrgPerson"})
			add.Attribute("cn", []string{name})
			add.Attribute("sn", []string{name})
			add.Attribute("userPassword", []string{synctest.UserPassword(name)})
			if err := c.Add(add); err != nil {
				return err
			}
			d.users = append(d.users, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d.c, err = openldap.New(openldap.Config{
		URLs: []string{d.server.URL}, BindDN: d.server.BindDN, Password: secret.New([]byte(d.server.Password)),
		PeopleBase: synctest.PeopleBase, TokensBase: synctest.TokensBase, Desk: p.Vault.ID(),
		Params: map[int]string{6: synctest.Params6, 8: synctest.Params8}, Timeout: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.c.Close() })
	d.Outbox = syncer.NewOutbox(p.Vault, d.c, slog.New(slog.DiscardHandler), syncer.Backoff{Min: time.Millisecond, Max: 50 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the outbox: %v", err)
		}
	})
	p.slapd = d
	p.Confirm, p.Wake = d.Hurry, d.Wake
}

// agree waits until everything is delivered, and compares what the directory then has with what the vault and the test say.
// Somebody tries to log in with one of the tokens.
func (d *theDirectory) agree(p *player) (found []string) {
	bad := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	var waiting []vault.Change
	left := func() bool {
		p.view(func(tx *vault.Tx) (err error) { waiting, err = tx.ChangesFrom(0, 0); return err })
		return len(waiting) > 0
	}
	for d.Wake(); left(); {
		for _, c := range waiting {
			if err := d.Wait(ctx, c.Seq); err != nil && !errors.Is(err, vault.ErrNotFound) {
				return []string{fmt.Sprintf("%s of %s: %v", c.Kind, c.Token, err)}
			}
		}
	}
	who := p.names[p.IntN(len(p.names))]
	for _, id := range p.names {
		seen, err := d.c.Observe(ctx, id)
		if err != nil {
			return append(found, err.Error())
		}
		s := p.m.tokens[id]
		accepted := s != nil && s.owner != "" && (s.status == vault.Active || s.status == vault.Limbo)
		switch {
		case s == nil && seen != (syncer.Observation{}):
			bad("%s was deleted, or never finished, and is there: %+v", id, seen)
		case s != nil && (seen.Enabled != accepted || accepted && seen.Owner != s.owner || s.owner == "" && seen.Owner != ""):
			bad("%s is %+v here, and there %+v", id, s, seen)
		}
		if id == who && s != nil && s.generation > 0 {
			if why := d.tryLogin(p, id, s, seen, accepted); why != "" {
				bad("%s: %s", id, why)
			}
		}
	}
	return found
}

// tryLogin logs in with a code of a token that the directory has not seen yet.
func (d *theDirectory) tryLogin(p *player, id device.TokenID, s *shadow, seen syncer.Observation, accepted bool) string {
	user := s.owner
	if user == "" {
		user = d.users[p.IntN(len(d.users))]
		for _, other := range p.m.tokens {
			if other.owner == user {
				return "" // their own token answers
			}
		}
	}
	var code string
	p.view(func(tx *vault.Tx) error {
		seed, err := tx.Seed(id, s.generation)
		if err == nil {
			code = hotpscan.Code(seed, p.token(id).Digits, max(seen.Counter, p.token(id).Counter))
			seed.Wipe()
		}
		return err
	})
	err := d.server.Login(user, code)
	d.logins[err == nil]++
	if accepted != (err == nil) {
		return fmt.Sprintf("%+v: a login of %s: %v", s, user, err)
	}
	return ""
}

// How long the random actions go on, and from where. CI plays others every time; make soak plays more.
var (
	actionsFlag = flag.Int("actions", 1500, "how many random actions are compared with slapd")
	seedFlag    = flag.Uint64("seed", 0, "where they begin, to repeat what a test has logged; 0: anywhere")
)

// Whatever officers do: after each action the vault, the table, and a real directory agree, and so do logins.
func TestRandomActionsAgreeWithSlapd(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed %d", seed)
	p := newPlayer(t, seed)
	withDirectory(t, p)
	for _, wrong := range p.run(*actionsFlag) {
		t.Error(wrong)
	}
	if err := p.Vault.Check(); err != nil {
		t.Error(err)
	}
	t.Logf("%d logins succeeded, %d were refused", p.slapd.logins[true], p.slapd.logins[false])
	if least := *actionsFlag / 10; p.slapd.logins[true] < least || p.slapd.logins[false] < least {
		t.Errorf("logins: %v", p.slapd.logins)
	}
}
