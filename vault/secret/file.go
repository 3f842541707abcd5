package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// maxFile is the longest secret that ReadFile takes, in bytes.
const maxFile = 4096

// ErrExposed means that others may have read a secret file, or put it there.
var ErrExposed = errors.New("the file is not this user's alone")

// ReadFile reads a secret from a regular file that belongs to this user or to root and is closed to everybody
// else, without one trailing newline. It never waits, whatever is at path.
func ReadFile(path string) (Secret, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return Secret{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Secret{}, err
	}
	if err := vet(path, info); err != nil {
		return Secret{}, err
	}
	buf := empty(maxFile + 1)
	defer buf.Wipe()
	n, err := io.ReadFull(f, buf.Reveal())
	if err == nil {
		return Secret{}, fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return Secret{}, err
	}
	line := bytes.TrimSuffix(buf.Reveal()[:n], []byte("\n"))
	if len(line) == 0 {
		return Secret{}, fmt.Errorf("%s is empty", path)
	}
	return copied(line), nil
}

func vet(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	if m := info.Mode().Perm(); m&0o077 != 0 {
		return fmt.Errorf("%w: %s is open to others (mode %04o): take a new secret if they may have read it, and run chmod 600 %s", ErrExposed, path, m, path)
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Uid != 0 && int(s.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: %s belongs to uid %d: take a new secret, and give the file to the user that runs tokendeskd", ErrExposed, path, s.Uid)
	}
	return nil
}
