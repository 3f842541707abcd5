package daemon_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/client"
	"tokendesk/cmd/internal/world"
	"tokendesk/device"
	"tokendesk/vault/secret"
	"tokendesk/vault/secret/memscan"
	"tokendesk/vault/tpmseal"
)

// schedules is how often a key of an open vault is in ordinary memory: at the beginning and at the end of the AES key
// schedules that encrypt with it. All else that there is of secrets is in locked memory only.
var schedules = map[string]int{"the key of records": 2, "the key of secrets": 2, "the key of ledgers": 2, "sum key 0": 4, "sum key 1": 2}

// TestMemory reads the memory of a daemon as it ships: what is found there of seeds, access codes, PINs, passwords,
// identities and keys, whole or in pieces, while the vault is open and after it was locked.
func TestMemory(t *testing.T) {
	const one device.Serial = 50000001
	first, wrong, second, third := rand.Text(), rand.Text(), rand.Text(), rand.Text()
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	w := start(t, world.Options{Keys: []string{keyOf(one)}, PIN: first, Daemon: shipped(t)})
	m := &memory{t: t, w: w, known: map[string][]byte{"the directory's password": []byte(w.Slapd.Password)}}
	m.startStretcher()
	m.learnIdentity()
	for name, pin := range map[string]string{"the first PIN": first, "the wrong PIN": wrong, "the second PIN": second, "the third PIN": third} {
		m.known[name] = []byte(pin)
	}

	m.expectClosed(ctx)
	enroll(ctx, t, w, one, "alice")
	awaitPushed(ctx, t, w)
	m.expectOpen("after an enroll", first)
	if err := w.Client.Post(ctx, "/v1/identify", api.Identify{Codes: []string{"000000", "000001"}}, &api.Identified{}); err != nil { // every seed is read
		t.Fatal(err)
	}
	m.expectOpen("after an identify", first)
	m.do(ctx, "lock", nil)
	m.expectLocked("after an enroll and a lock")
	m.learnKey("the wrong PIN's key", wrong)
	if err := m.secretly(ctx, "unlock", nil, wrong); err == nil {
		t.Fatal("a wrong PIN opens the vault")
	}
	m.expect("after a wrong PIN", time.Now().Add(patience), m.remains)
	m.do(ctx, "unlock", nil, first)
	m.expectOpen("after an unlock", first)
	m.do(ctx, "change-pin", nil, first, second)
	m.expectOpen("after a change of the PIN", second)
	m.do(ctx, "lock", nil)
	m.expectLocked("after a change of the PIN and a lock")

	old := filepath.Join(w.Dir, "old.db")
	if err := os.Rename(filepath.Join(w.Dir, "vault.db"), old); err != nil {
		t.Fatal(err)
	}
	m.do(ctx, "restore", api.VaultRestore{Backup: old}, third, string(read(t, w.Identity)))
	m.expectOpen("after a restore", third)
	m.do(ctx, "rotate", nil)
	m.expectOpen("after a rotation", third)
	m.do(ctx, "lock", nil)
	m.expectLocked("after a restore and a lock")
}

// nobody is whom the daemon runs as: as root it could not show that it keeps its own user out.
var nobody = &syscall.Credential{Uid: 65534, Gid: 65534}

// shipped builds the daemon as make build does, to be run by nobody.
func shipped(t *testing.T) func(config string) *exec.Cmd {
	t.Helper()
	dir, err := os.MkdirTemp("", "td")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	build := exec.Command("go", "build", "-o", dir, "tokendesk/cmd/tokendeskd")
	build.Env = append(os.Environ(), "GOEXPERIMENT=runtimesecret")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return func(config string) *exec.Cmd {
		give := func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Lchown(path, int(nobody.Uid), int(nobody.Gid)))
		}
		if err := filepath.WalkDir(filepath.Dir(config), give); err != nil {
			t.Error(err)
		}
		cmd := exec.Command(filepath.Join(dir, "tokendeskd"), "--config", config)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: nobody}
		return cmd
	}
}

// memory is that of a world's daemon, and what is looked for in it.
type memory struct {
	t     *testing.T
	w     *world.World
	known map[string][]byte

	stretcher *tpmseal.TPM
}

func (m *memory) do(ctx context.Context, operation string, in any, secrets ...string) {
	m.t.Helper()
	if err := m.secretly(ctx, operation, in, secrets...); err != nil {
		m.t.Fatalf("%s: %v", operation, err)
	}
}

func (m *memory) secretly(ctx context.Context, operation string, in any, secrets ...string) error {
	var out api.VaultOutcome
	path := "/v1/vault/" + operation
	if len(secrets) == 0 {
		return m.w.Client.Post(ctx, path, in, &out)
	}
	var lent []secret.Secret
	for _, s := range secrets {
		lent = append(lent, secret.New([]byte(s)))
		defer lent[len(lent)-1].Wipe()
	}
	c := client.Client{Socket: m.w.Socket}
	return c.PostSecret(ctx, path, in, &out, lent...)
}

