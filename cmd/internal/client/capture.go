package client

import (
	"context"
	"net/http"
	"net/url"

	"tokendesk/cmd/internal/api"
)

// Capture starts a capture from inserted keys, tells what happens, and returns the last line, which says what it has come to.
func (c *Client) Capture(ctx context.Context, path string, tell func(api.CaptureEvent)) (last api.CaptureEvent, err error) {
	err = follow(ctx, c, http.MethodPost, path, nil, func(e api.CaptureEvent) (bool, error) {
		switch {
		case e.Error != nil:
			return false, e.Error
		case e.Resynced != nil, e.Identified != nil:
			last = e
			return true, nil
		}
		tell(e)
		return false, nil
	})
	return last, ending(err, "what was done by then is done; tokendesk list shows the counters",
		"start it again and repeat; what was done by then is done")
}

// EndCapture has a capture end in order.
func (c *Client) EndCapture(ctx context.Context, name string) error {
	return c.Post(ctx, "/v1/captures/"+url.PathEscape(name)+"/end", nil, new(struct{}))
}
