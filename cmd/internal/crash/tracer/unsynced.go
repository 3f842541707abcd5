package tracer

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// unsynced keeps what writes have overwritten, and how files were named, until that is synced, to take it back as a
// machine may that loses its power. Writes are taken back one by one; names as a journal does, from some moment on.
type unsynced struct {
	random *rand.Rand
	dir    string              // for links, on the file system of what is traced
	files  map[uint64]*os.File // by inode
	count  int
	writes []overwritten
	names  []naming

	// Calls that were let go, by thread.
	syncing map[int]barrier
	naming  map[int]naming
}

type overwritten struct {
	serial int
	inode  uint64
	offset int64
	old    []byte
}

// barrier is a sync under way. It covers what was before it.
type barrier struct {
	inode  uint64
	serial int
}

func newUnsynced(seed uint64, dir string) *unsynced {
	return &unsynced{
		random: rand.New(rand.NewPCG(seed, 0)), dir: dir, files: map[uint64]*os.File{}, syncing: map[int]barrier{}, naming: map[int]naming{},
	}
}

// entry looks at a call before its effect.
func (u *unsynced) entry(tid int, what about, args []uint64, c Call) error {
	switch {
	case isNaming(c.Name):
		return u.name(tid, what, args, c.Target)
	case c.Name == "fsync", c.Name == "fdatasync":
		var info unix.Stat_t
		err := unix.Stat(descriptor(tid, fd(args)), &info)
		u.syncing[tid] = barrier{info.Ino, u.count}
		return err
	case c.Name == "write", c.Name == "pwrite64":
		return u.write(tid, fd(args), c)
	}
	return nil
}

func fd(args []uint64) int { return int(int32(args[0])) }

func descriptor(tid, fd int) string { return fmt.Sprintf("/proc/%d/fd/%d", tid, fd) }

func (u *unsynced) write(tid, fd int, c Call) error {
	f, inode, err := u.open(tid, fd)
	if err != nil || f == nil {
		return err
	}
	offset := c.Offset
	if c.Name == "write" {
		if offset, err = position(tid, fd); err != nil {
			return err
		}
	}
	old := make([]byte, c.Size) // beyond the end of the file: zeros, because its length is kept
	if _, err := f.ReadAt(old, offset); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	u.count++
	u.writes = append(u.writes, overwritten{u.count, inode, offset, old})
	return nil
}

// exit is called after any call that was let go.
func (u *unsynced) exit(tid int, good bool) {
	u.named(tid, good)
	s, found := u.syncing[tid]
	delete(u.syncing, tid)
	if !found || !good {
		return
	}
	u.writes = slices.DeleteFunc(u.writes, func(w overwritten) bool { return w.inode == s.inode && w.serial <= s.serial })
	u.names = slices.DeleteFunc(u.names, func(n naming) bool {
		safe := n.directory == s.inode && n.serial <= s.serial
		if safe {
			n.forget()
		}
		return safe
	})
}

// open gives a file of the thread under a descriptor of ours; nil if it is no regular file.
func (u *unsynced) open(tid, fd int) (*os.File, uint64, error) {
	name := descriptor(tid, fd)
	var info unix.Stat_t
	if err := unix.Stat(name, &info); err != nil {
		return nil, 0, err
	}
	if info.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, 0, nil
	}
	if f := u.files[info.Ino]; f != nil {
		return f, info.Ino, nil
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err == nil {
		u.files[info.Ino] = f
	}
	return f, info.Ino, err
}

func position(tid, fd int) (offset int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", tid, fd))
	if err != nil {
		return 0, err
	}
	_, err = fmt.Sscanf(string(b), "pos: %d", &offset)
	return offset, err
}

// lose takes back a random part of what is not synced. The process must be gone.
func (u *unsynced) lose() (lost int, err error) {
	var kept []overwritten
	for _, w := range slices.Backward(u.writes) {
		if u.random.IntN(2) == 0 || slices.ContainsFunc(kept, w.overlaps) {
			kept = append(kept, w)
			continue
		}
		if _, err := u.files[w.inode].WriteAt(w.old, w.offset); err != nil {
			return lost, err
		}
		lost++
	}
	for _, n := range slices.Backward(u.names[u.random.IntN(len(u.names)+1):]) {
		if err := n.back(); err != nil {
			return lost, err
		}
		lost++
	}
	return lost, nil
}

func (w overwritten) overlaps(o overwritten) bool {
	return w.inode == o.inode && w.offset < o.offset+int64(len(o.old)) && o.offset < w.offset+int64(len(w.old))
}

func (u *unsynced) close() {
	for _, f := range u.files {
		f.Close()
	}
	for _, n := range u.names {
		n.forget()
	}
}
