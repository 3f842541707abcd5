package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"

	"tokendesk/cmd/internal/api"
)

// Capture starts a capture from inserted keys, tells what happens, and returns the last line, which says what it has come to.
func (c *Client) Capture(ctx context.Context, path string, tell func(api.CaptureEvent)) (last api.CaptureEvent, err error) {
	body, err := c.do(ctx, http.MethodPost, path, nil)
	if err != nil {
		return last, err
	}
	defer body.Close()
	lines := scanner(body)
	for lines.Scan() {
		var e api.CaptureEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return last, c.garbled(err)
		}
		switch {
		case e.Error != nil:
			return last, e.Error
		case e.Resynced != nil, e.Identified != nil:
			return e, nil
		}
		tell(e)
	}
	if ctx.Err() != nil {
		return last, api.Errorf(api.Unfinished, "interrupted: what was done by then is done; tokendesk list shows the counters")
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return last, c.garbled(lines.Err())
	}
	return last, api.Errorf(api.Unreachable, "tokendeskd went away in the middle: start it again and repeat; what was done by then is done")
}

// EndCapture has a capture end in order.
func (c *Client) EndCapture(ctx context.Context, name string) error {
	return c.Post(ctx, "/v1/captures/"+url.PathEscape(name)+"/end", nil, new(struct{}))
}
