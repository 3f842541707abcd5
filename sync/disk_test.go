package syncer_test

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"

	"tokendesk/vault"
)

// A limit on file sizes is the whole process's, so the test of a full disk runs in one of its own.
const diskVariable = "TOKENDESK_SYNC_TEST_DISK"

// A full disk keeps outcomes from being recorded, and nothing else: the outbox goes on, cut-offs take effect, and
// when there is room again everything is delivered.
func TestFullDisk(t *testing.T) {
	if os.Getenv(diskVariable) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFullDisk$", "-test.v")
		cmd.Env = append(os.Environ(), diskVariable+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	signal.Ignore(unix.SIGXFSZ)
	f := open(t, quick)
	alices, bobs := f.enroll(tokenA, 1, 0), f.enroll(tokenB, 1, 0)
	f.enqueue(vault.Put, tokenA, "alice", 1, 0)
	f.assign(tokenA, "alice")
	f.deliver()
	f.enqueue(vault.Put, tokenB, "bob", 1, 0)
	cut := f.disable(tokenA)
	last := f.assign(tokenB, "bob")

	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 2 * uint64(os.Getpagesize()), Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	f.run()
	f.log.await(t, "cannot record what became of a change", 3)
	f.wantLogin("alice", alices, 0, false)
	if seen, err := f.c.Observe(t.Context(), tokenB); err != nil || !seen.Exists {
		t.Errorf("the other token was not tried: %+v, %v", seen, err)
	}
	if n := len(f.left()); n != 3 {
		t.Errorf("%d left, want 3", n)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	// The pass that finds room in its middle has tried the cut-off before: that is recorded in the next one.
	if err := errors.Join(f.wait(cut), f.wait(last)); err != nil {
		t.Fatal(err)
	}
	f.wantLeft()
	f.wantLogin("bob", bobs, 0, true)
}
