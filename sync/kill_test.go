package syncer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	syncer "tokendesk/sync"
	"tokendesk/sync/synctest"
	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

// The process that dies runs TestKilled too, with what it is to do in its environment.
const killedVariable = "TOKENDESK_SYNC_TEST_KILLED"

// killed is what that process is told.
type killed struct {
	Vault, URL, BindDN string
	After              int // deliveries, it dies in the middle of a batch
}

// deadly dies once so many changes were delivered, before the vault hears of the last one.
type deadly struct {
	syncer.Connector
	left int
}

func (d *deadly) Apply(ctx context.Context, c vault.Change, seed secret.Secret) (syncer.Observation, error) {
	seen, err := d.Connector.Apply(ctx, c, seed)
	if d.left--; d.left == 0 {
		unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	}
	return seen, err
}

func dieAfter(t *testing.T, k killed) {
	var password bytes.Buffer
	if _, err := password.ReadFrom(os.Stdin); err != nil {
		t.Fatal(err)
	}
	f := &office{T: t, v: vault.At(k.Vault, vaulttest.Sealer), log: &record{}}
	if err := f.v.Unlock(secret.Secret{}); err != nil {
		t.Fatal(err)
	}
	f.through(&deadly{f.connect(k.URL, k.BindDN, password.String()), k.After}, quick)
	_, err := f.o.Pass(t.Context())
	t.Fatalf("it should have died: %v", err)
}

// A desk that dies between deliveries and their record delivers again, and that writes nothing: each change is one write.
func TestKilled(t *testing.T) {
	if text := os.Getenv(killedVariable); text != "" {
		var k killed
		if err := json.Unmarshal([]byte(text), &k); err != nil {
			t.Fatal(err)
		}
		dieAfter(t, k)
		return
	}
	s, err := synctest.StartSlapd(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	path := filepath.Join(t.TempDir(), "vault")
	f := &office{T: t, slapd: s, v: vault.At(path, vaulttest.Sealer), log: &record{}}
	if err := errors.Join(f.v.Init(vaulttest.Setup(secret.Secret{})), f.v.Unlock(secret.Secret{})); err != nil {
		t.Fatal(err)
	}
	vaulttest.CheckAtEnd(t, f.v)
	f.through(nil, quick) // to enqueue
	seed := f.enroll(tokenA, 1, 0)
	f.enroll(tokenB, 1, 3)
	f.enqueue(vault.Put, tokenA, "", 1, 0)
	f.assign(tokenA, "alice")
	f.enqueue(vault.Advance, tokenA, "alice", 1, 4)
	f.enqueue(vault.Put, tokenB, "", 1, 3)
	f.assign(tokenB, "bob")
	f.enqueue(vault.Advance, tokenB, "bob", 1, 5)
	f.enqueue(vault.Advance, tokenB, "bob", 1, 9)

	for _, after := range []int{5, 1, 2} {
		if err := f.v.Lock(); err != nil {
			t.Fatal(err)
		}
		before := len(written(t, s))
		told, err := json.Marshal(killed{path, s.URL, s.BindDN, after})
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$", "-test.v")
		cmd.Env, cmd.Stdin = append(os.Environ(), killedVariable+"="+string(told)), strings.NewReader(s.Password)
		out, err := cmd.CombinedOutput()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.Sys().(interface{ Signaled() bool }).Signaled() == false {
			t.Fatalf("%v\n%s", err, out)
		}
		if err := f.v.Unlock(secret.Secret{}); err != nil {
			t.Fatal(err)
		}
		left := f.left()
		if n := len(left); n == 0 {
			t.Fatal("the last delivery is recorded")
		}
		t.Logf("died after %d deliveries: %d are left, %d writes were made", after, len(left), len(written(t, s))-before)
	}
	f.through(f.connect(s.URL, s.BindDN, s.Password), quick)
	f.deliver()
	f.wantLeft()
	all := written(t, s)
	for _, w := range all {
		if !w.Changes() || w.Lowers() {
			t.Errorf("a write for nothing: %s", w)
		}
	}
	if len(all) != 7 {
		t.Errorf("%d writes for 7 changes: %s", len(all), all)
	}
	f.wantLogin("alice", seed, 4, true)
}

func written(t *testing.T, s *synctest.Slapd) []synctest.Write {
	t.Helper()
	all, err := s.Writes(s.BindDN)
	if err != nil {
		t.Fatal(err)
	}
	return all
}
