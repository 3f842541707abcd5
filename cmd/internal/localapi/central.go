package localapi

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"tokendesk/cmd/internal/api"
	syncer "tokendesk/sync"
	"tokendesk/vault"
)

const (
	shownRows    = 1000 // of a drift
	shownChanges = 100  // of a repair, and of a full outbox that status looks at for a problem
	shownFor     = 24 * time.Hour
)

// central tells how the providers are, as far as that is known without asking them.
func (d *Desk) central(c *api.Central) error {
	if d.Connector == nil {
		return nil
	}
	c.Name = d.Connector.Name()
	report := d.Refresher.Progress()
	if !report.Ended.IsZero() {
		c.Read = &report.Ended
	}
	for _, m := range report.Missing {
		c.Missing = append(c.Missing, missing(m))
	}
	all, err := d.Refresher.Rollbacks()
	if state := (*vault.StateError)(nil); errors.As(err, &state) {
		return nil // that is told elsewhere
	}
	for _, r := range all {
		if !r.Repaired.IsZero() && time.Since(r.Repaired) > shownFor {
			continue
		}
		shown := api.Rollback{Token: string(r.Token), Provider: r.Provider, From: r.From, To: r.To, LastGood: r.LastGood, Noticed: r.Noticed}
		if !r.Repaired.IsZero() {
			shown.Repaired = &r.Repaired
		}
		c.Rollbacks = append(c.Rollbacks, shown)
	}
	return err
}

// missing says why a provider was not read; the connector's own words may begin with its name.
func missing(m syncer.NotReached) string {
	return m.Provider + ": " + strings.TrimPrefix(m.Problem, m.Provider+": ")
}

type driftQuery struct {
	Tokens []string `query:"token" doc:"Only these" maxItems:"1000"`
}

func (d *Desk) drift(ctx context.Context, q *driftQuery) (api.Drift, error) {
	out := api.Drift{Rows: []api.DriftRow{}}
	summary, err := d.Drift.Rows(ctx, false, func(r syncer.Row) error {
		if len(out.Rows) < shownRows && among(r, q.Tokens) {
			out.Rows = append(out.Rows, rowOf(r))
		}
		return nil
	})
	out.Providers, out.Agree, out.Differ = summary.Providers, summary.Agree, summary.Differ
	out.Settling, out.Breaches = summary.Settling, summary.Breaches
	for _, m := range summary.NotReached {
		out.Missing = append(out.Missing, missing(m))
	}
	return out, err
}

// among tells whether a row is one of those that were asked for, by either name; none means all.
func among(r syncer.Row, names []string) bool {
	return len(names) == 0 || slices.Contains(names, string(r.Token)) || slices.Contains(names, r.Central)
}

func rowOf(r syncer.Row) api.DriftRow {
	out := api.DriftRow{Central: r.Central, Desk: deskSide(r.Desk), There: []api.There{}, Differences: differences(r.Differences)}
	if r.Desk != nil || r.Deleted != nil {
		out.Token = string(r.Token)
	}
	out.Deleted = deletedSide(r.Deleted)
	for _, p := range r.There {
		out.There = append(out.There, api.There{
			Provider: p.Provider, Problem: p.Problem, Exists: p.Exists, Owner: p.Owner, Enabled: p.Enabled,
			Counter: p.Counter, Generation: p.Generation, Ours: p.Ours,
		})
	}
	return out
}

func deskSide(s *syncer.DeskSide) *api.DeskSide {
	if s == nil {
		return nil
	}
	return &api.DeskSide{Owner: s.Owner, Status: string(s.Status), Counter: s.Counter, Generation: s.Generation}
}

func deletedSide(s *syncer.DeletedSide) *api.Deleted {
	if s == nil {
		return nil
	}
	return &api.Deleted{Time: s.Time, Generation: s.Generation}
}

func differences(all []syncer.Difference) []api.Difference {
	out := []api.Difference{}
	for _, x := range all {
		out = append(out, api.Difference{Kind: string(x.Kind), Provider: x.Provider, Text: x.Text, Breach: x.Breach, Pending: x.Pending})
	}
	return out
}

// plan computes a repair anew: nothing is kept between showing it and carrying it out but its digest.
func (d *Desk) plan(ctx context.Context, c api.RepairChoice) (syncer.Plan, error) {
	var rows []syncer.Row
	_, err := d.Drift.Rows(ctx, false, func(r syncer.Row) error {
		if among(r, c.Tokens) {
			rows = append(rows, r)
		}
		return nil
	})
	if err != nil {
		return syncer.Plan{}, err
	}
	return d.Drift.Plan(rows, syncer.Choice(c.Choice))
}

func (d *Desk) repairPlan(ctx context.Context, in *struct{ Body api.RepairChoice }) (api.RepairPlan, error) {
	p, err := d.plan(ctx, in.Body)
	out := api.RepairPlan{Steps: []api.RepairStep{}, Digest: p.Digest}
	for _, s := range p.Steps {
		out.Steps = append(out.Steps, api.RepairStep{Token: string(s.Token), Do: s.Do, Why: s.Why, Breach: s.Breach})
	}
	for _, s := range p.Skipped {
		out.Skipped = append(out.Skipped, api.RepairSkip{Central: s.Central, Why: s.Why})
	}
	return out, err
}

func (d *Desk) repair(ctx context.Context, in *struct{ Body api.Repair }) (api.Repaired, error) {
	out := api.Repaired{Changes: []api.Change{}}
	p, err := d.plan(ctx, in.Body.RepairChoice)
	if err != nil {
		return out, err
	}
	done, err := d.Drift.Repair(ctx, officer(ctx), p, in.Body.Digest)
	out.Steps = done.Steps
	if changed := (*syncer.ChangedError)(nil); errors.As(err, &changed) {
		return out, api.Errorf(api.Refused, "%v", err)
	} else if err != nil {
		return out, err
	}
	out.More = max(0, len(done.Changes)-shownChanges)
	var changes []vault.Change
	for _, seq := range done.Changes[:len(done.Changes)-out.More] {
		c, found := d.change(seq)
		if !found { // delivered already
			c = vault.Change{Seq: seq}
		}
		changes = append(changes, c)
	}
	out.Changes = append(out.Changes, d.settle(ctx, changes)...)
	return out, nil
}
