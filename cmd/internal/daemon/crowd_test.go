package daemon

import (
	"net"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

const nobody = 65534

// dialAs connects as a user: the kernel takes the credentials of the calling thread.
func dialAs(t *testing.T, uid int, path string) net.Conn {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	as := func(uid int) {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			t.Fatal(errno)
		}
	}
	as(uid)
	c, err := net.Dial("unix", path)
	as(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// One user cannot use up what the desk needs for others, and gets a place again when a connection ends.
func TestCrowd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	plain, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{filepath.Dir(filepath.Dir(path)), filepath.Dir(path), path} {
		if err := unix.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	l := &crowd{Listener: plain}
	t.Cleanup(func() { l.Close() })
	accept := func() net.Conn {
		t.Helper()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	var first net.Conn
	for range maxConnections {
		dialAs(t, nobody, path)
		if c := accept(); first == nil {
			first = c
		}
	}
	late := dialAs(t, nobody, path)
	root := dialAs(t, 0, path)
	accept() // that of root, after the late one was closed
	if _, err := late.Read(make([]byte, 1)); err == nil {
		t.Error("a connection too many has an answer")
	}
	if n := l.has[nobody]; n != maxConnections {
		t.Errorf("%d connections are counted", n)
	}
	root.Close()
	first.Close()
	first.Close() // counts once
	dialAs(t, nobody, path)
	accept()
	if n := l.has[nobody]; n != maxConnections {
		t.Errorf("%d connections are counted after one ended and one came", n)
	}
}
