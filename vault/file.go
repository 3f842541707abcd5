package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

const (
	fileMode    = 0o600
	lockTimeout = time.Second
	lockPoll    = 20 * time.Millisecond
)

// openFile opens, checks and locks an existing vault file.
func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, openError(path, err)
	}
	if err := errors.Join(vet(f), lock(f)); err != nil {
		f.Close()
		var state *StateError
		if errors.As(err, &state) {
			return nil, state
		}
		return nil, err
	}
	return f, nil
}

func openError(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return named(StateAbsent, "name the right file, or create a vault there: tokendesk vault init", "cannot open the vault: %w", err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		return named(StatePermission, fmt.Sprintf("give this user read and write access to %s and search access to its directory", path),
			"cannot open the vault: %w", err)
	case errors.Is(err, unix.EISDIR):
		return corrupt("%s is a directory", path)
	}
	return fmt.Errorf("cannot open the vault: %w", err)
}

// vet refuses what is not a file of ours before anything is read from it.
func vet(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("cannot open the vault: %w", err)
	}
	if !info.Mode().IsRegular() {
		return corrupt("%s is not a regular file", f.Name())
	}
	if m := info.Mode().Perm(); m&0o077 != 0 {
		return named(StatePermission, fmt.Sprintf("find out who could have read or changed it, then run chmod 600 %s", f.Name()),
			"%s is open to other users (mode %04o)", f.Name(), m)
	}
	return nil
}

// lock takes the lock that bbolt takes, before the pages are verified: a writer must not move them meanwhile.
func lock(f *os.File) error {
	deadline := time.Now().Add(lockTimeout)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("cannot lock the vault %s: %w", f.Name(), err)
		}
		if time.Now().After(deadline) {
			return named(StateInUse, "stop the other program (is another daemon running?) or ask it instead",
				"another program has had %s open for %s", f.Name(), lockTimeout)
		}
		time.Sleep(lockPoll)
	}
}

// options makes bbolt use f, so that f can be closed even if bbolt has panicked, and nothing is ever created.
func options(f *os.File) *bbolt.Options {
	return &bbolt.Options{
		PageSize:     pageSize,
		FreelistType: bbolt.FreelistMapType,
		NoStatistics: true,
		OpenFile:     func(string, int, os.FileMode) (*os.File, error) { return f, nil },
	}
}

// errUnsynced means that a new file has its name, and that it may lose it again if the power goes.
var errUnsynced = errors.New("the vault is written, but the disk did not confirm its name")

// createFile makes a new file beside path, lets fill write it, and gives it its name once it is safely on disk: never
// over another file, unless replace says so.
func createFile(path string, replace bool, fill func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), newFilePrefix(path)+"*.new") // mode 0600
	if err != nil {
		return createError(path, err)
	}
	tmp := f.Name()
	err = fill(f)
	f.Close() // bbolt has closed it, unless fill failed early
	if err == nil {
		flags := uint(unix.RENAME_NOREPLACE)
		if replace {
			flags = 0
		}
		if err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, path, flags); err == nil {
			if err = syncDir(filepath.Dir(path)); err != nil {
				err = fmt.Errorf("%w: %w", errUnsynced, err)
			}
			return err
		}
		err = fmt.Errorf("cannot name the new vault %s: %w", path, err)
	}
	return errors.Join(err, os.Remove(tmp))
}

func newFilePrefix(path string) string { return "." + filepath.Base(path) + "." }

// sweep removes what a crash has left of new files. Only who has locked the vault may do that.
func sweep(path string) error {
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), newFilePrefix(path)+"*.new"))
	for _, f := range left {
		err = errors.Join(err, os.Remove(f))
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// absent reports an error unless there is nothing at path. What cannot be looked at counts as something.
func absent(path string) error {
	_, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil:
		return fmt.Errorf("cannot create a vault: %s: %w; open it, or choose another name", path, fs.ErrExist)
	}
	return createError(path, err)
}

func createError(path string, err error) error {
	err = fmt.Errorf("cannot create a vault: %w", err)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		return named(StatePermission, fmt.Sprintf("give this user write access to %s", filepath.Dir(path)), "%w", err)
	}
	return err
}
