package vhci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"syscall"
)

// maxWaiting bounds the transfers that wait for packets of one endpoint. Drivers keep one or two.
const maxWaiting = 1024

// server answers the host for one device.
type server struct {
	device Device
	conn   io.ReadWriter

	mu        sync.Mutex // guards what follows and the writing side of conn, so that answers keep their order
	endpoints [maxEndpoint + 1]*endpoint
	pollers   sync.WaitGroup
}

// endpoint is an IN endpoint that the host has asked.
type endpoint struct {
	number  uint8
	waiting []transfer    // oldest first; guarded by server.mu
	wake    chan struct{} // one was added
}

// transfer is an IN transfer that waits for its packet.
type transfer struct{ sequence, room uint32 }

// serve speaks for d until the host ends the connection, which is no error, or makes no sense. When it
// returns, conn is closed and no goroutine of it is left.
func serve(conn io.ReadWriteCloser, d Device) error {
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{device: d, conn: conn}
	defer s.pollers.Wait()
	defer conn.Close()
	defer cancel()
	var h [headerSize]byte
	for {
		_, err := io.ReadFull(conn, h[:])
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) { // reset: it left answers unread
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot hear the kernel: %w", err)
		}
		r, err := parseRequest(h)
		if err == nil {
			err = s.handle(ctx, r)
		}
		if err != nil {
			return fmt.Errorf("cannot understand the kernel: %w", err)
		}
	}
}

func (s *server) handle(ctx context.Context, r request) error {
	if r.command == commandUnlink {
		s.unlink(r)
		return nil
	}
	var data []byte
	if !r.in && r.length > 0 {
		data = make([]byte, r.length)
		if _, err := io.ReadFull(s.conn, data); err != nil {
			return fmt.Errorf("a transfer was cut off: %w", err)
		}
	}
	switch {
	case r.endpoint == 0:
		s.control(r, data)
	case r.in:
		s.queue(ctx, r)
	default:
		s.take(r, data)
	}
	return nil
}

// take gives the device an OUT transfer.
func (s *server) take(r request, data []byte) {
	switch err := s.device.Out(r.endpoint, data); {
	case errors.Is(err, ErrStall):
		s.reply(returnSubmit, r.sequence, statusStalled, 0, nil)
	case err != nil:
		s.reply(returnSubmit, r.sequence, statusGone, 0, nil)
	default:
		s.reply(returnSubmit, r.sequence, statusDone, len(data), nil)
	}
}

func (s *server) control(r request, data []byte) {
	moved := len(data)
	out, err := s.device.Control(r.setup, data)
	switch {
	case errors.Is(err, ErrStall):
		s.reply(returnSubmit, r.sequence, statusStalled, 0, nil)
		return
	case err != nil:
		s.reply(returnSubmit, r.sequence, statusGone, 0, nil)
		return
	case r.in:
		// The kernel ends the connection over an answer that is longer than its room.
		out = out[:min(len(out), int(r.setup.Length), int(min(r.length, maxOut)))]
		moved = len(out)
	default:
		out = nil
	}
	s.reply(returnSubmit, r.sequence, statusDone, moved, out)
}

// queue lets an IN transfer wait for its packet.
func (s *server) queue(ctx context.Context, r request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.endpoints[r.endpoint]
	if e == nil {
		e = &endpoint{number: r.endpoint, wake: make(chan struct{}, 1)}
		s.endpoints[r.endpoint] = e
		s.pollers.Go(func() { s.poll(ctx, e) })
	}
	if len(e.waiting) >= maxWaiting {
		s.send(answer(returnSubmit, r.sequence, statusNoRoom, 0, nil))
		return
	}
	e.waiting = append(e.waiting, transfer{r.sequence, r.length})
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// poll brings packets from the device to the transfers that wait for them, one packet at a time. A packet
// whose transfer was withdrawn stays for the next one, as it would stay in the endpoint of a real device.
func (s *server) poll(ctx context.Context, e *endpoint) {
	for {
		if !e.await(ctx, func() bool { return s.wanted(e) }) {
			return
		}
		packet, err := s.device.In(ctx, e.number)
		if err != nil && !errors.Is(err, ErrStall) {
			return // a device that is gone does not answer; the kernel withdraws its transfers
		}
		if !e.await(ctx, func() bool { return s.deliver(e, packet, err != nil) }) {
			return
		}
	}
}

// await repeats try with every new transfer until it succeeds; false if ctx ends before.
func (e *endpoint) await(ctx context.Context, try func() bool) bool {
	for ctx.Err() == nil {
		if try() {
			return true
		}
		select {
		case <-e.wake:
		case <-ctx.Done():
		}
	}
	return false
}

func (s *server) wanted(e *endpoint) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(e.waiting) > 0
}

// deliver answers the oldest transfer; false if none waits.
func (s *server) deliver(e *endpoint, packet []byte, stalled bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(e.waiting) == 0 {
		return false
	}
	t := e.waiting[0]
	e.waiting = slices.Delete(e.waiting, 0, 1)
	switch {
	case stalled:
		s.send(answer(returnSubmit, t.sequence, statusStalled, 0, nil))
	case uint64(len(packet)) > uint64(t.room):
		s.send(answer(returnSubmit, t.sequence, statusOverflow, 0, nil))
	default:
		s.send(answer(returnSubmit, t.sequence, statusDone, len(packet), packet))
	}
	return true
}

// unlink withdraws a transfer. One that still waits is never answered; for one that was answered already the
// status is 0.
func (s *server) unlink(r request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := int32(statusDone)
	for _, e := range s.endpoints {
		if e == nil {
			continue
		}
		if i := slices.IndexFunc(e.waiting, func(t transfer) bool { return t.sequence == r.victim }); i >= 0 {
			e.waiting = slices.Delete(e.waiting, i, i+1)
			status = statusWithdrawn
			break
		}
	}
	s.send(answer(returnUnlink, r.sequence, status, 0, nil))
}

func (s *server) reply(command, sequence uint32, status int32, actual int, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.send(answer(command, sequence, status, actual, data))
}

// send writes an answer in one piece, with s.mu held. If the host does not take it, the connection is at
// its end, which the reading side notices.
func (s *server) send(b []byte) { _, _ = s.conn.Write(b) }
