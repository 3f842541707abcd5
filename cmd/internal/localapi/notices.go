package localapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/vault"
)

type noticesQuery struct {
	Parked bool   `query:"parked" doc:"Only those that wait for an officer"`
	User   string `query:"user" doc:"Only those to this user" maxLength:"64"`
	After  uint64 `query:"after" doc:"Start after this notice"`
	Limit  int    `query:"limit" doc:"At most so many" minimum:"1" maximum:"1000" default:"100"`
}

// noticesPage is how many notices are read at a time.
const noticesPage = 100

func (d *Desk) notices(_ context.Context, q *noticesQuery) (api.Notices, error) {
	out := api.Notices{Notices: []api.Notice{}}
	err := d.Vault.View(func(tx *vault.Tx) error {
		out.State = *d.noticesStatus(tx)
		for after := q.After; ; {
			page, err := tx.Notices(after, noticesPage)
			if err != nil || len(page) == 0 {
				return err
			}
			for _, n := range page {
				if after = n.ID; q.Parked && !n.Parked || q.User != "" && n.User != q.User {
					continue
				}
				if len(out.Notices) == q.Limit {
					out.Next = out.Notices[q.Limit-1].ID
					return nil
				}
				out.Notices = append(out.Notices, noticeOf(n))
			}
		}
	})
	return out, err
}

func noticeOf(n vault.Notice) api.Notice {
	out := api.Notice{
		ID: n.ID, Kind: n.Kind, User: n.User, Token: string(n.Token), State: "waiting",
		Attempts: n.Attempts, Created: n.Created, Problem: n.Problem,
	}
	switch {
	case n.Parked:
		out.State = "parked"
	case n.NotBefore.After(time.Now()):
		out.State, out.NotBefore = "paused", &n.NotBefore
	}
	return out
}

// noticesStatus tells how the sending stands, without reading notices.
func (d *Desk) noticesStatus(tx *vault.Tx) *api.NoticesStatus {
	n := tx.Counts()
	s := &api.NoticesStatus{Configured: d.Notices.Configured(), Waiting: n.Notices, Parked: n.NoticesParked}
	if n.Notices > n.NoticesParked {
		s.Problem = d.Notices.Problem()
	}
	return s
}

// NoticePath (exported, or the router would not fill it when embedded) is in the path of every operation on one notice.
type NoticePath struct {
	ID uint64 `path:"id" doc:"Number of the notice" minimum:"1"`
}

func (p NoticePath) object() string { return fmt.Sprintf("notice %d", p.ID) }

func (d *Desk) retryNotice(ctx context.Context, in *NoticePath) (api.Notices, error) {
	if !d.Notices.Configured() {
		return api.Notices{}, api.Errorf(api.Refused, "no mail server is configured: name it in [notices]")
	}
	if err := d.Notices.Retry(officer(ctx), in.ID); err != nil {
		return api.Notices{}, noNotice(in.ID, err)
	}
	return d.notices(ctx, &noticesQuery{Limit: noticesPage})
}

type noticeReason struct {
	NoticePath
	Body *api.OptionalReason
}

func (d *Desk) discardNotice(ctx context.Context, in *noticeReason) (api.Notices, error) {
	reason := ""
	if in.Body != nil {
		reason = in.Body.Reason
	}
	if err := d.Notices.Discard(officer(ctx), in.ID, reason); err != nil {
		return api.Notices{}, noNotice(in.ID, err)
	}
	return d.notices(ctx, &noticesQuery{Limit: noticesPage})
}

func noNotice(id uint64, err error) error {
	if errors.Is(err, vault.ErrNotFound) {
		return api.Errorf(api.NotFound, "there is no notice %d: it was sent or discarded, or never existed", id)
	}
	return err
}
