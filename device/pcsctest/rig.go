package pcsctest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ReaderName begins the names of readers. It is that of a YubiKey with all its interfaces: that is how PIV clients
// recognise one.
const ReaderName = "Yubico YubiKey OTP+FIDO+CCID"

// MaxReaders is how many a rig can have. pcscd takes 16 readers in all (PCSCLITE_MAX_READERS_CONTEXTS).
const MaxReaders = 16

const (
	startTimeout = 15 * time.Second
	stopTimeout  = 10 * time.Second
	poll         = 2 * time.Millisecond
	longestPath  = 107 // of a Unix socket (unix(7))
	attempts     = 8   // to find ports that nobody takes before pcscd does
)

// Rig is a pcscd with virtual readers.
type Rig struct {
	Socket  string   // of pcscd: what PCSCLITE_CSOCK_NAME is to be for its clients
	Readers []string // by their names; they are in pairs, so one more than asked for may be seen, which stays empty
	Ports   []int    // of 127.0.0.1, on which the readers wait for their cards; one each
	Log     string   // file of what pcscd says

	dir   string
	twins bool
	pairs []int // the first port of each pair

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has been waited for
}

// needed is where parts are, and the Debian package that has each.
var needed = []struct{ path, debian string }{
	{"/usr/sbin/pcscd", "pcscd"},
	{vpcdDriver, "vsmartcard-vpcd"},
}

const vpcdDriver = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so"

// Start runs a pcscd with 1 to MaxReaders readers, each of a name of its own, and waits until it answers. All its files are
// in dir, which others must be able to search if their processes are to reach it.
func Start(dir string, readers int) (*Rig, error) { return start(dir, readers, false) }

// StartTwins runs a pcscd with two readers that have one name, as some pcscd give to two readers of one kind: a client that
// asks for that name gets the first one.
func StartTwins(dir string) (*Rig, error) { return start(dir, 2, true) }

