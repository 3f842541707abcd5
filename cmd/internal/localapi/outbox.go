package localapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/provision"
	syncer "tokendesk/sync"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

type outboxQuery struct {
	State   string `query:"state" doc:"Only changes in this state; waiting is every state but parked" enum:"waiting,ready,paused,held,parked"`
	Token   string `query:"token" doc:"Only changes of this token" maxLength:"64" pattern:"^([a-z]{2,8}-[0-9a-z]{1,20}(/[a-z0-9]+(:[a-z0-9._-]+)?)?)?$" patternDescription:"the name of a token"`
	User    string `query:"user" doc:"Only changes that concern this user" maxLength:"64"`
	CutOffs bool   `query:"cut_offs" doc:"Only changes that end somebody's access"`
	After   uint64 `query:"after" doc:"Start after this change"`
	Limit   int    `query:"limit" doc:"At most so many" minimum:"1" maximum:"1000" default:"100"`
}

func (d *Desk) outbox(_ context.Context, q *outboxQuery) (api.Changes, error) {
	return d.changes(syncer.Filter{
		State: syncer.State(q.State), Token: device.TokenID(q.Token), User: q.User, CutOffs: q.CutOffs, After: q.After, Limit: q.Limit,
	})
}

func (d *Desk) changes(f syncer.Filter) (api.Changes, error) {
	out := api.Changes{Changes: []api.Change{}}
	page, next, err := d.Outbox.List(f)
	if err != nil {
		return out, err
	}
	for _, o := range page {
		out.Changes = append(out.Changes, outlookOf(o).Change)
	}
	out.Next = next
	p, err := d.Outbox.Progress()
	if p.PerSecond > 0 {
		out.Drain = &api.Drain{Done: p.Done, Left: p.Left, PerSecond: p.PerSecond}
		if !p.Until.IsZero() {
			out.Drain.Until = &p.Until
		}
	}
	return out, err
}

// ChangePath (exported, or the router would not fill it when embedded) is in the path of every operation on one change.
type ChangePath struct {
	Seq uint64 `path:"seq" doc:"Number of the change" minimum:"1"`
}

func (p ChangePath) object() string { return fmt.Sprintf("change %d", p.Seq) }

func (d *Desk) showChange(_ context.Context, in *ChangePath) (api.ChangeDetail, error) {
	o, err := d.Outbox.Show(in.Seq)
	if err != nil {
		return api.ChangeDetail{}, noChange(in.Seq, err)
	}
	return outlookOf(o), nil
}

func noChange(seq uint64, err error) error {
	if errors.Is(err, vault.ErrNotFound) {
		return api.Errorf(api.NotFound, "the outbox has no change %d: it was confirmed, or never existed", seq)
	}
	return err
}

func (d *Desk) retry(ctx context.Context, in *ChangePath) (api.Changes, error) {
	return d.treat(in.Seq, func() error { return d.Outbox.Retry(officer(ctx), in.Seq) })
}

type reasonedPath struct {
	ChangePath
	Body api.Reason
}

func (d *Desk) park(ctx context.Context, in *reasonedPath) (api.Changes, error) {
	return d.treat(in.Seq, func() error { return d.Outbox.Park(officer(ctx), in.Seq, in.Body.Reason) })
}

// discard gives a change up. For a cut-off it keeps the wish until a second officer approves it, and the change goes on being
// delivered.
func (d *Desk) discard(ctx context.Context, in *reasonedPath) (out api.Changes, err error) {
	by := officer(ctx)
	var approval *api.Approval
	var note string
	out, err = d.treat(in.Seq, func() error {
		o, err := d.Outbox.Show(in.Seq)
		if err != nil {
			return err
		}
		if !o.Change.Kind.CutOff() {
			return d.Outbox.Discard(by, in.Seq, in.Body.Reason, audit.Officer{})
		}
		asked, err := d.askDiscard(by, o.Change, in.Body.Reason)
		if err != nil {
			return err
		}
		waiting := &provision.ApprovalError{Approval: asked}
		a := approvalOf(asked)
		approval, note = &a, waiting.Error()+"; until then the change goes on being delivered"
		return nil
	})
	out.Approval, out.Note = approval, note
	return out, err
}

// treat does something to a change, and tells what waits of its token then.
func (d *Desk) treat(seq uint64, do func() error) (api.Changes, error) {
	o, err := d.Outbox.Show(seq)
	if err == nil {
		err = do()
	}
	if err != nil {
		return api.Changes{}, noChange(seq, err)
	}
	return d.changes(syncer.Filter{Token: o.Change.Token, Limit: 100})
}

func changeOf(c vault.Change) api.Change {
	out := api.Change{
		Seq: c.Seq, Kind: string(c.Kind), Token: string(c.Token), User: c.User, CutOff: c.Kind.CutOff(), State: "waiting",
		Attempts: c.Attempts, Created: c.Created, Problem: c.Problem,
	}
	if c.Parked {
		out.State = "parked"
	}
	if c.NotBefore.After(time.Now()) {
		out.NotBefore = &c.NotBefore
	}
	return out
}

func outlookOf(o syncer.Outlook) api.ChangeDetail {
	out := api.ChangeDetail{Change: changeOf(o.Change), Holds: []api.Hold{}}
	out.State = string(o.State)
	for _, h := range o.Holds {
		out.Holds = append(out.Holds, api.Hold{Seq: h.Seq, Text: h.String()})
	}
	if o.Obsolete != "" {
		out.Holds = append(out.Holds, api.Hold{Text: "nothing: it is dropped in its turn, because " + o.Obsolete})
	}
	return out
}
