package localapi

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/vault/audit"
)

// conclude notes what came of an operation, and gives its error the form for the caller.
func (d *Desk) conclude(ctx context.Context, op huma.Operation, in any, err error) *api.Error {
	var failed *api.Error
	outcome := "done"
	if err != nil {
		failed = d.failure(err)
		outcome = string(failed.Code)
	}
	if op.Method == http.MethodGet {
		return failed
	}
	by, object := officer(ctx), object(in)
	d.Log.Info("action", "officer", by.Name, "operation", op.OperationID, "object", object, "outcome", outcome)
	if failed != nil && d.isForTheTrail(op, failed) {
		if object == "" {
			object = d.Vault.ID()
		}
		d.Keeper.Record(audit.Act{Officer: by, Action: actionOf(op, in), Object: object, Outcome: outcome, Reason: failed.Message})
	}
	if failed == nil {
		d.closeLeavers()
	}
	d.Keeper.Nudge()
	return failed
}

// isForTheTrail tells which failures are recorded here. What succeeds is recorded with the change that it makes; the keeper
// records attempts to unlock, codes that did not fit are recorded where they are counted, and what is asked of a locked vault cannot be recorded. A request that makes no sense is no
// attempt at anything, and neither is a look at what would happen.
func (d *Desk) isForTheTrail(op huma.Operation, failed *api.Error) bool {
	return op.OperationID != "vault-unlock" && op.OperationID != "preview" && failed.Code != api.Invalid && !failed.Recorded && d.Keeper.IsOpen()
}

// actionOf is what was asked for, as the audit trail names it: "vault-check" is "vault check" there, and an order its action.
func actionOf(op huma.Operation, in any) string {
	if o, ok := in.(*orderBody); ok {
		return o.Action
	}
	if verb, ok := strings.CutPrefix(op.OperationID, "vault-"); ok {
		return "vault " + verb
	}
	if verb, ok := strings.CutPrefix(op.OperationID, "piv-"); ok {
		return "piv " + verb
	}
	return op.OperationID
}

// object is what an operation is about: a token, a change of the outbox; empty if it is the vault.
func object(in any) string {
	switch in := in.(type) {
	case interface {
		id() (device.TokenID, error)
	}:
		if id, err := in.id(); err == nil {
			return string(id)
		}
	case interface{ object() string }:
		return in.object()
	}
	return ""
}

// describe says what work is about.
func describe(id string, in any) string {
	if o := object(in); o != "" {
		return id + " of " + o
	}
	return id
}