func start(dir string, readers int, twins bool) (*Rig, error) {
	if readers < 1 || readers > MaxReaders {
		return nil, fmt.Errorf("cannot start a pcscd with %d readers: it takes 1 to %d", readers, MaxReaders)
	}
	for _, n := range needed {
		if _, err := os.Stat(n.path); err != nil {
			return nil, fmt.Errorf("cannot start a pcscd with virtual readers: install Debian's package %s: %w", n.debian, err)
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	r := &Rig{dir: dir, twins: twins, Socket: filepath.Join(dir, "pcscd", "pcscd.comm"), Log: filepath.Join(dir, "pcscd.log")}
	if len(r.Socket) > longestPath {
		return nil, fmt.Errorf("%s is too long for a Unix socket: choose a shorter TMPDIR", r.Socket)
	}
	for _, made := range []string{"pcscd", "readers", "drivers"} {
		if err := os.MkdirAll(filepath.Join(dir, made), 0o755); err != nil {
			return nil, err
		}
	}
	for range attempts {
		if err = r.choose(readers); err != nil {
			return nil, err
		}
		if err = r.run(); !errors.As(err, new(*takenError)) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// choose finds ports, and tells pcscd of the readers (reader.conf(5)). vpcd has two readers a device: at the port in its
// name, and at the next.
func (r *Rig) choose(readers int) error {
	r.Ports, r.Readers, r.pairs = nil, nil, nil
	var conf strings.Builder
	for len(r.Ports) < readers {
		port, err := freePair()
		if err != nil {
			return err
		}
		if slices.Contains(r.pairs, port) {
			continue
		}
		name := ReaderName
		if n := len(r.pairs); n > 0 && !r.twins {
			name = fmt.Sprintf("%s %d", ReaderName, n+1)
		}
		r.pairs = append(r.pairs, port)
		for i := range 2 {
			if len(r.Ports) < readers && !(r.twins && i == 1) {
				r.Ports = append(r.Ports, port+i)
				r.Readers = append(r.Readers, fmt.Sprintf("%s 00 %02d", name, i))
			}
		}
		driver, err := r.driver(len(r.pairs))
		if err != nil {
			return err
		}
		fmt.Fprintf(&conf, "FRIENDLYNAME %q\nDEVICENAME /dev/null:%d\nLIBPATH %s\nCHANNELID %d\n\n", name, port, driver, port)
	}
	return os.WriteFile(filepath.Join(r.dir, "readers", "vpcd"), []byte(conf.String()), 0o644)
}

// driver makes a copy of vpcd for a pair: it keeps its readers by the number in their pair alone, so that one in memory
// serves one pair.
func (r *Rig) driver(pair int) (string, error) {
	code, err := os.ReadFile(vpcdDriver)
	if err != nil {
		return "", err
	}
	path := filepath.Join(r.dir, fmt.Sprintf("vpcd%d.so", pair))
	return path, os.WriteFile(path, code, 0o644)
}

// enter makes the directory $1 what pcscd knows as /run/pcscd, where its socket is, and becomes pcscd.
const enter = `mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/pcscd && mount --bind "$1" /run/pcscd && exec /usr/sbin/pcscd --foreground --config "$2"`

// run starts pcscd and waits until its readers listen and its socket answers.
func (r *Rig) run() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	log, err := os.OpenFile(r.Log, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("/bin/sh", "-c", enter, "sh", filepath.Join(r.dir, "pcscd"), filepath.Join(r.dir, "readers"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "PCSCLITE_HP_DROPDIR="+filepath.Join(r.dir, "drivers"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		// Who is not root becomes it in a user namespace, if the machine allows that.
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	started, exited := make(chan error, 1), make(chan struct{})
	go func() {
		// The death signal comes when the thread that started the process ends: it is held until then.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(exited)
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("cannot start pcscd in a mount namespace of its own, which takes root, or user namespaces: %w", err)
	}
	r.cmd, r.exited = cmd, exited
	if err := r.await(); err != nil {
		return errors.Join(err, r.stop())
	}
	return nil
}

// await returns once clients are answered. There is no event to wait for that clients would have.
func (r *Rig) await() error {
	deadline := time.Now().Add(startTimeout)
	for {
		err := r.listening(r.cmd.Process.Pid)
		if err == nil {
			var conn net.Conn
			if conn, err = net.Dial("unix", r.Socket); err == nil {
				return conn.Close()
			}
		}
		select {
		case <-r.exited:
			return fmt.Errorf("pcscd has ended, %s: %s", r.cmd.ProcessState, r.said())
		case <-time.After(poll):
		}
		if errors.As(err, new(*takenError)) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("pcscd does not answer within %s: %w; it says: %s", startTimeout, err, r.said())
		}
	}
}

func (r *Rig) said() string {
	log, err := os.ReadFile(r.Log)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(log))
}

// PID is the process id of pcscd; 0 if it does not run.
func (r *Rig) PID() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd == nil {
		return 0
	}
	return r.cmd.Process.Pid
}

// Stop ends pcscd. The directory is its owner's to remove. It may be called again.
func (r *Rig) Stop() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stop()
}

// Kill ends pcscd as a crash does.
func (r *Rig) Kill() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd == nil {
		return nil
	}
	err := r.cmd.Process.Kill()
	<-r.exited
	r.cmd = nil
	return err
}

// Restart runs pcscd again, with the same readers at the same ports; one that still runs is ended first.
func (r *Rig) Restart() error {
	if err := r.Stop(); err != nil {
		return err
	}
	return r.run()
}

func (r *Rig) stop() (err error) {
	if r.cmd == nil {
		return nil
	}
	pid := r.cmd.Process.Pid
	r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.exited:
	case <-time.After(stopTimeout):
		r.cmd.Process.Kill()
		<-r.exited
		err = fmt.Errorf("pcscd (process %d) had to be killed", pid)
	}
	r.cmd = nil
	return err
}
