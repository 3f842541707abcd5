package daemon_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
)

// TestStatesAreNamed gets the daemon into every state in which it cannot open its vault by itself: it serves its API, names
// the state with a cure, and where the cause passes it opens the vault without being told.
func TestStatesAreNamed(t *testing.T) {
	w := start(t, world.Options{NoCentral: true, Keys: []string{keyOf(50000001)}})
	file := filepath.Join(w.Dir, "vault.db")
	good := read(t, file)
	var out api.VaultOutcome
	if err := w.Client.Post(t.Context(), "/v1/vault/rotate", nil, &out); err != nil { // so that good is an old copy
		t.Fatal(err)
	}
	if err := w.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	now := read(t, file)
	var release func() error
	for _, c := range []struct {
		state  string
		cause  func() error
		mend   func() error
		passes bool
	}{
		{"tpm-absent", w.StopTPM, w.StartTPM, true},
		{"permission", func() error { return os.Chmod(file, 0o644) }, func() error { return os.Chmod(file, 0o600) }, true},
		{"in-use", func() (err error) { release, err = hold(file); return err }, func() error { return release() }, true},
		{"absent", func() error { return os.Rename(file, file+".away") }, func() error { return os.Rename(file+".away", file) }, false},
		{"rollback-suspected", func() error { return write(file, good) }, func() error { return write(file, now) }, false},
		{"corrupt", func() error { return write(file, flipped(now)) }, func() error { return write(file, now) }, false},
		{"newer-format", func() error { return write(file, newer(now)) }, func() error { return write(file, now) }, false},
		{"wrong-sealer", func() error { return configure(w, `seal = "tpm"`, `seal = "passphrase"`) },
			func() error { return configure(w, `seal = "passphrase"`, `seal = "tpm"`) }, false},
		{"tpm-changed", func() error { return anotherTPM(w, "tpm.away") }, func() error { return firstTPM(w, "tpm.away") }, false},
	} {
		t.Run(c.state, func(t *testing.T) {
			if err := errors.Join(c.cause(), w.StartDaemon()); err != nil {
				t.Fatal(err)
			}
			var status api.Status
			if err := w.Client.Get(t.Context(), "/v1/status", nil, &status); err != nil {
				t.Fatal(err)
			}
			if v := status.Vault; v.State != c.state || v.Problem == "" || v.Cure == "" {
				t.Errorf("%+v", v)
			}
			err := w.Client.Post(t.Context(), "/v1/vault/check", nil, &out)
			if known := (*api.Error)(nil); !errors.As(err, &known) || known.Code != api.VaultTrouble || !strings.HasPrefix(known.Message, "vault "+c.state+": ") {
				t.Errorf("an action ends with: %v", err)
			}
			if err := c.mend(); err != nil {
				t.Fatal(err)
			}
			if !c.passes {
				if err := errors.Join(w.StopDaemon(), w.StartDaemon()); err != nil {
					t.Fatal(err)
				}
			}
			awaitState(t, w, "open")
			if err := w.StopDaemon(); err != nil {
				t.Fatal(err)
			}
			if state, err := w.AwaitDaemonEnd(); err != nil || state.ExitCode() != 0 {
				t.Errorf("the daemon ended with %v, %v", state, err)
			}
			now = read(t, file)
		})
	}
}

func awaitState(t *testing.T, w *world.World, state string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		var v api.Vault
		if err := w.Client.Get(ctx, "/v1/vault", nil, &v); err != nil {
			t.Fatal(err)
		}
		if v.State == state {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the vault is not %s: %+v", state, v)
		}
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(file string, content []byte) error { return os.WriteFile(file, content, 0o600) }

// hold locks a file as another process would.
func hold(file string) (release func() error, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	return f.Close, unix.Flock(int(f.Fd()), syscall.LOCK_EX)
}

// flipped has one bit of the second half's middle changed.
func flipped(content []byte) []byte {
	out := bytes.Clone(content)
	at := bytes.LastIndex(out, []byte(`"vault init"`))
	out[at+1] ^= 1
	return out
}

// newer says that it has a later format.
func newer(content []byte) []byte {
	out := bytes.Clone(content)
	magic := []byte("tdvault\x00")
	for at := 0; ; {
		i := bytes.Index(out[at:], magic)
		if i < 0 {
			return out
		}
		at += i + len(magic)
		binary.BigEndian.PutUint32(out[at:], 99)
	}
}

func configure(w *world.World, old, new string) error {
	text, err := os.ReadFile(w.Config)
	if err != nil {
		return err
	}
	return os.WriteFile(w.Config, bytes.Replace(text, []byte(old), []byte(new), 1), 0o600)
}

// anotherTPM puts the TPM away and another one in its place.
func anotherTPM(w *world.World, away string) error {
	return errors.Join(w.StopTPM(), os.Rename(filepath.Join(w.Dir, "tpm"), filepath.Join(w.Dir, away)), w.StartTPM())
}

func firstTPM(w *world.World, away string) error {
	dir := filepath.Join(w.Dir, "tpm")
	return errors.Join(w.StopTPM(), os.RemoveAll(dir), os.Rename(filepath.Join(w.Dir, away), dir), w.StartTPM())
}
