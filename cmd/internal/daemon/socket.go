package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// listen opens the API's socket, replacing one that nobody serves any more.
func listen(path string, groups []string) (net.Listener, error) {
	if err := makeRoom(path); err != nil {
		return nil, err
	}
	old := unix.Umask(0o177) // nobody else before the mode below is set
	listener, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("cannot open the API's socket: %w", err)
	}
	if err := openTo(path, groups); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return &crowd{Listener: listener}, nil
}

// makeRoom prepares the socket's directory, and removes a socket that nobody serves any more; nothing else.
func makeRoom(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot create the socket's directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("cannot open the API's socket: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("api.socket: others could replace the socket in %s: run chmod go-w %s, or choose another directory", dir, dir)
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("cannot open the API's socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("api.socket: %s exists and is not a socket: choose another path", path)
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return fmt.Errorf("another tokendeskd serves %s: stop it first", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("cannot open the API's socket: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("cannot remove the socket that a tokendeskd left behind: %w", err)
	}
	return nil
}

// openTo lets in who may have a role. Whom the mode lets in, the API still asks for their role at every request.
func openTo(path string, groups []string) error {
	for _, name := range groups {
		if _, err := user.LookupGroup(name); err != nil {
			return fmt.Errorf("the configuration gives roles to a group: %w: create it with addgroup --system %s", err, name)
		}
	}
	switch len(groups) {
	case 0:
		return nil
	case 1:
		return openToGroup(path, groups[0])
	}
	return os.Chmod(path, 0o666) // a socket has one group only
}

func openToGroup(path, name string) error {
	g, err := user.LookupGroup(name)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return err
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return fmt.Errorf("cannot give the socket to the group %s: %w", name, err)
	}
	return os.Chmod(path, 0o660)
}
