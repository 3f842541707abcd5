package localapi

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"tokendesk/cmd/internal/api"
	"tokendesk/provision"
)

// lines writes an answer line by line. The status goes out with the first line, so that a refusal
// before it is an ordinary error.
type lines struct {
	ctx     huma.Context
	mu      sync.Mutex
	started bool
}

func (l *lines) write(v any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.started {
		l.started = true
		l.ctx.SetHeader("Content-Type", "application/x-ndjson")
		l.ctx.SetStatus(statusOf(v))
	}
	if err := json.NewEncoder(l.ctx.BodyWriter()).Encode(v); err != nil {
		return err
	}
	if f, ok := l.ctx.BodyWriter().(http.Flusher); ok {
		f.Flush()
	}
	return nil
}

// statusOf is that of an answer whose first line is v.
func statusOf(v any) int {
	if e, ok := v.(api.Event); ok && e.Outcome != nil && e.Outcome.Approval != nil {
		return http.StatusAccepted
	}
	return http.StatusOK
}

// fail ends the answer with an error.
func (l *lines) fail(e *api.Error) {
	if l.started {
		l.write(api.Event{Error: e})
		return
	}
	l.ctx.SetHeader("Content-Type", "application/json")
	l.ctx.SetStatus(e.GetStatus())
	json.NewEncoder(l.ctx.BodyWriter()).Encode(e)
}

// stream registers an operation that answers line by line until the caller hangs up.
func stream[In any](a huma.API, d *Desk, who access, method, path, id, summary string, line any, fn func(context.Context, *In, func(any) error) error) {
	streamed(a, d, who, operation(method, path, id, summary), line, fn)
}

func streamed[In any](a huma.API, d *Desk, who access, op huma.Operation, line any, fn func(context.Context, *In, func(any) error) error) {
	op = d.guarded(op, who)
	schema := a.OpenAPI().Components.Schemas.Schema(reflect.TypeOf(line), true, "")
	op.Responses = map[string]*huma.Response{"200": {
		Description: "One JSON object a line",
		Content:     map[string]*huma.MediaType{"application/x-ndjson": {Schema: schema}},
	}}
	huma.Register(a, op, func(_ context.Context, in *In) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			l := &lines{ctx: hc}
			err := d.within(hc.Context(), who, in)
			if err == nil {
				err = fn(hc.Context(), in, l.write)
			}
			failed := d.conclude(hc.Context(), op, in, err)
			if failed != nil && hc.Context().Err() == nil {
				l.fail(failed)
			}
		}}, nil
	})
}

// work registers an operation of several steps. It stops when the caller hangs up, or an officer has the vault locked by
// force; the journal keeps what was done.
func work[In any](a huma.API, d *Desk, who access, path, id, summary string, fn func(context.Context, *In, provision.Tell) (api.Outcome, error)) {
	stream(a, d, who, http.MethodPost, path, id, summary, api.Event{}, func(ctx context.Context, in *In, write func(any) error) error {
		ctx, end, err := d.Keeper.Works.Begin(ctx, describe(id, in)+" by "+officer(ctx).Name)
		if err != nil {
			return err
		}
		defer end()
		outcome, err := fn(ctx, in, func(p provision.Progress) {
			write(api.Event{Progress: &api.Progress{Kind: string(p.Kind), Step: p.Step, Text: p.Text, Slot: p.Slot, Codes: p.Codes}})
		})
		if err != nil {
			return err
		}
		return write(api.Event{Outcome: &outcome})
	})
}
