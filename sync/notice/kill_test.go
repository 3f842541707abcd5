package notice

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

// The process that dies runs TestKilled too, with what it is to do in its environment.
const killedVariable = "TOKENDESK_NOTICE_TEST_KILLED"

// killed is what that process is told.
type killed struct{ Vault, URL string }

// dieSending sends one notice, and dies before the vault hears of it.
func dieSending(t *testing.T, k killed) {
	v := vault.At(k.Vault, vaulttest.Sealer)
	if err := v.Unlock(secret.Secret{}); err != nil {
		t.Fatal(err)
	}
	words, err := LoadTemplates("")
	if err != nil {
		t.Fatal(err)
	}
	q := New(v, slog.New(slog.DiscardHandler), &Config{
		Server: to(t, ServerConfig{URL: k.URL}), From: mail.Address{Address: "desk@example.org"}, Templates: words,
		Address: func(_ context.Context, user string) (string, error) { return user + "@example.org", nil },
	})
	p := &pass{Queue: q, held: map[string]bool{}}
	var all []vault.Notice
	if err := v.View(func(tx *vault.Tx) (err error) { all, err = tx.Notices(0, 1); return err }); err != nil {
		t.Fatal(err)
	}
	if err := p.deliver(t.Context(), all[0]); err != nil {
		t.Fatal(err)
	}
	unix.Kill(os.Getpid(), unix.SIGKILL)
	select {}
}

// A desk that dies between a mail and its record sends it once more, under the same name; and loses none.
func TestKilled(t *testing.T) {
	if text := os.Getenv(killedVariable); text != "" {
		var k killed
		if err := json.Unmarshal([]byte(text), &k); err != nil {
			t.Fatal(err)
		}
		dieSending(t, k)
		return
	}
	path := filepath.Join(t.TempDir(), "vault")
	f := &office{T: t, mail: server(t), v: vault.At(path, vaulttest.Sealer)}
	if err := errors.Join(f.v.Init(vaulttest.Setup(secret.Secret{})), f.v.Unlock(secret.Secret{})); err != nil {
		t.Fatal(err)
	}
	vaulttest.CheckAtEnd(t, f.v)
	f.put("disabled alice", "disabled bob")
	if err := f.v.Lock(); err != nil {
		t.Fatal(err)
	}
	told, err := json.Marshal(killed{path, f.mail.URL})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$", "-test.v")
	cmd.Env = append(os.Environ(), killedVariable+"="+string(told))
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || !exit.Sys().(interface{ Signaled() bool }).Signaled() {
		t.Fatalf("%v\n%s", err, out)
	}
	f.wantAny("alice", 1)
	if err := f.v.Unlock(secret.Secret{}); err != nil {
		t.Fatal(err)
	}
	f.wantLeft("disabled alice", "disabled bob")
	f.address = func(user string) (string, error) { return user + "@example.org", nil }
	f.q = New(f.v, slog.New(slog.DiscardHandler), f.config())
	f.pass()
	f.wantLeft()
	f.wantAny("bob", 1)
	twins := f.wantAny("alice", 2)
	if a, b := twins[0].Header.Get("Message-Id"), twins[1].Header.Get("Message-Id"); a == "" || a != b {
		t.Errorf("%q and %q", a, b)
	}
}
