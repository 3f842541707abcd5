package localapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/danielgtaylor/huma/v2"

	"tokendesk/cmd/internal/api"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

type actsQuery struct {
	From  uint64 `query:"from" doc:"Number of the first entry" minimum:"1" default:"1"`
	Limit int    `query:"limit" doc:"At most so many" minimum:"1" maximum:"1000" default:"100"`
}

func (d *Desk) acts(_ context.Context, q *actsQuery) (out api.Acts, err error) {
	out.Acts = []api.Act{}
	err = d.Vault.View(func(tx *vault.Tx) error {
		head, err := tx.Head()
		if err != nil {
			return err
		}
		out.Key, out.Last, out.Head = tx.AuditKey().String(), tx.Trail().Seq, head.String()
		return tx.Acts(q.From, func(e audit.Entry) (bool, error) {
			if len(out.Acts) == q.Limit {
				out.Next = e.Seq
				return false, nil
			}
			out.Acts = append(out.Acts, actOf(e))
			return true, nil
		})
	})
	return out, err
}

type exportQuery struct {
	From uint64 `query:"from" doc:"Number of the first entry" minimum:"1" default:"1"`
}

// routeExport registers the export of the audit trail. That somebody has it is in it.
func (d *Desk) routeExport(a huma.API, who access) {
	op := d.guarded(operation(http.MethodGet, "/v1/audit/export", "audit-export", "The audit trail, to be verified with its public key alone"), who)
	op.Responses = map[string]*huma.Response{"200": {
		Description: "A header, the entries and the signed head, one JSON object a line",
		Content:     map[string]*huma.MediaType{exportType: {Schema: &huma.Schema{Type: huma.TypeString}}},
	}}
	huma.Register(a, op, func(ctx context.Context, q *exportQuery) (*huma.StreamResponse, error) {
		f, err := d.export(officer(ctx), q.From)
		if err != nil {
			return nil, d.failure(err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			defer f.Close()
			hc.SetHeader("Content-Type", exportType)
			if _, err := io.Copy(hc.BodyWriter(), f); err != nil && hc.Context().Err() == nil {
				d.Log.Warn("an export of the audit trail broke off", "error", err)
			}
		}}, nil
	})
}

const exportType = "application/jsonl"

// export writes the trail into a file without a name: whoever reads it may take their time, and a transaction may not.
func (d *Desk) export(by audit.Officer, from uint64) (_ *os.File, err error) {
	err = d.Vault.Update(func(tx *vault.Tx) error {
		if last := tx.Trail().Seq; from > last {
			return api.Errorf(api.NotFound, "the audit trail has the entries 1 to %d", last)
		}
		return tx.Audit(audit.Act{Officer: by, Action: "audit export", Object: fmt.Sprintf("from entry %d on", from), Outcome: "done"})
	})
	if err != nil {
		return nil, err
	}
	d.Keeper.Nudge()
	f, err := os.CreateTemp("", "tokendesk-audit-*")
	if err != nil {
		return nil, fmt.Errorf("cannot export the audit trail: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := os.Remove(f.Name()); err != nil {
		return nil, err
	}
	if err := d.Vault.View(func(tx *vault.Tx) error { return tx.ExportAudit(f, from) }); err != nil {
		return nil, err
	}
	_, err = f.Seek(0, io.SeekStart)
	return f, err
}
