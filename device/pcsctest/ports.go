package pcsctest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Ports are taken from below those that the kernel gives to clients (ip_local_port_range begins at 32768), so that only
// another rig can take one between our look and pcscd's.
const (
	firstPort = 20000
	lastPort  = 32000
)

// takenError says that another program has a port that pcscd was to listen on.
type takenError struct{ port int }

func (e *takenError) Error() string {
	return fmt.Sprintf("another program has taken port %d, which was free", e.port)
}

// freePair finds a port that is free, as the next one is.
func freePair() (int, error) {
	var err error
	for range 100 {
		port := firstPort + 2*rand.IntN((lastPort-firstPort)/2)
		if err = free(port); err == nil {
			err = free(port + 1)
		}
		if err == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("cannot find two free ports for virtual readers: %w", err)
}

// free tells whether vpcd could listen on a port; it does so on all addresses.
func free(port int) error {
	l, err := net.Listen("tcp4", ":"+strconv.Itoa(port))
	if err != nil {
		return err
	}
	return l.Close()
}

// listening tells whether the process listens on all ports of the rig. They are looked for in /proc, since vpcd would take
// a connection for a card.
func (r *Rig) listening(pid int) error {
	bound, err := listeners() // first: what is listening now has been opened before
	if err != nil {
		return err
	}
	owned, err := sockets(pid)
	if err != nil {
		return err
	}
	for _, pair := range r.pairs {
		for port := pair; port < pair+2; port++ {
			inode, ok := bound[port]
			switch {
			case !ok:
				return fmt.Errorf("nobody listens on port %d yet", port)
			case !owned[inode]:
				return &takenError{port}
			}
		}
	}
	return nil
}

// sockets are the inodes of those that a process has open (proc(5), /proc/pid/fd).
func sockets(pid int) (map[string]bool, error) {
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return nil, err
	}
	owned := map[string]bool{}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil { // else it was closed just now
			if inode, ok := strings.CutPrefix(target, "socket:["); ok {
				owned[strings.TrimSuffix(inode, "]")] = true
			}
		}
	}
	return owned, nil
}

// listeners are the inodes of listening IPv4 sockets, by their ports (proc(5), /proc/net/tcp).
func listeners() (map[int]string, error) {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return nil, err
	}
	bound := map[int]string{}
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) < 10 || fields[3] != "0A" { // TCP_LISTEN
			continue
		}
		_, hex, _ := strings.Cut(fields[1], ":")
		if port, err := strconv.ParseUint(hex, 16, 16); err == nil {
			bound[int(port)] = fields[9]
		}
	}
	return bound, nil
}
