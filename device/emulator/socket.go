package emulator

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// listenUnix makes a socket of mode 0600 at path. It replaces a socket that nobody serves any more, and
// nothing else. The socket is made beside path and moved there, so that path is never open to others.
func listenUnix(path string) (net.Listener, fs.FileInfo, error) {
	if err := vacant(path); err != nil {
		return nil, nil, err
	}
	fresh := path + "~"
	if err := vacant(fresh); err != nil {
		return nil, nil, err
	}
	_ = os.Remove(fresh)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		if errors.Is(err, syscall.EINVAL) {
			err = fmt.Errorf("its name is too long (%d bytes, at most 106)", len(path))
		}
		return nil, nil, fmt.Errorf("cannot make the socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // by then it has another name, or is another's
	var made fs.FileInfo
	if err = os.Chmod(fresh, 0o600); err == nil {
		if made, err = os.Lstat(fresh); err == nil {
			err = os.Rename(fresh, path)
		}
	}
	if err != nil {
		l.Close()
		os.Remove(fresh)
		return nil, nil, fmt.Errorf("cannot make the socket %s: %w", path, err)
	}
	return l, made, nil
}

// vacant checks that path is free, or a socket without a server.
func vacant(path string) error {
	i, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("cannot make the socket %s: %w", path, err)
	case i.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("cannot make the socket %s: a file that is no socket is there; name another path", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("cannot make the socket %s: another emulator serves it; end that one or name another path", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("cannot make the socket %s: the one that is there does not answer: %w", path, err)
	}
	return nil
}

// removeSocket removes the socket, if it is still the one that was made.
func removeSocket(path string, made fs.FileInfo) error {
	i, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(i, made) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(path)
}
