// Package tracer runs a program under ptrace and kills it at one system call of its choosing.
//
// The program is the unmodified one that ships. A seccomp filter, installed just before exec, stops only the
// calls by which something leaves the process: writes, sends, syncs, and changes of files' names. A call is killed at its
// entry: the calls before it have had their effect, it and all others have none. To be killed after it is to be killed
// at the next one. All threads and children are followed.
//
// A killed process leaves its page cache behind: what it wrote is there, synced or not. What a power cut takes besides
// is shown only where Plan.Unsynced says so.
//
// It needs Linux on x86-64 and root, and two more processes of the same executable, so that the executable has to
// call Main first: the tracer, because the parent of a process cannot trace it and wait for it as well, and the one that
// becomes the traced program.
package tracer

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// roleVariable makes an executable that calls Main play a part: "serve SOCKET" or "run SOCKET".
const roleVariable = "TOKENDESK_CRASH_TRACER"

const (
	roleServe = "serve"
	roleRun   = "run"
)

// Kind gives a name to what calls are about.
type Kind struct {
	Name   string
	Prefix string // of Call.Target
	At     int    // only writes that carry Bytes at this offset, if there are any
	Bytes  []byte
	Ignore bool // such calls are not counted, and nothing is killed there
}

// usual are kinds that no plan needs to name: what goes on inside the process, and answers to callers.
var usual = []Kind{
	{Name: "event", Prefix: "anon_inode:", Ignore: true},
	{Name: "event", Prefix: "pipe:", Ignore: true},
	{Name: "client", Prefix: "socket:", Ignore: true}, // one that the program did not connect itself
	{Name: "nothing", Prefix: "/dev/null", Ignore: true},
}

// Plan says what is to happen from one Arm to the next Disarm.
type Plan struct {
	// Kinds name what calls are about; the first whose prefix fits counts, then the usual ones. What fits none is
	// counted, as "other".
	Kinds []Kind
	// Kill is the ordinal of the call to kill at, from 1, among those of kind On if that is not empty. With 0 calls are
	// only recorded.
	Kill int
	On   string
	// Torn lets half of the bytes through if the call to kill at is a pwrite64.
	Torn bool
	// Unsynced takes back, at the kill, a random part of what was not synced yet, as a machine may that loses its power:
	// writes to files, and from some moment on how files were made and renamed. Seed chooses which.
	Unsynced bool
	Seed     uint64
	// After kills after a time instead, counted from Arm. 0 never does.
	After time.Duration
}

// Call is one system call, at its entry.
type Call struct {
	Ordinal int
	Name    string // of the system call
	Kind    string
	Target  string // a path; unix:PATH or tcp:ADDRESS of a socket that the program connected; or TYPE:[INODE]
	Size    int    // bytes, of writes and sends
	Offset  int64  // of pwrite64
}

func (c Call) String() string {
	var size string
	switch {
	case c.Name == "pwrite64":
		size = fmt.Sprintf(" %d bytes at %d", c.Size, c.Offset)
	case c.Size > 0:
		size = fmt.Sprintf(" %d bytes", c.Size)
	}
	return fmt.Sprintf("%d: %s %s%s", c.Ordinal, c.Name, c.Kind, size)
}

// Report is what has happened since Arm.
type Report struct {
	Calls  []Call // that were counted, the one that was killed last
	Killed bool   // a program was killed, as planned
	Torn   bool   // half of the last call was let through
	Lost   int    // writes and names that Plan.Unsynced took back
	Faults []string
}

// Last is the last call counted.
func (r Report) Last() Call {
	if len(r.Calls) == 0 {
		return Call{Name: "nothing"}
	}
	return r.Calls[len(r.Calls)-1]
}

// Tracer traces any number of programs. It is safe for concurrent use.
type Tracer struct {
	dir     string
	self    string
	cmd     *exec.Cmd
	problem *strings.Builder

	mu      sync.Mutex
	in      io.WriteCloser
	answers *bufio.Scanner
}

// Start starts a tracer that traces nothing yet.
func Start() (_ *Tracer, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "tr")
	if err != nil {
		return nil, err
	}
	t := &Tracer{dir: dir, self: self, problem: new(strings.Builder)}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	t.cmd = exec.Command(self)
	t.cmd.Env = append(os.Environ(), roleVariable+"="+roleServe+" "+t.socket())
	t.cmd.Stderr = t.problem
	if t.in, err = t.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := t.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := t.cmd.Start(); err != nil {
		return nil, err
	}
	t.answers = bufio.NewScanner(out)
	t.answers.Buffer(nil, 1<<26)
	if !t.answers.Scan() { // says that it is ready
		t.Close()
		return nil, fmt.Errorf("cannot start the tracer: %s", t.problem)
	}
	return t, nil
}

func (t *Tracer) socket() string { return filepath.Join(t.dir, "socket") }

// Command is a program that runs under the tracer when it is started. Its environment may be added to, not replaced.
func (t *Tracer) Command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(t.self, append([]string{program}, args...)...)
	cmd.Env = append(os.Environ(), roleVariable+"="+roleRun+" "+t.socket())
	return cmd
}

// Arm begins a plan with all traced programs, running or still to be started.
func (t *Tracer) Arm(p Plan) error {
	_, err := t.ask(&p)
	return err
}

// Disarm ends a plan. If a program was killed it has been reaped by the tracer, and its parent may wait for it.
func (t *Tracer) Disarm() (Report, error) { return t.ask(nil) }

func (t *Tracer) ask(p *Plan) (Report, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, err := json.Marshal(p)
	if err != nil {
		return Report{}, err
	}
	if _, err := t.in.Write(append(b, '\n')); err != nil {
		return Report{}, fmt.Errorf("the tracer has ended: %w: %s", err, t.problem)
	}
	if !t.answers.Scan() {
		return Report{}, fmt.Errorf("the tracer has ended: %v: %s", t.answers.Err(), t.problem)
	}
	var r Report
	if err := json.Unmarshal(t.answers.Bytes(), &r); err != nil {
		return Report{}, err
	}
	if len(r.Faults) > 0 {
		return r, errors.New("the tracer is at fault: " + strings.Join(r.Faults, "; "))
	}
	return r, nil
}

// Close ends the tracer, and kills what it traces.
func (t *Tracer) Close() error {
	t.in.Close()
	return errors.Join(t.cmd.Wait(), os.RemoveAll(t.dir))
}
