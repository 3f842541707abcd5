// Package client calls tokendeskd on its Unix socket. The zero Client uses TOKENDESK_SOCKET, or the
// daemon's usual socket. Every error is an *api.Error.
package client

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"

	"tokendesk/cmd/internal/api"
)

// maxLine bounds one line of an answer that comes in pieces.
const maxLine = 1 << 20

// maxPath is how long a socket's path may be: sun_path of unix(7), without its final zero.
const maxPath = 107

// Client calls one daemon. Its zero value is ready.
type Client struct {
	Socket string
}

func (c *Client) socket() string {
	return cmp.Or(c.Socket, os.Getenv(api.SocketVariable), api.DefaultSocket)
}

// Get reads path into out.
func (c *Client) Get(ctx context.Context, path string, query url.Values, out any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.call(ctx, http.MethodGet, path, nil, out)
}

// Post sends in to path and reads the answer into out. A nil in sends nothing.
func (c *Client) Post(ctx context.Context, path string, in, out any) error {
	return c.call(ctx, http.MethodPost, path, in, out)
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	body, err := c.do(ctx, method, path, in)
	if err != nil {
		return err
	}
	return c.read(ctx, body, out)
}

// read takes an answer that comes in one piece.
func (c *Client) read(ctx context.Context, body io.ReadCloser, out any) error {
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil {
		if ctx.Err() != nil {
			return c.unreachable(ctx.Err())
		}
		return api.Errorf(api.Unreachable, "tokendeskd went away in the middle of its answer: start it again, and look at what is so before repeating")
	}
	if err := json.Unmarshal(b, out); err != nil {
		return c.garbled(err)
	}
	return nil
}

// Work starts an operation of several steps, tells its progress, and returns its outcome.
func (c *Client) Work(ctx context.Context, path string, in any, tell func(api.Progress)) (outcome api.Outcome, err error) {
	err = follow(ctx, c, http.MethodPost, path, in, func(e api.Event) (last bool, err error) {
		switch {
		case e.Progress != nil:
			tell(*e.Progress)
		case e.Error != nil:
			return false, e.Error
		case e.Outcome != nil:
			outcome = *e.Outcome
		}
		return e.Outcome != nil, nil
	})
	return outcome, ending(err, "see tokendesk status for what is left to resolve",
		"start it again and look at tokendesk status; nothing is lost")
}

// Watch calls fn for every device present and every change, until ctx ends.
func (c *Client) Watch(ctx context.Context, fn func(api.KeyEvent) error) error {
	type line struct {
		api.KeyEvent
		Error *api.Error `json:"error"`
	}
	err := follow(ctx, c, http.MethodGet, "/v1/devices/watch", nil, func(e line) (last bool, err error) {
		if e.Error != nil {
			return false, e.Error
		}
		return false, fn(e.KeyEvent)
	})
	if errors.Is(err, errInterrupted) {
		return nil
	}
	return ending(err, "", "start it again, and repeat")
}

// How an answer of many lines ends before its last one.
var (
	errInterrupted = errors.New("interrupted")
	errGone        = errors.New("tokendeskd went away in the middle")
)

// ending says what to do then.
func ending(err error, interrupted, gone string) error {
	switch {
	case errors.Is(err, errInterrupted):
		return api.Errorf(api.Unfinished, "%v: %s", err, interrupted)
	case errors.Is(err, errGone):
		return api.Errorf(api.Unreachable, "%v: %s", err, gone)
	}
	return err
}

// follow hands on the lines of an answer until one is the last, or an error.
func follow[T any](ctx context.Context, c *Client, method, path string, in any, each func(T) (last bool, err error)) error {
	body, err := c.do(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var line T
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return c.garbled(err)
		}
		if last, err := each(line); last || err != nil {
			return err
		}
	}
	switch {
	case ctx.Err() != nil:
		return errInterrupted
	case errors.Is(lines.Err(), bufio.ErrTooLong):
		return c.garbled(lines.Err())
	}
	return errGone
}

// Stream asks path for what is too long to be held. The caller closes it.
func (c *Client) Stream(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.do(ctx, http.MethodGet, path, nil)
}

// do makes a request and returns the body of a successful answer.
func (c *Client) do(ctx context.Context, method, path string, in any) (io.ReadCloser, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, unbuilt(err)
		}
		body = bytes.NewReader(b)
	}
	request, err := http.NewRequestWithContext(ctx, method, address+path, body)
	if err != nil {
		return nil, unbuilt(err)
	}
	request.Header.Set("Content-Type", "application/json")
	return c.send(request, &http.Transport{DialContext: c.dial})
}

const address = "http://tokendesk"

func unbuilt(err error) error { return api.Errorf(api.Internal, "cannot build the request: %v", err) }

func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", c.socket())
}

// send makes a request over a connection of its own and returns the body of a successful answer.
func (c *Client) send(request *http.Request, transport *http.Transport) (io.ReadCloser, error) {
	request.Header.Set(api.VersionHeader, api.Version)
	transport.DisableKeepAlives = true
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return nil, c.unreachable(err)
	}
	switch theirs := response.Header.Get(api.VersionHeader); {
	case theirs == "":
		response.Body.Close()
		return nil, api.Errorf(api.Unreachable, "what answers on %s is not tokendeskd: stop it, or name tokendeskd's socket in %s", c.socket(), api.SocketVariable)
	case theirs != api.Version && response.StatusCode != http.StatusUpgradeRequired:
		response.Body.Close()
		return nil, api.Errorf(api.WrongVersion, "tokendeskd speaks version %q of the API and this tokendesk version %q: install the same version of both and restart tokendeskd", theirs, api.Version)
	}
	if response.StatusCode >= 300 {
		defer response.Body.Close()
		e := new(api.Error)
		if err := json.NewDecoder(io.LimitReader(response.Body, maxLine)).Decode(e); err != nil || e.Code == "" {
			return nil, c.garbled(fmt.Errorf("HTTP status %d", response.StatusCode))
		}
		return nil, e
	}
	return response.Body, nil
}

func (c *Client) garbled(err error) error {
	return api.Errorf(api.Internal, "cannot understand tokendeskd's answer: %v; see its log, and that both are of the same version", err)
}

func (c *Client) unreachable(err error) error {
	cure := "start it with: systemctl start tokendeskd"
	switch {
	case errors.Is(err, context.Canceled):
		return api.Errorf(api.Unreachable, "interrupted before tokendeskd answered: look at what is so before repeating")
	case errors.Is(err, fs.ErrNotExist):
		return api.Errorf(api.Unreachable, "no tokendeskd: %s does not exist; %s, or name its socket in %s", c.socket(), cure, api.SocketVariable)
	case errors.Is(err, fs.ErrPermission):
		return api.Errorf(api.Unreachable, "no permission on %s: join a group that its configuration names in [roles], then log in again", c.socket())
	case errors.Is(err, syscall.ECONNREFUSED):
		return api.Errorf(api.Unreachable, "no tokendeskd serves %s any more; %s", c.socket(), cure)
	case len(c.socket()) > maxPath:
		return api.Errorf(api.Unreachable, "the path of tokendeskd's socket is longer than %d bytes: name a shorter one in api.socket of its configuration, and in %s", maxPath, api.SocketVariable)
	}
	if outer := (*url.Error)(nil); errors.As(err, &outer) {
		err = outer.Err // without the address, which is none
	}
	return api.Errorf(api.Unreachable, "cannot reach tokendeskd: %v; %s", err, cure)
}
