package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"tokendesk/cmd/internal/api"
)

// Resync has many tokens resynced, and tells each piece of the answer: progress, then results.
func (c *Client) Resync(ctx context.Context, in api.ResyncLines, tell func(api.ResyncEvent)) error {
	body, err := c.do(ctx, http.MethodPost, "/v1/resync", in)
	if err != nil {
		return err
	}
	defer body.Close()
	lines := scanner(body)
	for lines.Scan() {
		var e api.ResyncEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return c.garbled(err)
		}
		switch tell(e); {
		case e.Error != nil:
			return e.Error
		case e.Last:
			return nil
		}
	}
	if ctx.Err() != nil {
		return api.Errorf(api.Unfinished, "interrupted: what was done by then is done; tokendesk list shows the counters")
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return c.garbled(lines.Err())
	}
	return api.Errorf(api.Unreachable, "tokendeskd went away in the middle: start it again and repeat; lines that were done by then are told as used")
}
