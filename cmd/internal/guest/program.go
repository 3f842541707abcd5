package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// grace is how long the output of a process that was killed may take.
const grace = 5 * time.Second

// packages says where a program of the host comes from.
var packages = map[string]string{
	"apt-cache": "apt", "apt-get": "apt", "cpio": "cpio", "depmod": "kmod", "dpkg-deb": "dpkg", "modprobe": "kmod",
	"qemu-system-x86_64": "qemu-system-x86", "swtpm": "swtpm", "systemd-hwdb": "udev", "xz": "xz-utils",
}

// startError says what to do about a program that does not start.
func startError(cmd *exec.Cmd, err error) error {
	name := filepath.Base(cmd.Path)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not installed: it is in Debian's package %s (make deps)", name, packages[name])
	}
	return fmt.Errorf("cannot start %s: %w", name, err)
}

// program prepares a program of the host. It and its children are killed when ctx ends, and it when we are; but ^C
// at the terminal does not reach it before us.
func program(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = grace
	return cmd
}

// finish runs a prepared program; the error has what it complained of.
func finish(cmd *exec.Cmd) error {
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	if err := cmd.Start(); err != nil {
		return startError(cmd, err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, bytes.TrimSpace(complaint.Bytes()))
	}
	return nil
}

// output runs a program and gives what it says.
func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	var out bytes.Buffer
	cmd := program(ctx, name, args...)
	cmd.Stdout = &out
	err := finish(cmd)
	return out.Bytes(), err
}
