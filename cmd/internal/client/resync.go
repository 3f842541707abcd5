package client

import (
	"context"
	"net/http"

	"tokendesk/cmd/internal/api"
)

// Resync has many tokens resynced, and tells each piece of the answer: progress, then results.
func (c *Client) Resync(ctx context.Context, in api.ResyncLines, tell func(api.ResyncEvent)) error {
	err := follow(ctx, c, http.MethodPost, "/v1/resync", in, func(e api.ResyncEvent) (last bool, err error) {
		if e.Error != nil {
			return false, e.Error
		}
		tell(e)
		return e.Last, nil
	})
	return ending(err, "what was done by then is done; tokendesk list shows the counters",
		"start it again and repeat; lines that were done by then are told as used")
}
