package emulator

import (
	"bufio"
	"context"
	"errors"
	"net"
	"time"

	"tokendesk/device"
	"tokendesk/device/bussocket"
)

// writePatience is how long a client may leave its answers unread.
const writePatience = 10 * time.Second

// client is the server's end of one connection.
type client struct {
	server *Server
	conn   net.Conn
	lines  chan line // from the reading goroutine; closed at the end
	handle *Handle   // once open has succeeded
}

type line struct {
	request bussocket.Request
	err     error
	last    bool // nothing sensible can follow
}

// serve talks to one client until either side ends it. Its context ends with the connection, which is what
// interrupts an open or a read under way.
func (s *Server) serve(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c := &client{server: s, conn: conn, lines: make(chan line, 1)}
	go c.read(ctx, cancel)
	defer func() {
		cancel()
		for range c.lines { // until the reader has ended
		}
		if c.handle != nil {
			c.handle.Close()
		}
	}()
	for l := range c.lines {
		a, more := c.answer(ctx, l)
		if !c.send(a) || !more {
			return
		}
	}
}

// read passes on lines as they come. A client that sends ahead is read ahead by one line only; that its
// connection has ended is then noticed after the call under way.
func (c *client) read(ctx context.Context, end context.CancelFunc) {
	defer close(c.lines)
	defer end()
	r := bufio.NewReaderSize(c.conn, bussocket.MaxRequest)
	for {
		var l line
		text, err := bussocket.ReadLine(r)
		switch {
		case errors.Is(err, bussocket.ErrLineTooLong):
			l = line{err: bussocket.Errorf(bussocket.CodeBadRequest, "a request has at most %d bytes", bussocket.MaxRequest), last: true}
		case err != nil:
			return
		default:
			l.request, l.err = bussocket.DecodeRequest(text)
		}
		select {
		case c.lines <- l:
		case <-ctx.Done():
			return
		}
		if l.last {
			<-ctx.Done() // the answer must not be cut off
			return
		}
	}
}

func (c *client) send(a bussocket.Answer) bool {
	c.conn.SetWriteDeadline(time.Now().Add(writePatience))
	_, err := c.conn.Write(bussocket.EncodeAnswer(a))
	return err == nil
}

// answer carries out one line; more is false if the connection ends with it.
func (c *client) answer(ctx context.Context, l line) (a bussocket.Answer, more bool) {
	err := l.err
	if err == nil {
		switch {
		case c.handle != nil:
			a, more, err = c.onHandle(ctx, l.request)
		case l.request.Op == bussocket.OpWatch:
			return c.watch(ctx), false
		default:
			more = true
			a, err = c.onBench(ctx, l.request)
		}
	}
	if err != nil {
		return bussocket.Answer{Error: bussocket.WireError(err)}, !l.last
	}
	a.OK = true
	return a, more
}

func (c *client) onHandle(ctx context.Context, r bussocket.Request) (a bussocket.Answer, more bool, err error) {
	switch r.Op {
	case bussocket.OpSetFeature:
		err = c.handle.SetFeature(r.Data)
		clear(r.Data)
	case bussocket.OpGetFeature:
		a.Data = make([]byte, 1+c.handle.key.reportSize)
		err = c.handle.GetFeature(a.Data)
	case bussocket.OpReadInput:
		a.Data = make([]byte, bussocket.InputSize)
		var n int
		n, err = c.handle.readInput(ctx, a.Data, time.Duration(r.TimeoutMS)*time.Millisecond)
		a.Data = a.Data[:n]
	case bussocket.OpClose:
		return a, false, c.handle.Close()
	default:
		err = bussocket.Errorf(bussocket.CodeBadRequest, "%s does not fit here: this connection is an open interface", r.Op)
	}
	return a, true, err
}

func (c *client) onBench(ctx context.Context, r bussocket.Request) (a bussocket.Answer, err error) {
	s := c.server
	switch r.Op {
	case bussocket.OpList:
		a.Interfaces = s.list()
		return a, nil
	case bussocket.OpListAll:
		a.Keys = s.Keys()
		return a, nil
	case bussocket.OpOpen:
		p := s.byPath(r.Path)
		switch {
		case p == nil:
			return a, device.ErrGone
		case p.usb != nil:
			return a, bussocket.Errorf(bussocket.CodeGone, "key %s is attached to the USB of this machine, where it can be opened; here it cannot", p.port)
		}
		if c.handle, err = p.token.base().Open(ctx); err == nil {
			i := p.iface()
			a.Interface = &i
		}
		return a, err
	case bussocket.OpInsert, bussocket.OpRemove, bussocket.OpTouch, bussocket.OpFault:
		p, err := s.find(r.Key)
		if err != nil {
			return a, err
		}
		return p.control(r)
	}
	return a, bussocket.Errorf(bussocket.CodeBadRequest, "%s needs an open interface", r.Op)
}

// control carries out a control operation.
func (p *place) control(r bussocket.Request) (a bussocket.Answer, err error) {
	switch r.Op {
	case bussocket.OpInsert:
		return a, p.insert()
	case bussocket.OpRemove:
		return a, p.remove()
	case bussocket.OpFault:
		if err := p.token.SetFault(Fault(r.Kind), r.N); err != nil {
			return a, bussocket.Errorf(bussocket.CodeBadRequest, "%v", err)
		}
	case bussocket.OpTouch:
		for range r.Times {
			t, err := p.token.touch(r.Long)
			if err != nil {
				return bussocket.Answer{}, err
			}
			a.Touches = append(a.Touches, t)
		}
	}
	return a, nil
}

// watch sends events until the client or the server ends; the answer is what it ends with.
func (c *client) watch(ctx context.Context) bussocket.Answer {
	w := c.server.watch()
	defer c.server.unwatch(w)
	for {
		select {
		case <-ctx.Done():
			return refuse(bussocket.CodeFailed, "the emulator is stopping")
		case _, ok := <-c.lines:
			if !ok {
				return refuse(bussocket.CodeFailed, "the connection was closed")
			}
			return refuse(bussocket.CodeBadRequest, "a watch takes no requests")
		case <-w.wake:
		}
		events, ok := c.server.events(w)
		for _, e := range events {
			if !c.send(e) {
				return refuse(bussocket.CodeFailed, "the connection was closed")
			}
		}
		if !ok {
			return refuse(bussocket.CodeFailed, "too many events went unread")
		}
	}
}

func refuse(code bussocket.Code, text string) bussocket.Answer {
	return bussocket.Answer{Error: bussocket.Errorf(code, "%s", text)}
}
