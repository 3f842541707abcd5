package localapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/provision"
	syncer "tokendesk/sync"
	"tokendesk/vault"
)

const (
	// maxResyncBody is the body of a resync of as many lines as there may be, in bytes: some 110 for each, and to spare.
	maxResyncBody = 2 << 20
	// resultsPerLine is how many results one line of the answer has: clients read lines of up to 1 MiB.
	resultsPerLine = 500
)

// missed tells programs what a sentence says.
func missed(e *syncer.MissError) *api.Error {
	failed := api.Errorf(api.NotVerified, "%v", e)
	m := e.Miss
	failed.Miss = &api.Miss{Kind: string(m.Kind), Gap: m.Gap, Ahead: m.Ahead, Behind: m.Behind, Token: string(m.Other), Owner: m.Owner}
	failed.Recorded = e.Recorded
	return failed
}

// placing is what is done with the codes of a token.
type placing struct {
	action   provision.Action
	need     int
	typed    func(*syncer.Attempt, []string) (vault.Change, error)
	captured func(*syncer.Attempt, []string) (vault.Change, bool, error)
}

func (d *Desk) test(ctx context.Context, in *onToken[api.Codes], tell provision.Tell) (api.Outcome, error) {
	one := func(a *syncer.Attempt, codes []string) (vault.Change, error) { return a.Test(codes[len(codes)-1]) }
	return d.place(ctx, in, placing{provision.ActTest, 1, one, func(a *syncer.Attempt, codes []string) (vault.Change, bool, error) {
		c, err := one(a, codes)
		return c, err == nil, err
	}}, tell)
}

func (d *Desk) resync(ctx context.Context, in *onToken[api.Codes], tell provision.Tell) (api.Outcome, error) {
	return d.place(ctx, in, placing{provision.ActResync, 2, (*syncer.Attempt).Resync, (*syncer.Attempt).ResyncLast}, tell)
}

// place finds the counter that codes belong to, typed ones or captured ones.
func (d *Desk) place(ctx context.Context, in *onToken[api.Codes], p placing, tell provision.Tell) (api.Outcome, error) {
	id, err := in.id()
	if err != nil {
		return api.Outcome{}, err
	}
	codes := in.Body.Codes
	switch {
	case in.Body.Capture && len(codes) > 0:
		return api.Outcome{}, api.Errorf(api.Invalid, "codes are either given or captured, not both")
	case !in.Body.Capture && (len(codes) < p.need || p.need == 1 && len(codes) > 1):
		return api.Outcome{}, api.Errorf(api.Invalid, "give %s, oldest first, or have the key captured", []string{"one code", "two or three consecutive codes"}[p.need-1])
	}
	if err := d.Runner.Ready(id, p.action); err != nil {
		return api.Outcome{}, err
	}
	if in.Body.Capture && !id.Programmable() {
		return api.Outcome{}, api.Errorf(api.Refused, "%s types nothing: give the codes that it shows", id)
	}
	attempt, err := d.Outbox.Begin(ctx, officer(ctx), id)
	if err != nil {
		return api.Outcome{}, err
	}
	defer attempt.Close()
	if attempt.Note != "" {
		tell(provision.Progress{Kind: provision.Note, Text: attempt.Note})
	}
	var change vault.Change
	if in.Body.Capture {
		change, err = d.placeCaptured(ctx, id, attempt, p, tell)
	} else {
		change, err = p.typed(attempt, codes)
	}
	if miss := (*syncer.MissError)(nil); errors.As(err, &miss) && miss.Miss.Kind == syncer.MissBeyond {
		return d.askToAdvance(ctx, miss)
	}
	if err != nil {
		return api.Outcome{}, err
	}
	d.Outbox.Wake()
	return d.outcome(ctx, id, []vault.Change{change}, nil)
}

// placeCaptured has the key typed until its codes fit. What it types on after a resync moves the counter as well.
func (d *Desk) placeCaptured(ctx context.Context, id device.TokenID, a *syncer.Attempt, p placing, tell provision.Tell) (change vault.Change, err error) {
	var all []string
	var surplusErr error
	err = d.Runner.Capture(ctx, id, func(codes []string) (ok bool, err error) {
		all = slices.Clone(codes)
		change, ok, err = p.captured(a, codes)
		return ok, err
	}, func(code string) {
		if p.action != provision.ActResync || surplusErr != nil {
			return
		}
		moved, c, err := a.Surplus(code)
		if moved {
			change = c
		}
		if miss := (*syncer.MissError)(nil); !errors.As(err, &miss) { // it was done by then, and somebody else has moved on
			surplusErr = err
		}
	}, tell)
	err = cmp.Or(err, surplusErr)
	if errors.Is(err, provision.ErrMismatch) && len(all) >= p.need {
		err = a.Missed(all)
	}
	return change, err
}

