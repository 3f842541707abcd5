package secret_test

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tokendesk/vault/secret"
)

// timersInDo is the role of a process that sets timers in Do while it has hardly a thread to spare.
const timersInDo = "timers in Do"

// With a plain runtime/secret.Do, the process ends with SIGSEGV and without a word, in programs that use cgo.
func TestTimersInDo(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), role+"="+timersInDo)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
}

// setTimers takes one thread after the other away and sets timers meanwhile, each the next to fire.
func setTimers(string) error {
	const rounds, round = 200, time.Millisecond
	runtime.GOMAXPROCS(2)
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	var returned atomic.Bool
	wait := 10 * time.Hour
	timer := time.AfterFunc(wait, func() {})
	for range rounds {
		var reading atomic.Bool
		go func() {
			reading.Store(true)
			unix.Read(ends[0], make([]byte, 1)) // keeps its thread until the process ends
			returned.Store(true)
		}()
		for !reading.Load() { // a goroutine that waited would make room for the other's thread
		}
		for begin := time.Now(); time.Since(begin) < round; {
			wait -= time.Millisecond
			secret.Do(func() { timer.Reset(wait) })
		}
	}
	if wait <= 0 || returned.Load() {
		return errors.New("there were no such timers, or there were threads to spare")
	}
	return nil
}
