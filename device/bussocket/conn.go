package bussocket

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// conn is the client's end of one connection.
type conn struct {
	net.Conn
	socket string
	r      *bufio.Reader
}

func dial(ctx context.Context, socket string) (*conn, error) {
	if socket == "" {
		return nil, errors.New("cannot reach the emulator: no socket is named")
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, unreachable(socket, err)
	}
	return &conn{Conn: c, socket: socket, r: bufio.NewReaderSize(c, MaxAnswer)}, nil
}

// interruptedBy makes every call on the connection fail once ctx ends, until stop is called.
func (c *conn) interruptedBy(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
}

// call sends a request line and returns its answer; a refusal is an error of type *Error.
func (c *conn) call(line []byte) (Answer, error) {
	if _, err := c.Write(line); err != nil {
		return Answer{}, c.lost(err)
	}
	a, err := c.receive()
	switch {
	case err != nil:
		return Answer{}, err
	case a.Error != nil:
		return Answer{}, a.Error
	case !a.OK:
		return Answer{}, c.lost(errors.New("it sent an event where an answer was due"))
	}
	return a, nil
}

func (c *conn) receive() (Answer, error) {
	line, err := ReadLine(c.r)
	if err != nil {
		return Answer{}, c.lost(err)
	}
	a, err := DecodeAnswer(line)
	if err != nil {
		return Answer{}, c.lost(err)
	}
	return a, nil
}

// lostError is a connection that ended or made no sense; nothing more can be had from it.
type lostError struct{ error }

func (e lostError) Unwrap() error { return e.error }

func (c *conn) lost(err error) error {
	if errors.Is(err, io.EOF) {
		err = errors.New("it stopped")
	}
	return lostError{unreachable(c.socket, fmt.Errorf("the connection was lost: %w", err))}
}

// ask makes one request on a connection of its own.
func ask(ctx context.Context, socket string, r Request) (Answer, error) {
	c, err := dial(ctx, socket)
	if err != nil {
		return Answer{}, err
	}
	defer c.Close()
	defer c.interruptedBy(ctx)()
	a, err := c.call(EncodeRequest(r))
	if err != nil && ctx.Err() != nil {
		return Answer{}, ctx.Err()
	}
	return a, err
}
