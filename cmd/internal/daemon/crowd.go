package daemon

import (
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"tokendesk/cmd/internal/localapi"
)

// maxConnections is how many connections one user of this machine has at a time; more are closed at once. Where the socket's
// mode lets everybody in, nobody can use up what the desk needs for its officers.
const maxConnections = 64

// crowd is a listener that bounds what each user has of it. Root and the daemon's own user are not counted.
type crowd struct {
	net.Listener

	mu  sync.Mutex
	has map[uint32]int // connections by user
}

// Accept implements net.Listener.
func (l *crowd) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, ok := localapi.PeerUID(c)
		if !ok || uid == 0 || int(uid) == unix.Geteuid() {
			return c, nil // who is not known is refused by the API
		}
		if l.enter(uid) {
			return &counted{UnixConn: c.(*net.UnixConn), leave: sync.OnceFunc(func() { l.leave(uid) })}, nil
		}
		c.Close()
	}
}

func (l *crowd) enter(uid uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.has[uid] >= maxConnections {
		return false
	}
	if l.has == nil {
		l.has = map[uint32]int{}
	}
	l.has[uid]++
	return true
}

func (l *crowd) leave(uid uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.has[uid]--; l.has[uid] == 0 {
		delete(l.has, uid)
	}
}

type counted struct {
	*net.UnixConn
	leave func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	defer c.leave()
	return c.UnixConn.Close()
}
