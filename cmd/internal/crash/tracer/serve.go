package tracer

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// watch is what the tracer's threads share: one for each program.
type watch struct {
	dir      string // of the tracer
	mu       sync.Mutex
	plan     *Plan // nil while not armed
	report   Report
	hits     int // calls that Plan.Kill counts
	timer    *time.Timer
	sessions map[*session]bool
}

// serve is the tracer's process. It ends with its input.
func serve(socket string, in io.Reader, out io.Writer) error {
	signal.Ignore(syscall.SIGINT) // its starter gets that one as well, and ends this by closing the input
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	defer listener.Close()
	w := &watch{dir: filepath.Dir(socket), sessions: map[*session]bool{}}
	go w.accept(listener)
	if _, err := fmt.Fprintln(out, "ready"); err != nil {
		return err
	}
	requests := bufio.NewScanner(in)
	requests.Buffer(nil, 1<<20)
	for requests.Scan() {
		var p *Plan
		if err := json.Unmarshal(requests.Bytes(), &p); err != nil {
			return err
		}
		var r Report
		if p != nil {
			w.arm(p)
		} else {
			r = w.disarm()
		}
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if _, err := out.Write(append(b, '\n')); err != nil {
			return err
		}
	}
	return requests.Err()
}

// accept takes in programs that are about to start.
func (w *watch) accept(listener net.Listener) {
	for {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			// All ptrace calls have to come from the thread that has seized the program. It ends with this goroutine.
			runtime.LockOSThread()
			s, err := w.seize(c.(*net.UnixConn))
			if err == nil {
				_, err = c.Write([]byte{'g'})
			}
			c.Close()
			if err != nil {
				w.fault("cannot trace: %v", err)
			}
			if s != nil {
				s.run()
			}
		}()
	}
}

// seize begins to trace the process at the other end of c.
func (w *watch) seize(c *net.UnixConn) (*session, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *unix.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) { peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return nil, err
	}
	if peerErr != nil {
		return nil, peerErr
	}
	pid := int(peer.Pid)
	const options = unix.PTRACE_O_EXITKILL | unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACESECCOMP | unix.PTRACE_O_TRACEEXEC |
		unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, options, 0, 0); errno != 0 {
		return nil, fmt.Errorf("ptrace of process %d: %w", pid, errno)
	}
	s := &session{watch: w, processes: map[int]bool{pid: true}, sockets: map[string]string{}, flying: map[int]bool{}, done: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sessions[s] = true
	return s, nil
}

func (w *watch) arm(p *Plan) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.Kinds = append(p.Kinds, usual...)
	w.plan, w.hits, w.report = p, 0, Report{Faults: w.report.Faults}
	if p.After > 0 {
		w.timer = time.AfterFunc(p.After, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.plan == p {
				for s := range w.sessions {
					w.kill(s)
				}
			}
		})
	}
}

// disarm ends a plan and waits until what it has killed is gone.
func (w *watch) disarm() Report {
	w.mu.Lock()
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
	w.plan = nil
	var dying []*session
	for s := range w.sessions {
		if s.killed {
			dying = append(dying, s)
		}
	}
	w.mu.Unlock()
	for _, s := range dying {
		<-s.done
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.report
	w.report = Report{}
	return r
}

// kill ends a program with its children. Calls that are held at their entry are not carried out any more
// (kernel/seccomp.c: a fatal signal skips them). w.mu must be held.
func (w *watch) kill(s *session) {
	for pid := range s.processes {
		unix.Kill(pid, unix.SIGKILL) // fails only if it has ended
	}
	s.killed, s.dying = true, true
	w.report.Killed = true
}

func (w *watch) fault(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.report.Faults = append(w.report.Faults, fmt.Sprintf(format, args...))
}

// ended forgets a program that is gone, after it was made to look as after a power cut.
func (w *watch) ended(s *session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.sessions, s)
	clear(s.processes)
	if s.killed && s.unsynced != nil {
		lost, err := s.unsynced.lose()
		w.report.Lost += lost
		if err != nil {
			w.report.Faults = append(w.report.Faults, err.Error())
		}
	}
	if s.unsynced != nil {
		s.unsynced.close()
	}
	close(s.done)
}
