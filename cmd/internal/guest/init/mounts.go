package main

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"tokendesk/cmd/internal/guest/job"
)

type mount struct {
	kind, at string
	flags    uintptr
	data     string
}

func (m mount) do(source string) error {
	if err := os.MkdirAll(m.at, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, m.at, m.kind, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.kind, m.at, err)
	}
	return nil
}

// kernelFilesystems mounts what does not need the host.
func kernelFilesystems() error {
	for _, m := range []mount{
		{kind: "devtmpfs", at: "/dev", data: "mode=0755"},
		{kind: "proc", at: "/proc", flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{kind: "sysfs", at: "/sys", flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	} {
		if err := m.do(m.kind); err != nil {
			return err
		}
	}
	return nil
}

// hostRoot makes the host's root, read-only over 9p, and a layer in memory above it the root.
func hostRoot(job.Job) error {
	lower := mount{kind: "9p", at: "/lower", flags: unix.MS_RDONLY, data: "trans=virtio,version=9p2000.L,msize=512000,cache=loose"}
	if err := lower.do("hostroot"); err != nil {
		return err
	}
	if err := (mount{kind: "tmpfs", at: "/layer", data: "mode=0755"}).do("layer"); err != nil {
		return err
	}
	for _, dir := range []string{"/layer/upper", "/layer/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	root := mount{kind: "overlay", at: "/root", data: "lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work"}
	if err := root.do("root"); err != nil {
		return err
	}
	for _, at := range []string{"/dev", "/proc", "/sys"} {
		if err := unix.Mount(at, "/root"+at, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", at, err)
		}
	}
	if err := os.Chdir("/root"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

// filesystems mounts what programs expect. /tmp stays as the host has it, with the layer above: the tree that
// is tested may lie there.
func filesystems(j job.Job) error {
	for _, m := range []mount{
		{kind: "tmpfs", at: "/run", flags: unix.MS_NOSUID | unix.MS_NODEV, data: "mode=0755"},
		{kind: "tmpfs", at: "/dev/shm", flags: unix.MS_NOSUID | unix.MS_NODEV, data: "mode=1777"},
		{kind: "devpts", at: "/dev/pts", flags: unix.MS_NOSUID | unix.MS_NOEXEC, data: "gid=5,mode=0620,ptmxmode=0666"},
		{kind: "debugfs", at: "/sys/kernel/debug"},
	} {
		if err := m.do(m.kind); err != nil {
			return err
		}
	}
	for dir, mode := range map[string]os.FileMode{"/run/lock": 0o777 | os.ModeSticky, "/run/udev": 0o755, "/tmp": 0o777 | os.ModeSticky} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(dir, mode); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(target, "/dev/"+name); err != nil {
			return err
		}
	}
	// An ordinary user's guest sees what that user may see of the host.
	if _, err := os.ReadDir(home); err != nil {
		if err := (mount{kind: "tmpfs", at: home, data: "mode=0700"}).do("home"); err != nil {
			return err
		}
	}
	if err := unix.Sethostname([]byte("guest")); err != nil {
		return err
	}
	return mount{at: filepath.Join("/lib/modules", j.Version), flags: unix.MS_BIND}.do(j.ModuleTree)
}
