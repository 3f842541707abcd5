package emulator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"strings"
	"sync"

	"tokendesk/device"
	"tokendesk/device/bussocket"
)

// Server serves tokens at a socket: port emu1 is the first, emu2 the second, and so on. Those of Listen are a bus
// of their own, those of Attach are devices of this machine's USB.
type Server struct {
	path     string
	made     fs.FileInfo
	listener net.Listener
	bench    []*place

	mu       sync.Mutex
	watchers map[*watcher]struct{}
}

// place is one token at its port.
type place struct {
	port    string
	token   Token
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
// and are answered once Serve runs. The tokens belong to the server; none may be given twice.
func Listen[T Token](path string, tokens ...T) (*Server, error) {
	s, err := newServer(path, bench(tokens))
	if err != nil {
		return nil, err
	}
	for _, p := range s.bench {
		if p.hasInterface() {
			p.token.base().announceTo(func(present bool) { s.announce(p, present) })
		}
	}
	return s, nil
}

func newServer(path string, tokens []Token) (*Server, error) {
	l, made, err := listenUnix(path)
	if err != nil {
		return nil, err
	}
	s := &Server{path: path, made: made, listener: l, watchers: map[*watcher]struct{}{}}
	for i, t := range tokens {
		s.bench = append(s.bench, &place{port: fmt.Sprintf("emu%d", i+1), token: t})
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
		if c := p.token.carries(); c != nil && c.vpcd != "" {
			clients.Go(func() { _ = c.ServeCard(ctx) }) // it has one
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

// Keys describes every token, plugged in or not, in the order of their ports.
func (s *Server) Keys() []bussocket.Key {
	var keys []bussocket.Key
	for _, p := range s.bench {
		keys = append(keys, p.describe())
	}
	return keys
}

// insert plugs the token in, wherever its place is.
func (p *place) insert() error {
	if p.usb != nil {
		return p.usb.insert()
	}
	p.token.Insert()
	return nil
}

func (p *place) remove() error {
	if p.usb != nil {
		return p.usb.remove()
	}
	p.token.Remove()
	return nil
}

// hasInterface tells whether the token has an HID interface, and not a smart card only.
func (p *place) hasInterface() bool { return p.token.base().reportSize != 0 }

// iface is the token's HID interface. The path of one that has none is its port, and names nothing.
func (p *place) iface() bussocket.Interface {
	b := p.token.base()
	i := bussocket.Interface{Path: p.port, Port: p.port, Vendor: b.vendor, Product: b.product}
	if p.hasInterface() {
		i.Path += ":1.0"
	}
	return i
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

// byPath finds the token behind an interface, plugged in or not.
func (s *Server) byPath(path string) *place {
	for _, p := range s.bench {
		if p.hasInterface() && p.iface().Path == path {
			return p
		}
	}
	return nil
}

// find returns the place of the token that a control operation names, by its port, its name or its number.
func (s *Server) find(name string) (*place, error) {
	var found []*place
	for _, p := range s.bench {
		if p.port == name {
			return p, nil
		}
		if p.named(name) {
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

// named tells whether a name is that of the token, with or without its family: "nk-00005d19", "00005d19", "12345678".
func (p *place) named(name string) bool {
	id := p.token.ID()
	if n, err := strconv.ParseUint(name, 10, 32); err == nil && id.Family() == device.YubiKey {
		return uint64(p.token.Serial()) == n
	}
	return strings.EqualFold(name, string(id)) || strings.EqualFold(string(id.Family())+"-"+name, string(id))
}

// describe is the token as list-all tells it.
func (p *place) describe() bussocket.Key {
	b := p.token.base()
	k := bussocket.Key{
		Interface: p.iface(),
		Device:    p.token.ID(),
		Serial:    b.serial,
		Firmware:  b.firmware.String(),
		Holds:     []string{},
	}
	if p.usb != nil {
		k.USBPort = p.usb.port()
	}
	var ofCard []string
	c := p.token.carries()
	if c != nil {
		ofCard = c.cardFaults()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kind.settle()
	k.Present = b.gone != nil
	k.Held = b.holder != nil && !b.onUSB // the kernel holds it only for others
	k.Faults = append(b.faults.list(), ofCard...)
	if c != nil {
		k.Card = c.cardPlace()
	}
	p.token.describe(&k)
	return k
}
