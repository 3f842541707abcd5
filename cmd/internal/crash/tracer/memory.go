package tracer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// link is what a file descriptor of a thread is: a path, or such as socket:[123].
func link(tid, fd int) string {
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, fd))
	if err != nil {
		return fmt.Sprintf("unknown descriptor %d", fd) // nothing of the kind is ignored by a plan
	}
	return name
}

// read copies memory of a thread.
func read(tid int, address uintptr, n int) ([]byte, error) {
	b := make([]byte, n)
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(n)
	got, err := unix.ProcessVMReadv(tid, local, []unix.RemoteIovec{{Base: address, Len: n}}, 0)
	return b[:max(0, got)], err
}

// text copies a string that ends with a zero.
func text(tid int, address uintptr) (string, error) {
	const page = 4096
	var s []byte
	for len(s) < unix.PathMax {
		part, err := read(tid, address, page-int(address%page)) // the next page may be missing
		if err != nil {
			return "", fmt.Errorf("unreadable path: %w", err)
		}
		if end := bytes.IndexByte(part, 0); end >= 0 {
			return string(append(s, part[:end]...)), nil
		}
		s = append(s, part...)
		address += uintptr(len(part))
	}
	return "", errors.New("endless path")
}

// path is the absolute path that a call names.
func path(tid int, what about, args []uint64) (string, error) {
	p, err := text(tid, uintptr(args[what.path]))
	if err != nil || filepath.IsAbs(p) {
		return p, err
	}
	from := fmt.Sprintf("/proc/%d/cwd", tid)
	if strings.HasSuffix(strings.TrimRight(what.name, "2"), "at") { // the directory stands before the path
		if fd := int32(args[what.path-1]); fd != unix.AT_FDCWD {
			from = fmt.Sprintf("/proc/%d/fd/%d", tid, fd)
		}
	}
	dir, err := os.Readlink(from)
	return filepath.Join(dir, p), err
}

// sockaddr reads an address, as Call.Target shows it. Families without one of their own are "".
func sockaddr(tid int, address uintptr, size int) (string, error) {
	if size < 2 || size > unix.SizeofSockaddrAny {
		return "", nil
	}
	b, err := read(tid, address, size)
	if err != nil {
		return "", err
	}
	return parseSockaddr(b), nil
}

// parseSockaddr reads a struct sockaddr (unix(7), ip(7), ipv6(7)).
func parseSockaddr(b []byte) string {
	if len(b) < 2 {
		return ""
	}
	family, rest := binary.NativeEndian.Uint16(b), b[2:]
	switch {
	case family == unix.AF_UNIX:
		name, _, _ := bytes.Cut(rest, []byte{0})
		return "unix:" + string(name)
	case family == unix.AF_INET && len(rest) >= 6:
		ip, _ := netip.AddrFromSlice(rest[2:6])
		return "tcp:" + netip.AddrPortFrom(ip, binary.BigEndian.Uint16(rest)).String()
	case family == unix.AF_INET6 && len(rest) >= 22:
		ip, _ := netip.AddrFromSlice(rest[6:22])
		return "tcp:" + netip.AddrPortFrom(ip, binary.BigEndian.Uint16(rest)).String()
	}
	return ""
}
