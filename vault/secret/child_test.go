package secret_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tokendesk/vault/secret"
	"tokendesk/vault/secret/memscan"
)

// role is the variable that makes the test program one of these processes.
const role = "SECRET_TEST_ROLE"

func TestMain(m *testing.M) {
	r := os.Getenv(role)
	if r == "" {
		os.Exit(m.Run())
	}
	secret.SetGrace(100 * time.Millisecond)
	check := hold
	switch {
	case limits[r].check != nil:
		check = confined
	case r == timersInDo:
		check = setTimers
	}
	if err := check(r); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

const size = 32

// origins are the ways to a secret of size bytes. Bytes that come from outside come through standard input.
var origins = map[string]func() (secret.Secret, error){
	"Random": func() (secret.Secret, error) { return secret.Random(size), nil },
	"New": func() (secret.Secret, error) {
		b := make([]byte, size)
		_, err := io.ReadFull(os.Stdin, b)
		return secret.New(b), err
	},
	"Make": func() (secret.Secret, error) {
		return secret.Make(size, func(b []byte) error {
			_, err := io.ReadFull(os.Stdin, b)
			return err
		})
	},
	"Clone": func() (secret.Secret, error) {
		s := secret.Random(size)
		defer s.Wipe()
		return s.Clone(), nil
	},
	"Concat": func() (secret.Secret, error) {
		a, b := secret.Random(size/2), secret.Random(size/2)
		defer a.Wipe()
		defer b.Wipe()
		return secret.Concat(a, b), nil
	},
	"ReadFile": func() (secret.Secret, error) { return secret.ReadFile(os.Getenv("SECRET_TEST_FILE")) },
	"Do": func() (s secret.Secret, err error) {
		secret.Do(func() { s = secret.Random(size) })
		return s, nil
	},
	"long": func() (secret.Secret, error) { return secret.Random(100_000), nil },
}

// hold has one secret, says it, and does with it what it is told.
func hold(origin string) error {
	begin := origins[origin]
	if origin == "copied in Do" {
		begin = copiedInDo
	}
	s, err := begin()
	if err != nil {
		return err
	}
	var n [8]byte
	binary.NativeEndian.PutUint64(n[:], uint64(s.Len()))
	os.Stdout.Write(n[:])
	os.Stdout.Write(s.Reveal())
	for order := make([]byte, 1); ; {
		if _, err := os.Stdin.Read(order); err != nil {
			return nil
		}
		var answer uint64
		switch order[0] {
		case 'w':
			s.Wipe()
			collect()
		case 'd':
			s = secret.Secret{}
			for secret.Memory().Live > 0 {
				runtime.GC()
			}
		case 'f':
			answer = uint64(fork())
		}
		binary.NativeEndian.PutUint64(n[:], answer)
		os.Stdout.Write(n[:])
	}
}

// fork makes a copy of this process that waits to be killed. Go cannot run in it: it has but one thread.
//
//go:norace
//go:nosplit
func fork() uintptr {
	pid, _, _ := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	for pid == 0 {
		unix.RawSyscall(unix.SYS_PPOLL, 0, 0, 0)
	}
	return pid
}

// holder is the test's view of a process that holds a secret.
type holder struct {
	t      *testing.T
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    io.Reader
	secret []byte
}

func start(t *testing.T, origin string) *holder {
	t.Helper()
	raw := make([]byte, size)
	rand.Read(raw)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	h := &holder{t: t, cmd: exec.Command("/proc/self/exe")}
	h.cmd.Env = append(os.Environ(), role+"="+origin, "SECRET_TEST_FILE="+file)
	h.cmd.Stderr = os.Stderr
	var err error
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if h.out, err = h.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.in.Close()
		if err := h.cmd.Wait(); err != nil {
			t.Errorf("%s: %v", origin, err)
		}
	})
	if origin == "New" || origin == "Make" {
		if _, err := h.in.Write(raw); err != nil {
			t.Fatal(err)
		}
	}
	h.secret = make([]byte, h.number())
	if _, err := io.ReadFull(h.out, h.secret); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *holder) number() uint64 {
	h.t.Helper()
	var n [8]byte
	if _, err := io.ReadFull(h.out, n[:]); err != nil {
		h.t.Fatal(err)
	}
	return binary.NativeEndian.Uint64(n[:])
}

func (h *holder) order(what byte) uint64 {
	h.t.Helper()
	if _, err := h.in.Write([]byte{what}); err != nil {
		h.t.Fatal(err)
	}
	return h.number()
}

// parts are patterns for the secret: pieces, so that half a copy is found as well.
func (h *holder) parts() map[string][]byte {
	out := map[string][]byte{}
	for i := 0; i+16 <= min(len(h.secret), 64); i += 16 {
		out[fmt.Sprint("secret from ", i)] = h.secret[i : i+16]
	}
	return memscan.Forms(out)
}

func (h *holder) scan(pid int) []memscan.Hit {
	h.t.Helper()
	hits, err := memscan.Scan(pid, h.parts())
	if err != nil {
		h.t.Fatal(err)
	}
	return hits
}

func TestMemory(t *testing.T) {
	for origin := range origins {
		for name, order := range map[string]byte{"wiped": 'w', "dropped": 'd'} {
			t.Run(origin+" "+name, func(t *testing.T) {
				t.Parallel()
				h := start(t, origin)
				pid := h.cmd.Process.Pid
				hits := h.scan(pid)
				if want := min(len(h.secret), 64) / 16; len(hits) != want {
					t.Errorf("%d parts of the secret are found, not %d", len(hits), want)
				}
				for _, hit := range hits {
					if hit.Count != 1 || !hit.Protected() {
						t.Error("alive: ", hit)
					}
				}
				h.order(order)
				for _, hit := range h.scan(pid) {
					t.Error(name, ": ", hit)
				}
			})
		}
	}
}

func TestForkedProcess(t *testing.T) {
	h := start(t, "Random")
	child := int(h.order('f'))
	if child <= 0 || child > 1<<22 {
		t.Fatalf("fork: %d", child)
	}
	defer unix.Kill(child, unix.SIGKILL) // init, or the holder's end, collects it
	for _, hit := range h.scan(child) {
		t.Error("forked: ", hit)
	}
	if len(h.scan(h.cmd.Process.Pid)) == 0 {
		t.Error("the parent lost its secret")
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", child)); err != nil || !bytes.Contains(b, []byte(" wf")) {
		t.Errorf("the fork has no such memory: %v", err)
	}
}
