package synctest

import (
	"net"
	"sync"
)

// CutKind is a way in which a network breaks.
type CutKind int

// Cuts.
const (
	Vanish CutKind = iota // packets get lost: connections hang, and so do new ones
	Reset                 // connections are reset, new ones too
)

// relay is a line that can be cut. It knows nothing of what goes over it.
type relay struct {
	*proxy
	state sync.Mutex
	flow  chan struct{} // closed while packets get through, or are known not to
	cut   bool          // by resets
}

// newRelay starts with the line cut: whoever connects waits for heal.
func newRelay(server func() string) (*relay, error) {
	p, err := newProxy(server)
	if err != nil {
		return nil, err
	}
	r := &relay{proxy: p, flow: make(chan struct{})}
	r.run(r.serve)
	return r, nil
}

func (r *relay) sever(kind CutKind) {
	r.set(kind == Reset, kind == Vanish)
	if kind == Reset {
		r.resetAll()
	}
}

// heal lets packets through again; those that had vanished are sent again, as TCP does.
func (r *relay) heal() { r.set(false, false) }

func (r *relay) set(cut, hang bool) {
	r.state.Lock()
	defer r.state.Unlock()
	r.cut = cut
	select {
	case <-r.flow:
		if hang {
			r.flow = make(chan struct{})
		}
	default:
		if !hang {
			close(r.flow)
		}
	}
}

// pass waits until packets get through; false if they never will.
func (r *relay) pass() bool {
	r.state.Lock()
	flow := r.flow
	r.state.Unlock()
	select {
	case <-flow:
	case <-r.done:
		return false
	}
	r.state.Lock()
	defer r.state.Unlock()
	return !r.cut
}

func (r *relay) serve(client net.Conn) {
	if !r.pass() {
		r.reset(client)
		return
	}
	server, ok := r.dial()
	if !ok {
		r.drop(client)
		return
	}
	r.wg.Go(func() { r.pump(client, server) })
	r.pump(server, client)
}

func (r *relay) pump(to, from net.Conn) {
	defer r.drop(to, from)
	packet := make([]byte, 64<<10)
	for {
		n, err := from.Read(packet)
		if !r.pass() {
			return
		}
		if n > 0 {
			if _, err := to.Write(packet[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
