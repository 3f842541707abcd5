package pcsctest_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tokendesk/device/pcsctest"
)

// shortDir is a directory whose name leaves room for that of a socket, and which others may search.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pcsc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// limit ends a client that waits for ever.
func limit(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func stopped(t *testing.T, r *pcsctest.Rig) *pcsctest.Rig {
	t.Helper()
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func startRig(t *testing.T, readers int) *pcsctest.Rig {
	t.Helper()
	r, err := pcsctest.Start(shortDir(t), readers)
	if err != nil {
		t.Fatal(err)
	}
	return stopped(t, r)
}

// seen is what a client sees, run as a user: lines "number, is there a card, name".
func seen(t *testing.T, r *pcsctest.Rig, as *syscall.Credential) string {
	t.Helper()
	cmd := exec.CommandContext(limit(t), "opensc-tool", "--list-readers")
	cmd.Env = append(os.Environ(), "PCSCLITE_CSOCK_NAME="+r.Socket)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("opensc-tool: %v: %s", err, out)
	}
	return string(out)
}

func TestReadersOfTheirOwnNames(t *testing.T) {
	r := startRig(t, 3)
	out := seen(t, r, nil)
	names := map[string]bool{}
	for _, name := range r.Readers {
		if !strings.HasPrefix(name, pcsctest.ReaderName) || names[name] || !strings.Contains(out, " "+name+"\n") {
			t.Errorf("reader %q: not seen once, as a YubiKey, in:\n%s", name, out)
		}
		names[name] = true
	}
	if len(r.Readers) != 3 || len(r.Ports) != 3 {
		t.Errorf("3 readers were asked for, there are %q at %v", r.Readers, r.Ports)
	}
}

// The reader of a name is the one at the port that belongs to it.
func TestPortsAreInTheOrderOfReaders(t *testing.T) {
	r := startRig(t, 3)
	for i, port := range r.Ports {
		conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			t.Fatal(err)
		}
		// vpcd asks for power (one byte) or the ATR (4) in frames with a length of two bytes.
		go func() {
			for request := make([]byte, 3); ; {
				if _, err := io.ReadFull(conn, request); err != nil {
					return
				}
				if request[2] == 4 {
					conn.Write([]byte{0, 5, 0x3B, 0x80, 0x80, 0x01, 0x01})
				}
			}
		}()
		cmd := exec.CommandContext(limit(t), "opensc-tool", "--reader", r.Readers[i], "--wait", "--atr")
		cmd.Env = append(os.Environ(), "PCSCLITE_CSOCK_NAME="+r.Socket)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("waiting for the card at port %d: %v: %s", port, err, out)
		}
		row := regexp.MustCompile(`(?m)^\d+\s+Yes\s+` + regexp.QuoteMeta(r.Readers[i]) + `$`)
		if out := seen(t, r, nil); !row.MatchString(out) || strings.Count(out, " Yes ") != 1 {
			t.Errorf("the card at port %d is not in reader %q:\n%s", port, r.Readers[i], out)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		for strings.Contains(seen(t, r, nil), " Yes ") {
			if limit(t).Err() != nil {
				t.Fatal("a card that was pulled is still seen")
			}
		}
	}
}

func TestOtherUsersReachIt(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("run the tests as root: another user's client is one of them")
	}
	out := seen(t, startRig(t, 1), &syscall.Credential{Uid: 65534, Gid: 65534})
	if !strings.Contains(out, pcsctest.ReaderName) {
		t.Errorf("another user sees:\n%s", out)
	}
}

func TestTwins(t *testing.T) {
	r, err := pcsctest.StartTwins(shortDir(t))
	if err != nil {
		t.Fatal(err)
	}
	stopped(t, r)
	if len(r.Readers) != 2 || r.Readers[0] != r.Readers[1] || r.Ports[0] == r.Ports[1] {
		t.Fatalf("twins are %q at %v", r.Readers, r.Ports)
	}
	if out := seen(t, r, nil); strings.Count(out, r.Readers[0]+"\n") != 2 {
		t.Errorf("twins are seen as:\n%s", out)
	}
}

func TestRestartKeepsPortsAndSocket(t *testing.T) {
	r := startRig(t, 1)
	first, port := r.PID(), r.Ports[0]
	if err := r.Restart(); err != nil {
		t.Fatal(err)
	}
	if r.PID() == first || r.Ports[0] != port {
		t.Errorf("process %d at port %d became process %d at port %d", first, port, r.PID(), r.Ports[0])
	}
	if err := r.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := r.Restart(); err != nil {
		t.Fatalf("after a crash: %v", err)
	}
	if out := seen(t, r, nil); !strings.Contains(out, r.Readers[0]) {
		t.Errorf("after a restart is seen:\n%s", out)
	}
}

func TestStopLeavesNothing(t *testing.T) {
	r := startRig(t, 1)
	pid := r.PID()
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("pcscd, process %d, is still there: %v", pid, err)
	}
	if _, err := net.Dial("unix", r.Socket); err == nil {
		t.Error("its socket still answers")
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), filepath.Dir(r.Socket)) {
		t.Errorf("something is mounted where it was: %v\n%s", err, mounts)
	}
	if err := r.Stop(); err != nil {
		t.Errorf("second Stop: %v", err)
	}
}

func TestManyAtOnce(t *testing.T) {
	var group sync.WaitGroup
	for range 6 {
		dir := shortDir(t)
		group.Go(func() {
			r, err := pcsctest.Start(dir, 1)
			if err != nil {
				t.Error(err)
				return
			}
			if err := r.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

func TestRefusals(t *testing.T) {
	for _, readers := range []int{0, pcsctest.MaxReaders + 1} {
		if r, err := pcsctest.Start(t.TempDir(), readers); err == nil {
			t.Errorf("a rig with %d readers at %v was started", readers, r.Ports)
		}
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("d", 100))
	if _, err := pcsctest.Start(long, 1); err == nil || !strings.Contains(err.Error(), "too long for a Unix socket") {
		t.Errorf("a long path: %v", err)
	}
}

func ExampleStart() {
	dir, err := os.MkdirTemp("", "pcsc")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	rig, err := pcsctest.Start(dir, 1)
	if err != nil {
		panic(err)
	}
	defer rig.Stop()
	fmt.Println(rig.Readers[0])
	// Output: Yubico YubiKey OTP+FIDO+CCID 00 00
}
