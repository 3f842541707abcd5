package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// compileHWDB makes udev's hardware database from the host's sources and those of a directory; nothing if that has
// none. It takes the guest's emulated processor six seconds, and the host's a third of one.
func compileHWDB(ctx context.Context, scratch, dir string) (string, error) {
	ours, err := filepath.Glob(filepath.Join(dir, "*.hwdb"))
	if err != nil || len(ours) == 0 {
		return "", err
	}
	root := filepath.Join(scratch, "hwdb")
	local := filepath.Join(root, "etc", "udev", "hwdb.d")
	// Both are copied, as systemd-hwdb takes absolute links for ones below its root.
	for from, to := range map[string]string{
		"/usr/lib/udev/hwdb.d": filepath.Join(root, "usr", "lib", "udev", "hwdb.d"),
		"/etc/udev/hwdb.d":     local,
	} {
		if err := os.MkdirAll(to, 0o755); err != nil {
			return "", err
		}
		if err := os.CopyFS(to, os.DirFS(from)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	for _, file := range ours {
		to := filepath.Join(local, filepath.Base(file))
		if err := os.RemoveAll(to); err != nil { // the host's of the same name
			return "", err
		}
		if err := copyFile(file, to); err != nil {
			return "", err
		}
	}
	if err := os.Symlink("usr/lib", filepath.Join(root, "lib")); err != nil { // as in Debian 12
		return "", err
	}
	return filepath.Join(root, "etc", "udev", "hwdb.bin"), finish(program(ctx, "systemd-hwdb", "update", "--root="+root))
}
