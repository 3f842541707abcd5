// Command leftovers runs a command and fails if it leaves a process or a temporary file behind.
//
// Orphans of the command are inherited by this process, as a subreaper, so that none can hide; its
// temporary files are in a directory of its own.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// grace is how long processes that were told to end may take.
const grace = 3 * time.Second

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: leftovers COMMAND [ARGUMENT…]")
		os.Exit(2)
	}
	code, err := run(os.Args[1], os.Args[2:]...)
	if err != nil {
		fmt.Fprintln(os.Stderr, "leftovers:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(name string, args ...string) (code int, err error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "tl")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil { // some tests run programs as another user
		return 1, err
	}
	signal.Ignore(os.Interrupt) // the command gets it as well, and ends by it
	cmd := exec.Command(name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code, err = max(1, exit.ExitCode()), nil
	}
	return code, errors.Join(err, processes(), files(dir))
}

// processes names the orphans that do not end within grace, and ends them.
func processes() error {
	for deadline := time.Now().Add(grace); ; {
		var left []string
		for _, pid := range children() {
			if reaped, _ := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); reaped == pid {
				continue
			}
			command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			left = append(left, fmt.Sprintf("process %d left behind: %s", pid, strings.ReplaceAll(string(command), "\x00", " ")))
		}
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			for _, pid := range children() {
				syscall.Kill(pid, syscall.SIGKILL)
			}
			return errors.New(strings.Join(left, "\n"))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func children() (pids []int) {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, word := range strings.Fields(string(text)) {
			var pid int
			if _, err := fmt.Sscan(word, &pid); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func files(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var left []error
	for _, e := range entries {
		left = append(left, fmt.Errorf("file left behind: %s", e.Name()))
	}
	return errors.Join(left...)
}
