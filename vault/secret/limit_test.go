package secret_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"tokendesk/vault/secret"
)

// limits are processes with too little of something.
var limits = map[string]limit{
	"50,000 seeds in 8 MiB": {to: 8 << 20, check: seeds},
	"nothing may be locked": {to: 0, check: unlocked},
	"little may be locked":  {to: 128 << 10, check: partly},
	"nothing can be mapped": {to: 8 << 20, check: unmapped},
}

type limit struct {
	to    uint64 // bytes that may be locked
	check func() error
}

const confinedArg = "confined"

// confined starts the program again under a limit and without the right to ignore it, and then checks.
func confined(name string) error {
	l := limits[name]
	if len(os.Args) > 1 && os.Args[1] == confinedArg {
		return l.check()
	}
	runtime.LockOSThread() // rights are a thread's
	if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_IPC_LOCK, 0, 0, 0); err != nil && !errors.Is(err, unix.EPERM) {
		return err // EPERM: who may not drop it does not have it
	}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: l.to, Max: l.to}); err != nil {
		return err
	}
	return unix.Exec("/proc/self/exe", []string{os.Args[0], confinedArg}, os.Environ())
}

func TestLimits(t *testing.T) {
	for name := range limits {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
			cmd.Env = append(os.Environ(), role+"="+name)
			if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

func seeds() error {
	live := make([]secret.Secret, 60_000)
	for i := range live {
		live[i] = secret.Random(20)
	}
	m := secret.Memory()
	if m.Problem != nil || m.UnlockedBytes != 0 || m.LockedBytes > 8<<20 || m.Live != len(live) {
		return fmt.Errorf("%+v", m)
	}
	for _, s := range live {
		s.Wipe()
	}
	if m := secret.Memory(); m.LockedBytes > 64<<10 || m.Live != 0 {
		return fmt.Errorf("after the burst: %+v", m)
	}
	return nil
}

func unlocked() error {
	if err := work(); err != nil {
		return err
	}
	m := secret.Memory()
	if m.LockedBytes != 0 || m.UnlockedBytes == 0 || m.Live != 0 {
		return fmt.Errorf("%+v", m)
	}
	return named(m.Problem, "LimitMEMLOCK=", "ulimit -l (now 0 KiB)", "operation not permitted")
}

func partly() error {
	first := secret.Random(20)
	if m := secret.Memory(); m.Problem != nil || m.LockedBytes == 0 {
		return fmt.Errorf("%+v", m)
	}
	if err := work(); err != nil {
		return err
	}
	first.Wipe()
	m := secret.Memory()
	if m.LockedBytes > 128<<10 || m.Live != 0 {
		return fmt.Errorf("%+v", m)
	}
	return named(m.Problem, "LimitMEMLOCK=", "ulimit -l (now 128 KiB)", "cannot allocate memory")
}

func unmapped() error {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_AS, &before); err != nil {
		return err
	}
	debug.SetGCPercent(-1) // Go itself must not need memory now
	if err := unix.Setrlimit(unix.RLIMIT_AS, &unix.Rlimit{Cur: 1 << 20, Max: before.Max}); err != nil {
		return err
	}
	short, long := secret.New([]byte(word)), secret.Random(5000)
	if err := unix.Setrlimit(unix.RLIMIT_AS, &before); err != nil {
		return err
	}
	if string(short.Reveal()) != word || long.Len() != 5000 {
		return errors.New("a secret is not what it should be")
	}
	if m := secret.Memory(); m.LockedBytes != 0 || m.UnlockedBytes != 72<<10 {
		return fmt.Errorf("%+v", m)
	}
	long.Wipe()
	short.Wipe()
	if err := work(); err != nil {
		return err
	}
	return named(secret.Memory().Problem, "cannot map memory")
}

func named(problem error, words ...string) error {
	for _, w := range words {
		if problem == nil || !strings.Contains(problem.Error(), w) {
			return fmt.Errorf("%q is not in: %v", w, problem)
		}
	}
	return nil
}

func TestConcurrent(t *testing.T) {
	before := secret.Memory().Live
	if err := work(); err != nil {
		t.Error(err)
	}
	if m := secret.Memory(); m.Live > before { // what other tests dropped may be given back meanwhile
		t.Errorf("%d secrets live, %d before", m.Live, before)
	}
}

// work has several goroutines use secrets of all sizes at the same time.
func work() error {
	errs := make([]error, 8)
	var all sync.WaitGroup
	for w := range errs {
		all.Go(func() { errs[w] = use(500, byte(w+1)) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// use makes n secrets of one byte's repetitions, of which up to 100 live, and checks that nobody else's byte gets in.
func use(n int, mark byte) error {
	var live []secret.Secret
	for i := range n {
		size := 1 + i*i%5000
		want := bytes.Repeat([]byte{mark}, size)
		s, err := secret.Make(size, func(b []byte) error {
			if len(b) != size || !bytes.Equal(b, make([]byte, size)) {
				return fmt.Errorf("a new place of %d bytes is not empty", size)
			}
			copy(b, want)
			return nil
		})
		if err != nil {
			return err
		}
		live = append(live, s, s.Clone())
		if len(live) < 200 && i < n-1 {
			continue
		}
		for _, s := range live {
			if b := s.Reveal(); !bytes.Equal(b, bytes.Repeat([]byte{mark}, len(b))) || len(b) == 0 {
				return errors.New("a secret changed")
			}
			var both sync.WaitGroup
			both.Go(s.Wipe)
			s.Wipe()
			both.Wait()
			if !s.IsZero() {
				return errors.New("a wiped secret is not empty")
			}
		}
		live = live[:0]
	}
	return nil
}
