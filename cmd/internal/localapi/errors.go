package localapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/provision"
	syncer "tokendesk/sync"
	"tokendesk/vault"
)

// failure gives an error of the desk its code: the only place where that happens.
func (d *Desk) failure(err error) *api.Error {
	var (
		known      *api.Error
		unfinished *provision.UnfinishedError
		refused    *provision.RefusedError
		miss       *syncer.MissError
		state      *vault.StateError
		rejected   *device.RejectedError
		firmware   *device.FirmwareError
	)
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	code := api.Internal
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &unfinished):
		code = api.Unfinished
	case errors.As(err, &refused):
		code = api.Refused
	case errors.As(err, &state):
		code = api.VaultTrouble
	case is(vault.ErrNotFound):
		return api.Errorf(api.NotFound, "no such token in the inventory: tokendesk list shows them all")
	case errors.As(err, &miss), is(provision.ErrMismatch, device.ErrNoTouch):
		code = api.NotVerified
	case errors.As(err, &rejected), errors.As(err, &firmware),
		is(device.ErrGone, device.ErrBusy, device.ErrPermission, device.ErrTimeout, device.ErrCorrupt):
		code = api.Device
	case is(syncer.ErrRefused, syncer.ErrUnavailable, syncer.ErrNotConfirmed):
		code = api.CentralRefuse
	}
	if code == api.Internal && !is(context.Canceled) {
		d.Log.Error("request failed", "error", err)
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
	if status >= http.StatusInternalServerError {
		return api.Errorf(api.Internal, "the desk failed: its log says why")
	}
	if status == http.StatusNotFound || status == http.StatusMethodNotAllowed {
		return api.Errorf(api.NotFound, "no such operation")
	}
	var rules []string
	for _, err := range details {
		detail, ok := err.(*huma.ErrorDetail)
		switch {
		case !ok || strings.HasPrefix(detail.Message, "unmarshal"):
			rules = append(rules, "the body is not valid JSON")
		case detail.Message == unexpectedProperty:
			rules = append(rules, "the body has a field that this operation does not know")
		default:
			rules = append(rules, detail.Location+": "+detail.Message)
		}
	}
	if len(rules) == 0 {
		rules = []string{"see /openapi.json"}
	}
	return api.Errorf(api.Invalid, "the request is not valid: %s", strings.Join(rules, "; "))
}

// unexpectedProperty is the router's text for an unknown field, whose name comes from the caller.
const unexpectedProperty = "unexpected property"