// expectClosed checks that neither core dumps nor other processes of its user show the daemon's memory.
func (m *memory) expectClosed(ctx context.Context) {
	m.t.Helper()
	pid := m.w.DaemonPID()
	limits := string(read(m.t, fmt.Sprintf("/proc/%d/limits", pid)))
	if !regexp.MustCompile(`Max core file size +0 +0 `).MatchString(limits) {
		m.t.Errorf("core dumps are allowed: %s", limits)
	}
	other := exec.CommandContext(ctx, "sleep", "1000")
	other.SysProcAttr = &syscall.SysProcAttr{Credential: nobody}
	if err := other.Start(); err != nil {
		m.t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	if said, err := asNobody(ctx, other.Process.Pid, "environ"); err != nil {
		m.t.Errorf("nobody cannot look at a process of its own: %v: %s", err, said)
	}
	for _, file := range []string{"mem", "environ", "maps"} { // what debuggers and gcore need
		if said, err := asNobody(ctx, pid, file); err == nil || !strings.Contains(said, "Permission denied") {
			m.t.Errorf("nobody gets the daemon's %s: %v: %.200s", file, err, said)
		}
	}
}

func asNobody(ctx context.Context, pid int, file string) (string, error) {
	cmd := exec.CommandContext(ctx, "cat", fmt.Sprintf("/proc/%d/%s", pid, file))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: nobody}
	cmd.Env = []string{"LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// expectOpen checks the memory of a daemon whose vault is open. What was computed from secrets may stay for a moment.
func (m *memory) expectOpen(when, pin string) {
	m.t.Helper()
	resume := m.halt(m.w.DaemonPID())
	m.learnVault()
	m.learnKey("the PIN's key "+when, pin)
	resume()
	m.expect(when, time.Now().Add(patience), func(h memscan.Hit) bool {
		of, _, _ := strings.Cut(h.Pattern, ":")
		return !h.Protected() && h.Count > schedules[of]
	})
	if !slices.ContainsFunc(m.scan(), func(h memscan.Hit) bool { return h.Protected() && strings.HasPrefix(h.Pattern, "the root secret") }) {
		m.t.Errorf("%s: the root secret is not where it should be", when)
	}
}

// expectLocked checks the memory of a daemon whose vault was locked a moment ago.
func (m *memory) expectLocked(when string) {
	m.t.Helper()
	m.expect(when, time.Now(), m.remains)
}

// remains tells what there may not be while the vault is locked: all but the directory's password.
func (m *memory) remains(h memscan.Hit) bool {
	return !h.Protected() || !strings.HasPrefix(h.Pattern, "the directory's password")
}

// expect looks until there is nothing wrong, or until the deadline.
func (m *memory) expect(when string, deadline time.Time, wrong func(memscan.Hit) bool) {
	m.t.Helper()
	for {
		found := slices.DeleteFunc(m.scan(), func(h memscan.Hit) bool { return !wrong(h) })
		if len(found) == 0 {
			return
		}
		if time.Now().After(deadline) {
			for _, h := range found {
				m.t.Errorf("%s: %s", when, h)
			}
			return
		}
	}
}

// halt has a process stand still.
func (m *memory) halt(pid int) (resume func()) {
	m.t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		m.t.Fatal(err)
	}
	return func() { syscall.Kill(pid, syscall.SIGCONT) }
}

// How many bytes in a row of a secret are too many, and of a seed, which travels to the key in reports with so many of it.
const (
	piece = 8
	chunk = 6
)

func (m *memory) scan() []memscan.Hit {
	m.t.Helper()
	pieces := map[string][]byte{}
	for name, s := range m.known {
		for i := range max(1, len(s)-piece+1) {
			pieces[fmt.Sprintf("%s: from byte %d", name, i)] = s[i:min(i+piece, len(s))]
		}
	}
	patterns := memscan.Forms(pieces)
	for name, p := range pieces { // HMAC keeps its key like this
		for kind, pad := range map[string]byte{"inner": 0x36, "outer": 0x5C} {
			padded := make([]byte, len(p))
			for i := range p {
				padded[i] = p[i] ^ pad
			}
			patterns[name+" as "+kind+" pad"] = padded
		}
	}
	for name, s := range m.known {
		for i := 0; strings.HasSuffix(name, "of seeds") && i+chunk <= len(s); i++ {
			patterns[fmt.Sprintf("%s: a chunk from byte %d", name, i)] = s[i : i+chunk]
		}
	}
	hits, err := memscan.Scan(m.w.DaemonPID(), patterns)
	if err != nil {
		m.t.Fatal(err)
	}
	return hits
}