// askToAdvance keeps a resync whose codes are too far ahead for one officer until a second one approves it.
func (d *Desk) askToAdvance(ctx context.Context, e *syncer.MissError) (api.Outcome, error) {
	m := e.Miss
	order := provision.AdvanceOrder(e.Token, provision.Advance{Generation: m.Generation, From: m.From, To: m.To}, m.Ahead, syncer.ResyncWindow)
	_, _, err := d.Runner.Do(ctx, officer(ctx), order)
	waiting := (*provision.ApprovalError)(nil)
	switch {
	case errors.As(err, &waiting):
		a := approvalOf(waiting.Approval)
		return api.Outcome{Approval: &a, Text: fmt.Sprintf("%s: %s: it waits as approval %d: another officer runs tokendesk approvals approve %d; or reseed it: tokendesk reseed %s",
			e.Token, m, a.ID, a.ID, e.Token)}, nil
	case err == nil:
		return api.Outcome{}, fmt.Errorf("the counter of %s was moved without a second officer", e.Token)
	}
	return api.Outcome{}, err
}

// resyncBody is the body of a resync of many tokens.
type resyncBody struct{ Body api.ResyncLines }

func (b *resyncBody) object() string {
	var tokens []string
	for _, l := range b.Body.Lines {
		if _, err := device.ParseTokenID(l.Token); err == nil { // else it may be a code, in the wrong column
			tokens = append(tokens, l.Token)
		}
	}
	return objectOf(tokens)
}

// routeResyncBatch registers a resync of many tokens, whose body may be longer than others.
func (d *Desk) routeResyncBatch(a huma.API, who access) {
	op := operation(http.MethodPost, "/v1/resync", "resync-batch", "Find the counters of many tokens from consecutive codes; each line by itself")
	op.MaxBodyBytes = maxResyncBody
	streamed(a, d, who, op, api.ResyncEvent{}, d.resyncBatch)
}

// resyncBatch resyncs many tokens. Each line is done or not by itself.
func (d *Desk) resyncBatch(ctx context.Context, in *resyncBody, write func(any) error) error {
	ctx, end, err := d.Keeper.Works.Begin(ctx, fmt.Sprintf("resync of %d tokens by %s", len(in.Body.Lines), officer(ctx).Name))
	if err != nil {
		return err
	}
	defer end()
	results := make([]api.ResyncResult, len(in.Body.Lines))
	var lines []syncer.BatchLine
	var at []int // in results
	for i, l := range in.Body.Lines {
		results[i] = api.ResyncResult{Line: l.Line}
		id, err := device.ParseTokenID(l.Token)
		if err != nil {
			results[i].Problem = api.Errorf(api.Invalid, "that is no token: tokens are named like yk-12345678/otp2")
			continue
		}
		results[i].Token = l.Token
		lines, at = append(lines, syncer.BatchLine{Line: l.Line, Token: id, Codes: l.Codes}), append(at, i)
	}
	done, err := d.Outbox.ResyncBatch(ctx, officer(ctx), lines, d.mayResync(ctx), func(done, of int) {
		write(api.ResyncEvent{Done: done, Of: of})
	})
	if err != nil && !slices.ContainsFunc(done, func(r syncer.BatchResult) bool { return r.Err == nil }) {
		return err
	}
	for i, r := range done {
		out := &results[at[i]]
		switch {
		case r.Err == nil:
			out.Owner, out.From, out.To = r.Owner, r.From, r.To
		case err != nil && errors.Is(r.Err, err):
			out.Problem = api.Errorf(api.Unfinished, "it is not known to be done: %v; where its counter is now: tokendesk show %s", err, r.Token)
		default:
			out.Owner, out.Problem = r.Owner, d.failure(r.Err)
		}
	}
	for part := range slices.Chunk(results, resultsPerLine) {
		if err := write(api.ResyncEvent{Results: part}); err != nil {
			return err
		}
	}
	return write(api.ResyncEvent{Last: true})
}

// mayResync refuses tokens that are not there for the caller, that cannot be resynced as they are, and that somebody works on.
func (d *Desk) mayResync(ctx context.Context) func(*vault.Tx, vault.Token) error {
	reach := reachOf(ctx)
	return func(tx *vault.Tx, t vault.Token) error {
		switch {
		case !officers.admits(reach.in(t.Tenant)):
			return fmt.Errorf("token %s: %w", t.ID, vault.ErrNotFound)
		case d.Runner.Working(t.ID):
			return api.Errorf(api.Refused, "another officer's work on %s is going on; wait until it has finished", t.ID)
		}
		return provision.CheckIdle(tx, t, provision.ActResync)
	}
}
