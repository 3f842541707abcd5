package emulator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"sync"

	"tokendesk/device/bussocket"
)

// Server serves keys at a socket: port emu1 is the first, emu2 the second, and so on. Those of Listen are a bus
// of their own, those of Attach are devices of this machine's USB.
type Server struct {
	path     string
	made     fs.FileInfo
	listener net.Listener
	bench    []*place

	mu       sync.Mutex
	watchers map[*watcher]struct{}
}

// place is one key at its port.
type place struct {
	port    string
	key     *YubiKey
	usb     *usbPlug // nil: it is plugged into the socket's own bus
	present bool     // on that bus, as announced to watchers; guarded by Server.mu
}

// watcher queues the events of one watch connection.
type watcher struct {
	queue   []bussocket.Answer // guarded by Server.mu
	overrun bool               // likewise
	wake    chan struct{}
}

// Listen makes the socket, mode 0600, in place of one that nobody serves. Clients can connect from now on,
// and are answered once Serve runs. The keys belong to the server; none may be given twice.
func Listen(path string, keys ...*YubiKey) (*Server, error) {
	s, err := newServer(path, keys)
	if err != nil {
		return nil, err
	}
	for _, p := range s.bench {
		p.key.announceTo(func(present bool) { s.announce(p, present) })
	}
	return s, nil
}

func newServer(path string, keys []*YubiKey) (*Server, error) {
	l, made, err := listenUnix(path)
	if err != nil {
		return nil, err
	}
	s := &Server{path: path, made: made, listener: l, watchers: map[*watcher]struct{}{}}
	for i, k := range keys {
		s.bench = append(s.bench, &place{port: fmt.Sprintf("emu%d", i+1), key: k})
	}
	return s, nil
}

// Serve answers clients until ctx ends; then it closes their connections, waits for what was under way, pulls
// the keys that are attached to the kernel, in their order, removes the socket and returns nil. It is called
// once.
func (s *Server) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { s.listener.Close() })
	defer stop()
	var clients sync.WaitGroup
	var failure error
	for _, p := range s.bench {
		if p.key.vpcd != "" {
			clients.Go(func() { _ = p.key.ServeCard(ctx) }) // it has one
		}
	}
	for {
		c, err := s.listener.Accept()
		if err != nil {
			if ctx.Err() == nil {
				failure = fmt.Errorf("cannot serve %s: %w", s.path, err)
			}
			break
		}
		clients.Go(func() { s.serve(ctx, c) })
	}
	cancel()
	s.listener.Close()
	clients.Wait()
	return errors.Join(failure, s.close())
}

// close leaves nothing behind.
func (s *Server) close() (failure error) {
	s.listener.Close()
	for _, p := range s.bench {
		if p.usb == nil {
			continue
		}
		if err := p.usb.remove(); err != nil {
			failure = errors.Join(failure, fmt.Errorf("cannot pull %s: %w", p.port, err))
		}
	}
	if err := removeSocket(s.path, s.made); err != nil {
		failure = errors.Join(failure, fmt.Errorf("cannot remove the socket: %w", err))
	}
	return failure
}

// Keys describes every key, plugged in or not, in the order of their ports.
func (s *Server) Keys() []bussocket.Key {
	var keys []bussocket.Key
	for _, p := range s.bench {
		keys = append(keys, p.describe())
	}
	return keys
}

// insert plugs the key in, wherever its place is.
func (p *place) insert() error {
	if p.usb != nil {
		return p.usb.insert()
	}
	p.key.Insert()
	return nil
}

func (p *place) remove() error {
	if p.usb != nil {
		return p.usb.remove()
	}
	p.key.Remove()
	return nil
}

func (p *place) iface() bussocket.Interface {
	return bussocket.Interface{Path: p.port + ":1.0", Port: p.port, Vendor: p.key.vendor, Product: p.key.product}
}

// announce is called with the key's lock held, so that events keep their order; it never blocks.
func (s *Server) announce(p *place, present bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.present == present {
		return
	}
	p.present = present
	e := bussocket.EventRemoved
	if present {
		e = bussocket.EventAdded
	}
	i := p.iface()
	for w := range s.watchers {
		w.add(bussocket.Answer{Event: e, Interface: &i})
	}
}

func (w *watcher) add(a bussocket.Answer) {
	if w.overrun = w.overrun || len(w.queue) >= bussocket.MaxBacklog; !w.overrun {
		w.queue = append(w.queue, a)
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// watch registers a watcher whose queue starts with what is plugged in.
func (s *Server) watch() *watcher {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &watcher{wake: make(chan struct{}, 1)}
	w.wake <- struct{}{}
	for _, p := range s.bench {
		if p.present {
			i := p.iface()
			w.queue = append(w.queue, bussocket.Answer{Event: bussocket.EventAdded, Interface: &i})
		}
	}
	w.queue = append(w.queue, bussocket.Answer{Event: bussocket.EventSynced})
	s.watchers[w] = struct{}{}
	return w
}

func (s *Server) unwatch(w *watcher) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watchers, w)
}

// events takes what is queued for w; ok is false if some was lost.
func (s *Server) events(w *watcher) (events []bussocket.Answer, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	events, w.queue = w.queue, nil
	return events, !w.overrun
}

func (s *Server) list() []bussocket.Interface {
	s.mu.Lock()
	defer s.mu.Unlock()
	var present []bussocket.Interface
	for _, p := range s.bench {
		if p.present {
			present = append(present, p.iface())
		}
	}
	return present
}

// byPath finds the key behind an interface, plugged in or not.
func (s *Server) byPath(path string) *place {
	for _, p := range s.bench {
		if p.iface().Path == path {
			return p
		}
	}
	return nil
}

// find returns the place of the key that a control operation names, by port or serial.
func (s *Server) find(name string) (*place, error) {
	var found []*place
	for _, p := range s.bench {
		if p.port == name {
			return p, nil
		}
		if n, err := strconv.ParseUint(name, 10, 32); err == nil && uint64(p.key.Serial()) == n {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 0:
		return nil, bussocket.Errorf(bussocket.CodeUnknownKey, "no key here has the serial or port %s", name)
	case 1:
		return found[0], nil
	}
	return nil, bussocket.Errorf(bussocket.CodeAmbiguous, "%d keys have the serial %s; name one by its port, the first is %s", len(found), name, found[0].port)
}

// describe is the key as list-all tells it.
func (p *place) describe() bussocket.Key {
	var usb string
	if p.usb != nil {
		usb = p.usb.port()
	}
	k := p.key
	ofCard := k.cardFaults()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.settle()
	return bussocket.Key{
		USBPort:         usb,
		Interface:       p.iface(),
		Serial:          k.app.serial,
		Firmware:        k.app.firmware.String(),
		Present:         k.gone != nil,
		Held:            k.holder != nil && !k.onUSB, // the kernel holds it only for others
		Slot1:           k.app.slots[0].configured,
		Slot2:           k.app.slots[1].configured,
		ProgramSequence: k.app.sequence,
		Card:            k.cardPlace(),
		Faults:          append(k.faults.list(), ofCard...),
		TypedToWindow:   k.window,
		TypedToHolder:   k.held,
		RequiredWaitUS:  k.waited.Microseconds(),
	}
}
