package tracer

import (
	"bytes"
	"errors"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a program that is to be killed is given for what it has begun.
const patience = time.Second

// session is one program being traced, by one thread.
type session struct {
	*watch
	processes map[int]bool      // it and its children; watch.mu
	killed    bool              // watch.mu
	dying     bool              // nothing is let go any more; watch.mu
	sockets   map[string]string // what a socket is connected to, by its link in /proc
	unsynced  *unsynced         // nil until something is to be tracked
	flying    map[int]bool      // threads whose call was let go and is to be waited for; watch.mu
	done      chan struct{}     // closed when it is gone
}

// run traces until the program and its children are gone.
func (s *session) run() {
	defer s.ended(s)
	for {
		var status unix.WaitStatus
		// Only what this thread traces: other threads have programs of their own.
		tid, err := unix.Wait4(-1, &status, unix.WALL|unix.WNOTHREAD, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ECHILD):
			return
		case err != nil:
			s.fault("wait: %v", err)
			return
		case status.Stopped():
			if err := s.stopped(tid, status); err != nil && !errors.Is(err, unix.ESRCH) { // it has been killed meanwhile
				s.fault("thread %d: %v", tid, err)
			}
		case status.Exited(), status.Signaled():
			s.mu.Lock()
			delete(s.processes, tid) // its number may be given to another
			s.mu.Unlock()
		}
	}
}

// stopped decides how a thread goes on.
func (s *session) stopped(tid int, status unix.WaitStatus) error {
	signal, event := status.StopSignal(), int(status)>>16
	switch event {
	case unix.PTRACE_EVENT_SECCOMP:
		return s.entry(tid)
	case unix.PTRACE_EVENT_STOP:
		if signal == unix.SIGTRAP { // a new thread begins
			return unix.PtraceCont(tid, 0)
		}
		// The whole program is stopped, and goes on with SIGCONT.
		_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_LISTEN, uintptr(tid), 0, 0, 0, 0)
		if errno != 0 {
			return errno
		}
		return nil
	case unix.PTRACE_EVENT_FORK, unix.PTRACE_EVENT_VFORK:
		child, err := unix.PtraceGetEventMsg(tid)
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.processes[int(child)] = true
		s.mu.Unlock()
		return unix.PtraceCont(tid, 0)
	case 0:
		if signal == unix.SIGTRAP|0x80 {
			return s.exit(tid)
		}
		return unix.PtraceCont(tid, int(signal))
	}
	return unix.PtraceCont(tid, 0)
}

// entry is called before a traced call has any effect.
func (s *session) entry(tid int) error {
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &regs); err != nil {
		return err
	}
	what := traced[regs.Orig_rax]
	if what.name == "connect" {
		s.connect(tid, &regs)
		return unix.PtraceCont(tid, 0)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dying {
		return nil // stays where it is, and is killed there
	}
	if s.plan == nil || s.report.Killed {
		return unix.PtraceCont(tid, 0)
	}
	args := []uint64{regs.Rdi, regs.Rsi, regs.Rdx, regs.R10, regs.R8, regs.R9}
	c, ignore := s.describe(tid, what, args)
	if ignore {
		return unix.PtraceCont(tid, 0)
	}
	c.Ordinal = len(s.report.Calls) + 1
	s.report.Calls = append(s.report.Calls, c)
	if s.plan.On == "" || c.Kind == s.plan.On {
		s.hits++
	}
	if s.hits == s.plan.Kill && s.hits > 0 {
		s.dying = true
		if !s.plan.Torn || c.Name != "pwrite64" || c.Size < 2 {
			s.finish()
			return nil
		}
		s.report.Torn = true
		regs.Rdx /= 2
		if err := unix.PtraceSetRegs(tid, &regs); err != nil {
			return err
		}
		s.flying[tid] = true
		return unix.PtraceSyscall(tid, 0)
	}
	if s.plan.Unsynced {
		if s.unsynced == nil {
			s.unsynced = newUnsynced(s.plan.Seed, s.dir)
		}
		if err := s.unsynced.entry(tid, what, args, c); err != nil {
			s.report.Faults = append(s.report.Faults, err.Error())
		}
	}
	if s.plan.Kill == 0 && s.unsynced == nil {
		return unix.PtraceCont(tid, 0)
	}
	s.flying[tid] = true
	return unix.PtraceSyscall(tid, 0)
}

// finish kills the program as soon as the calls that were let go have had their effect. s.mu must be held.
func (s *session) finish() {
	if len(s.flying) == 0 {
		s.kill(s)
		return
	}
	time.AfterFunc(patience, func() { // one waits for another that is held
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.killed && len(s.processes) > 0 {
			s.kill(s)
		}
	})
}

// exit is called after a call has had its effect, if that was asked for.
func (s *session) exit(tid int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flying, tid)
	if s.unsynced != nil {
		var regs unix.PtraceRegs
		if err := unix.PtraceGetRegs(tid, &regs); err != nil {
			return err
		}
		s.unsynced.exit(tid, int64(regs.Rax) >= 0)
	}
	if s.dying {
		s.finish()
		return nil
	}
	return unix.PtraceCont(tid, 0)
}

// connect notes what a socket leads to.
func (s *session) connect(tid int, regs *unix.PtraceRegs) {
	address, err := sockaddr(tid, uintptr(regs.Rsi), int(regs.Rdx))
	if err != nil {
		s.fault("connect: %v", err)
		return
	}
	if link := link(tid, int(int32(regs.Rdi))); link != "" && address != "" {
		s.sockets[link] = address
	}
}

// describe tells what a call is about, and whether it counts. s.mu must be held.
func (s *session) describe(tid int, what about, args []uint64) (c Call, ignore bool) {
	c = Call{Name: what.name, Kind: "other"}
	switch {
	case what.fd >= 0:
		c.Target = link(tid, int(int32(args[what.fd])))
		if address, ok := s.sockets[c.Target]; ok {
			c.Target = address
		}
	case what.path >= 0:
		var err error
		if c.Target, err = path(tid, what, args); err != nil {
			c.Target = err.Error()
		}
	}
	if what.size >= 0 {
		c.Size = int(args[what.size])
	}
	if what.name == "pwrite64" {
		c.Offset = int64(args[3])
	}
	for _, k := range s.plan.Kinds {
		if strings.HasPrefix(c.Target, k.Prefix) && k.carriedBy(tid, args, c) {
			c.Kind = k.Name
			return c, k.Ignore
		}
	}
	return c, false
}

// carriedBy looks into what a call is about to write.
func (k Kind) carriedBy(tid int, args []uint64, c Call) bool {
	if len(k.Bytes) == 0 {
		return true
	}
	if c.Name != "write" && c.Name != "pwrite64" && c.Name != "sendto" || c.Size < k.At+len(k.Bytes) {
		return false
	}
	b, err := read(tid, uintptr(args[1])+uintptr(k.At), len(k.Bytes))
	return err == nil && bytes.Equal(b, k.Bytes)
}
