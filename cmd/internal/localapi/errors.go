package localapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"
	"golang.org/x/sys/unix"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/keys"
	"tokendesk/device"
	"tokendesk/device/trace"
	"tokendesk/provision"
	syncer "tokendesk/sync"
	"tokendesk/vault"
)

// failure gives an error of the desk its code.
func (d *Desk) failure(err error) *api.Error {
	if known := d.classified(err); known != nil {
		return known
	}
	if !errors.Is(err, context.Canceled) {
		d.Log.Error("request failed", "error", err)
	}
	return api.Errorf(api.Internal, "%v", err)
}

// classified gives an error its code, or returns nil for one that it does not know. Codes are chosen here only.
func (d *Desk) classified(err error) *api.Error {
	var (
		known      *api.Error
		unfinished *provision.UnfinishedError
		refused    *provision.RefusedError
		state      *vault.StateError
		miss       *syncer.MissError
		rejected   *device.RejectedError
		firmware   *device.FirmwareError
		twins      *keys.TwinsError
		approval   *syncer.ApprovalError
		waiting    *provision.ApprovalError
		slow       *syncer.SlowDownError
		pin        *device.PINError
		noCard     *keys.NoCardError
		code       api.Code
	)
	is := func(targets ...error) bool {
		return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
	}
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &unfinished):
		code = api.Unfinished
	case errors.As(err, &refused), errors.As(err, &approval), errors.As(err, &waiting), errors.As(err, &slow), is(keys.ErrBehind, syncer.ErrCutOffStays):
		code = api.Refused
	case errors.As(err, &state), is(vault.ErrUnanchored, vault.ErrClosed, unix.ENOSPC, unix.EDQUOT, unix.EFBIG):
		code = api.VaultTrouble
	case is(syncer.ErrReason):
		code = api.Invalid
	case is(vault.ErrNotFound):
		return api.Errorf(api.NotFound, "no such token in the inventory: tokendesk list shows them all")
	case errors.As(err, &miss):
		return missed(miss)
	case is(provision.ErrMismatch, device.ErrNoTouch, device.ErrAttestation, trace.ErrForeign), errors.As(err, &pin) && pin.Retries != 0, is(provision.ErrCodesWanted):
		code = api.NotVerified
	case errors.As(err, &rejected), errors.As(err, &firmware), errors.As(err, &twins), pin != nil, errors.Is(err, errNoPIV), is(device.ErrLocked, device.ErrFull, device.ErrNoApplication, keys.ErrNoCards, keys.ErrForeign), errors.As(err, &noCard),
		is(device.ErrGone, device.ErrBusy, device.ErrPermission, device.ErrTimeout, device.ErrCorrupt, device.ErrMute, device.ErrManagementKey, provision.ErrNoCard):
		code = api.Device
	default:
		return nil
	}
	return api.Errorf(code, "%v", err)
}

func writeError(w http.ResponseWriter, e *api.Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.GetStatus())
	json.NewEncoder(w).Encode(e)
}

// requestError replaces the router's own errors, which repeat the rejected values. Only what the API's
// description says about a field is told: its name and its rule.
func requestError(status int, _ string, details ...error) huma.StatusError {
	return badRequest(status, details...)
}

func badRequest(status int, details ...error) *api.Error {
	switch {
	case status >= http.StatusInternalServerError:
		return api.Errorf(api.Internal, "the desk failed: its log says why")
	case status == http.StatusRequestEntityTooLarge:
		return api.Errorf(api.Invalid, "the request is not valid: the body is larger than %d KiB", maxBody>>10)
	}
	var rules []string
	for _, err := range details {
		rules = append(rules, rule(err))
	}
	if len(rules) == 0 {
		rules = []string{"the body is missing, or did not arrive whole"}
	}
	return api.Errorf(api.Invalid, "the request is not valid: %s", strings.Join(rules, "; "))
}

// rule is what a request was to obey. The router's texts about the JSON, the content type and unknown
// fields quote the caller; so do some formats, behind a colon.
func rule(err error) string {
	detail, ok := err.(*huma.ErrorDetail)
	if !ok {
		return "the body is not valid JSON"
	}
	text, _, _ := strings.Cut(detail.Message, ": ")
	switch {
	case text == validation.MsgUnexpectedProperty:
		return "the body has a field that this operation does not know"
	case text == "unknown query parameter":
		return "the query has a parameter that this operation does not know"
	case text == huma.ErrUnknownContentType.Error():
		return "the content type is not application/json"
	case strings.HasPrefix(text, "expected "), strings.HasPrefix(text, "required "),
		strings.HasPrefix(text, "invalid ") && !strings.HasPrefix(detail.Location, "body"):
		return detail.Location + ": " + text
	}
	return "the body is not valid JSON"
}

// known lets only requests for an operation of mux through: what it answers to others repeats their path.
func known(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, pattern := mux.Handler(r)
		asked := r.URL.EscapedPath()
		if pattern != "" && path.Clean(asked) == asked {
			mux.ServeHTTP(w, r)
			return
		}
		writeError(w, api.Errorf(api.NotFound, "there is no such operation: /openapi.json lists them all"))
	})
}
