package tracer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// naming gave a file a name, or took it, which is not safe until its directory is synced.
type naming struct {
	serial    int
	directory uint64 // inode
	from      string // empty: the file was made
	to        string
	before    string // a link to what had the name before; empty: nothing had
	removed   bool   // nothing has the name now
}

// isNaming tells which calls name files, or take names away.
func isNaming(name string) bool {
	return name == "openat" || strings.HasPrefix(name, "rename") || strings.HasPrefix(name, "unlink")
}

// name looks at a call that names a file before its effect.
func (u *unsynced) name(tid int, what about, args []uint64, to string) error {
	n := naming{to: to, removed: strings.HasPrefix(what.name, "unlink")}
	var info unix.Stat_t
	switch err := unix.Lstat(to, &info); {
	case errors.Is(err, unix.ENOENT):
	case err != nil:
		return err
	case what.name == "openat", info.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil // it was there before, or is a directory or socket, which stays as it is
	default:
		n.before = filepath.Join(u.dir, fmt.Sprintf("before%d-%d", info.Ino, u.count))
		if err := os.Link(to, n.before); err != nil {
			return err
		}
	}
	if strings.HasPrefix(what.name, "rename") {
		old := what
		old.path -= 2
		if what.name == "rename" {
			old.path = 0
		}
		var err error
		if n.from, err = path(tid, old, args); err != nil {
			return err
		}
	}
	if err := unix.Stat(filepath.Dir(to), &info); err != nil {
		return err
	}
	n.directory = info.Ino
	u.naming[tid] = n
	return nil
}

// named is called after a call that names a file.
func (u *unsynced) named(tid int, good bool) {
	n, found := u.naming[tid]
	delete(u.naming, tid)
	if !found {
		return
	}
	if !good {
		n.forget()
		return
	}
	u.count++
	n.serial = u.count
	u.names = append(u.names, n)
}

func (n naming) forget() {
	if n.before != "" {
		os.Remove(n.before)
	}
}

// back takes the naming back.
func (n naming) back() error {
	switch {
	case n.removed && n.before != "":
		return os.Rename(n.before, n.to)
	case n.removed:
		return nil
	case n.from == "":
		if err := os.Remove(n.to); !errors.Is(err, fs.ErrNotExist) { // else it was removed again by a call that was cut short
			return err
		}
		return nil
	}
	if err := os.Rename(n.to, n.from); err != nil {
		return err
	}
	if n.before == "" {
		return nil
	}
	return os.Rename(n.before, n.to)
}
