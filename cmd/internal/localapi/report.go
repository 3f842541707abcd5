package localapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/paper"
	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

type reportQuery struct {
	Report string `path:"report" doc:"What it is about" enum:"stock,assignments,exceptions,events"`
	Format string `query:"format" enum:"csv,html,json" default:"csv"`
	Since  string `query:"since" doc:"events, assignments: only what happened from then on" format:"date-time"`
	Until  string `query:"until" doc:"events, assignments: only what happened before that" format:"date-time"`
}

// formats are the content types of reports.
var formats = map[paper.Format]string{paper.CSV: "text/csv; charset=utf-8", paper.HTML: "text/html; charset=utf-8", paper.JSON: "application/jsonl"}

// routeReports registers the reports. That somebody has one is in the audit trail.
func (d *Desk) routeReports(a huma.API, who access) {
	op := d.guarded(operation(http.MethodGet, "/v1/reports/{report}", "report", "Stock, assignments, exceptions or events as a table, to be printed or computed with"), who)
	text := &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}}
	op.Responses = map[string]*huma.Response{"200": {
		Description: "The table; as JSON, one object a line",
		Content:     map[string]*huma.MediaType{"text/csv": text, "text/html": text, "application/jsonl": text},
	}}
	huma.Register(a, op, func(ctx context.Context, q *reportQuery) (*huma.StreamResponse, error) {
		f, err := d.report(ctx, q)
		if err != nil {
			return nil, d.failure(err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			defer f.Close()
			if info, err := f.Stat(); err == nil { // so that half a report is noticed
				hc.SetHeader("Content-Length", strconv.FormatInt(info.Size(), 10))
			}
			hc.SetHeader("Content-Type", formats[paper.Format(q.Format)])
			if _, err := io.Copy(hc.BodyWriter(), f); err != nil && hc.Context().Err() == nil {
				d.Log.Warn("a report broke off", "error", err)
			}
		}}, nil
	})
}

// report writes one into a file without a name: it is of one state of the vault, and whoever reads it may take their time.
func (d *Desk) report(ctx context.Context, q *reportQuery) (*os.File, error) {
	span, err := q.span()
	if err != nil {
		return nil, err
	}
	tell, known := reports[q.Report]
	if !known {
		return nil, api.Errorf(api.Invalid, "there is no such report")
	}
	if q.Since+q.Until != "" && !tell.timed {
		return nil, api.Errorf(api.Invalid, "the report of %s is of now: since and until are for events and assignments", q.Report)
	}
	reach := reachOf(ctx)
	if tell.whole {
		if err := d.require(ctx, papers); err != nil {
			return nil, err
		}
	}
	err = d.Vault.Update(func(tx *vault.Tx) error {
		return tx.Audit(audit.Act{Officer: officer(ctx), Action: "report", Object: q.Report, Outcome: "done", Reason: "as " + q.Format})
	})
	if err != nil {
		return nil, err
	}
	d.Keeper.Nudge()
	return spooled(func(w io.Writer) error {
		return d.Vault.View(func(tx *vault.Tx) error {
			at := tx.Trail()
			r, err := paper.NewReport(w, paper.Format(q.Format), paper.Heading{
				Title: tell.title, About: tell.about + span.words(), Desk: d.Imprint, Printed: time.Now().Truncate(time.Second),
				Basis: fmt.Sprintf("After entry %d of the audit trail", at.Seq), Columns: tell.columns, Version: api.Version,
			})
			if err != nil {
				return err
			}
			s := &sheet{Report: r, desk: d, tx: tx, reach: reach, span: span, forPeople: q.Format == string(paper.HTML)}
			if err := tell.rows(s); err != nil {
				return err
			}
			return r.Close()
		})
	})
}

// spooled writes into a file that has no name any more, and returns it at its beginning.
func spooled(write func(io.Writer) error) (*os.File, error) {
	f, err := os.CreateTemp("", "tokendesk-report-*")
	if err != nil {
		return nil, fmt.Errorf("cannot write a report: %w", err)
	}
	err = os.Remove(f.Name())
	if err == nil {
		err = write(f)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// timespan is from when to when; a zero time is no bound.
type timespan struct{ since, until time.Time }

func (q *reportQuery) span() (s timespan, err error) {
	for text, t := range map[string]*time.Time{q.Since: &s.since, q.Until: &s.until} {
		if text == "" {
			continue
		}
		if *t, err = time.Parse(time.RFC3339, text); err != nil {
			return s, api.Errorf(api.Invalid, "since, until: expected a time such as 2030-01-31T00:00:00Z")
		}
	}
	if !s.since.IsZero() && !s.until.IsZero() && !s.since.Before(s.until) {
		return s, api.Errorf(api.Invalid, "nothing is between since and until: until must be later")
	}
	return s, nil
}

func (s timespan) has(t time.Time) bool {
	return !t.Before(s.since) && (s.until.IsZero() || t.Before(s.until))
}

func (s timespan) words() (text string) {
	if !s.since.IsZero() {
		text += ", from " + s.since.Local().Format("2006-01-02 15:04")
	}
	if !s.until.IsZero() {
		text += ", before " + s.until.Local().Format("2006-01-02 15:04")
	}
	return text
}

// sheet is a report that is being written.
type sheet struct {
	*paper.Report
	desk      *Desk
	tx        *vault.Tx
	reach     reach
	span      timespan
	forPeople bool
}

// time is a moment as the reader needs it: programs, in UTC.
func (s *sheet) time(t time.Time) string {
	switch {
	case t.IsZero():
		return ""
	case s.forPeople:
		return t.Local().Format("2006-01-02 15:04")
	}
	return t.UTC().Format(time.RFC3339)
}

func (s *sheet) day(t time.Time) string {
	if s.forPeople && !t.IsZero() {
		return t.Local().Format(time.DateOnly)
	}
	return s.time(t)
}

// tokens calls fn for every token that the caller may report, page by page.
func (s *sheet) tokens(fn func(vault.Token) error) error {
	for t, err := range s.tx.AllTokens(vault.Filter{Limit: 1000}) {
		if err == nil && papers.admits(s.reach.in(t.Tenant)) {
			err = fn(t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// rowOf writes a row about a token, if the caller may report that.
func (s *sheet) rowOf(id device.TokenID, cells ...string) error {
	tenant, _, err := tenantOf(s.tx, id)
	if err != nil || !papers.admits(s.reach.in(tenant)) {
		return err
	}
	return s.Row(cells...)
}
