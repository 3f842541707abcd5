package notice

import (
	"context"
	"fmt"
	"log/slog"
	"net/mail"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tokendesk/sync/notice/mailtest"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/vaulttest"
)

var officer = audit.Officer{UID: 1000, Name: "olga"}

// office is a vault, a mail server and a queue between them.
type office struct {
	*testing.T
	v       *vault.Vault
	mail    *mailtest.Server
	q       *Queue
	clock   time.Time // what the queue's clock says; it stands still
	mu      sync.Mutex
	address func(user string) (string, error)
}

func newOffice(t *testing.T) *office {
	t.Helper()
	f := &office{T: t, v: vaulttest.New(t), mail: server(t), clock: time.Now().UTC().Truncate(time.Second)}
	f.address = func(user string) (string, error) { return user + "@example.org", nil }
	f.q = f.queue(f.v)
	return f
}

// queue makes one for the office's mail server.
func (f *office) queue(v *vault.Vault) *Queue {
	f.Helper()
	q := New(v, slog.New(slog.NewTextHandler(f.Output(), nil)), f.config())
	q.now = func() time.Time { return f.clock }
	return q
}

func (f *office) config() *Config {
	f.Helper()
	words, err := LoadTemplates("")
	if err != nil {
		f.Fatal(err)
	}
	return &Config{
		Server: to(f.T, ServerConfig{URL: f.mail.URL, Timeout: 2 * time.Second}), From: mail.Address{Name: "Token desk", Address: "desk@example.org"},
		ReplyTo: mail.Address{Address: "security@example.org"}, Templates: words,
		Address: func(_ context.Context, user string) (string, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.address(user)
		},
	}
}

// put leaves notices, each "kind user".
func (f *office) put(notices ...string) {
	f.Helper()
	err := f.v.Update(func(tx *vault.Tx) error {
		for _, text := range notices {
			kind, user, _ := strings.Cut(text, " ")
			if err := tx.PutNotice(&vault.Notice{Kind: kind, User: user, Token: "yk-10000001/otp2"}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
}

// pass sends what is due.
func (f *office) pass() (due time.Time) {
	f.Helper()
	due, err := f.q.pass(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	return due
}

func (f *office) left() (all []vault.Notice) {
	f.Helper()
	if err := f.v.View(func(tx *vault.Tx) (err error) { all, err = tx.Notices(0, 0); return err }); err != nil {
		f.Fatal(err)
	}
	return all
}

// wantLeft compares what waits with "kind user", with a + behind what is parked.
func (f *office) wantLeft(want ...string) {
	f.Helper()
	var got []string
	for _, n := range f.left() {
		text := n.Kind + " " + n.User
		if n.Parked {
			text += " +"
		}
		got = append(got, text)
	}
	if !slices.Equal(got, want) {
		f.Fatalf("%q are left, not %q", got, want)
	}
}

// wantMail waits for mails and compares their subjects, in order.
func (f *office) wantMail(user string, want ...string) []mailtest.Mail {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), 10*time.Second)
	defer cancel()
	all, err := f.mail.Await(ctx, user+"@example.org", len(want))
	if err != nil {
		f.Fatal(err)
	}
	for i, m := range all {
		if i >= len(want) || !strings.Contains(m.Subject(), want[i]) {
			f.Fatalf("mail %d to %s is %q, not of %q", i+1, user, m.Subject(), want)
		}
	}
	return all
}

// wantActs compares the trail, each act "officer action outcome".
func (f *office) wantActs(want ...string) {
	f.Helper()
	var got []string
	err := f.v.View(func(tx *vault.Tx) error {
		return tx.Acts(1, func(e audit.Entry) (bool, error) {
			if strings.Contains(e.Action, "noti") {
				got = append(got, fmt.Sprintf("%s %s %s", e.Officer.Name, e.Action, e.Outcome))
			}
			return true, nil
		})
	})
	if err != nil {
		f.Fatal(err)
	}
	if !slices.Equal(got, want) {
		f.Fatalf("the trail tells %q, not %q", got, want)
	}
}

// wantAny waits for so many mails, whatever they are.
func (f *office) wantAny(user string, n int) []mailtest.Mail {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), 10*time.Second)
	defer cancel()
	all, err := f.mail.Await(ctx, user+"@example.org", n)
	if err != nil || len(all) != n {
		f.Fatalf("%d mails: %v", len(all), err)
	}
	return all
}
