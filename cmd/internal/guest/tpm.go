package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// tpm is a software TPM on the host, for one guest.
type tpm struct {
	line *os.File // qemu's end of its control line
	cmd  *exec.Cmd
	said bytes.Buffer
}

// startTPM starts one whose state lies in a directory. It needs not be waited for: the line is there already.
func startTPM(ctx context.Context, dir string) (*tpm, error) {
	if err := os.Mkdir(filepath.Join(dir, "tpm"), 0o700); err != nil {
		return nil, err
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	t := &tpm{line: os.NewFile(uintptr(ends[0]), "tpm")}
	theirs := os.NewFile(uintptr(ends[1]), "swtpm")
	defer theirs.Close()
	t.cmd = program(ctx, "swtpm", "socket", "--tpm2", "--tpmstate", "dir=tpm", "--ctrl", "type=unixio,clientfd=3",
		"--flags", "startup-clear", "--terminate")
	t.cmd.Dir, t.cmd.ExtraFiles = dir, []*os.File{theirs}
	t.cmd.Stdout, t.cmd.Stderr = &t.said, &t.said
	if err := t.cmd.Start(); err != nil {
		t.line.Close()
		return nil, startError(t.cmd, err)
	}
	return t, nil
}

// arguments are qemu's, whose file 3 is the line.
func (t *tpm) arguments() []string {
	return []string{
		"-chardev", "socket,id=tpm,fd=3",
		"-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0",
	}
}

// stop ends it: by the end of its line if qemu has ended, which it may not even have begun.
func (t *tpm) stop() {
	t.line.Close()
	t.cmd.Process.Kill()
	t.cmd.Wait()
}
