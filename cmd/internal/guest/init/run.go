package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tokendesk/cmd/internal/guest/job"
)

// What the shell says of a command that it cannot run, POSIX 2.8.2.
const (
	cannotRun = 126
	notFound  = 127
)

// drain is how long the last output may take after every process was killed: a pipe's 64 KB take a fifth of a second.
const drain = 30 * time.Second

const (
	path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	home = "/root"
)

// environment is the same for every run, whatever the host's is.
func environment() []string {
	return []string{
		"PATH=" + path, "HOME=" + home, "USER=root", "LOGNAME=root", "SHELL=/bin/sh",
		"TMPDIR=/tmp", "LANG=C.UTF-8", "TERM=dumb",
	}
}

// line carries the reports to the host.
type line struct {
	mu   sync.Mutex
	file *os.File
}

// openLine opens a serial line that changes no byte.
func openLine(device string) (*line, error) {
	f, err := os.OpenFile(device, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t); err != nil {
		return nil, err
	}
	return &line{file: f}, nil
}

func (l *line) report(r job.Report) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.file.Write(r.Line())
	return err
}

// Write sends what the command says.
func (l *line) Write(p []byte) (int, error) {
	return len(p), l.report(job.Report{Event: job.Output, Data: p})
}

// run runs the command, buries whoever dies, and tells how the command ended when nothing runs any more.
func run(j job.Job, host *line) job.Report {
	cmd := exec.Command(j.Command[0], j.Command[1:]...)
	cmd.Dir, cmd.Env = j.Dir, environment()
	// The output goes through a pipe, so that no program takes the serial line for somebody's terminal.
	read, write, err := os.Pipe()
	if err != nil {
		return job.Report{Event: job.Failed, Text: err.Error()}
	}
	cmd.Stdout, cmd.Stderr = write, write
	// Its own session: what it does to its process group must not reach the first process.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return refusal(err)
	}
	write.Close()
	if err := host.report(job.Report{Event: job.Started}); err != nil {
		return job.Report{Event: job.Failed, Text: err.Error()}
	}
	loud()
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		io.Copy(host, read)
	}()
	code := bury(cmd.Process.Pid)
	unix.Kill(-1, unix.SIGKILL) // everybody but the first process, whoever still holds the output
	select {
	case <-copied:
	case <-time.After(drain):
	}
	return job.Report{Event: job.Exited, Code: code}
}

// bury waits for any child, as the first process inherits all orphans, until the command has ended.
func bury(command int) int {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case pid != command || errors.Is(err, unix.EINTR):
		case status.Signaled():
			return 128 + int(status.Signal())
		default:
			return status.ExitStatus()
		}
	}
}

// refusal says why a command was not started, with a shell's exit status.
func refusal(err error) job.Report {
	r := job.Report{Event: job.Refused, Code: cannotRun, Text: err.Error()}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		r.Code = notFound
	}
	return r
}

// loud lets the kernel's messages onto the console, for the log. Until then they would delay the start.
func loud() {
	const consoleLevel, all = 8, 8 // syslog(2)
	unix.Syscall(unix.SYS_SYSLOG, consoleLevel, 0, all)
}
