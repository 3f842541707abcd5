package localapi

import (
	"context"
	"encoding/pem"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault/secret"
)

// yubikeyPattern is what a YubiKey's name looks like.
const yubikeyPattern = "^yk-[0-9]{1,10}$"

// PIVPath (exported, or the router would not fill it when embedded) is in the path of every operation on one PIV application.
type PIVPath struct {
	Device string `path:"device" pattern:"^yk-[0-9]{1,10}$" doc:"Device name" example:"yk-12345678"`
}

func (p *PIVPath) id() (device.TokenID, error) {
	id, err := device.ParseTokenID(p.Device + "/piv")
	if err != nil { // without what was asked for
		return "", api.Errorf(api.Invalid, "the device is not named by a YubiKey's serial number, such as yk-12345678")
	}
	return id, nil
}

func (p *PIVPath) concerns() ([]device.TokenID, error) {
	id, err := p.id()
	return []device.TokenID{id}, err
}

type onPIV[T any] struct {
	PIVPath
	Body T
}

func (d *Desk) routePIV(a huma.API) {
	get(a, d, everyone.inTenants(), "/v1/piv/{device}", "piv-show", "What a card holds, and what the desk knows of it", d.showPIV)
	work(a, d, officers.inTenants(), "/v1/piv/{device}/provision", "piv-provision", "Seal, set secrets, generate, attest, request, assign", d.provisionPIV)
	secretlyOn(a, d, officers.inTenants(), "/v1/piv/{device}/csr", "piv-csr", "Have a key sign another certificate request", []string{"PIN; empty: that of the vault"}, d.requestPIV)
	post(a, d, officers.inTenants(), "/v1/piv/{device}/certificate", "piv-import-cert", "Check a certificate against its key, and store it on the card", d.importCertificate)
	work(a, d, officers.inTenants(), "/v1/piv/{device}/unblock", "piv-unblock", "Give the card a new PIN, by the PUK in the vault", d.unblockPIV)
	tellSecret(a, d, officers.inTenants(), "/v1/piv/{device}/pin", "piv-pin", "Tell the PIN, once", d.takePIN)
	secretlyOn(a, d, officers.inTenants(), "/v1/piv/{device}/pin/set", "piv-pin-set", "Give the card the PIN that its holder has chosen", []string{"PIN"}, d.setPIN)
	get(a, d, everyone.inTenants(), "/v1/piv/revocations", "piv-revocations", "Certificates that are to be revoked at their issuers", d.revocations)
	post(a, d, officers.inTenants(), "/v1/piv/revocations/{sha256}/done", "piv-revoked", "Say that a certificate was revoked", d.markRevoked)
}

// onCard describes the path of an operation whose body is no business of the router.
func onCard(path, id, summary string) huma.Operation {
	op := operation(http.MethodPost, path, id, summary)
	op.Parameters = []*huma.Param{{
		Name: "device", In: "path", Required: true, Description: "Device name",
		Schema: &huma.Schema{Type: huma.TypeString, Pattern: yubikeyPattern, Examples: []any{"yk-12345678"}},
	}}
	return op
}

func cardOf(hc huma.Context) *PIVPath { return &PIVPath{hc.Param("device")} }

// secretlyOn is secretly for an operation on a PIV application.
func secretlyOn[In, Out any](a huma.API, d *Desk, who access, path, id, summary string, names []string, fn func(context.Context, *PIVPath, In, []secret.Secret) (Out, error)) {
	framed(a, d, who, onCard(path, id, summary), names, cardOf, fn)
}

// tellSecret registers an operation on a PIV application whose answer is a secret.
func tellSecret(a huma.API, d *Desk, who access, path, id, summary string, fn func(context.Context, *PIVPath) (secret.Secret, error)) {
	op := d.guarded(onCard(path, id, summary), who)
	registry := a.OpenAPI().Components.Schemas
	op.Responses = map[string]*huma.Response{
		"200": {
			Description: "A frame of 16384 bytes without secrets, and one with the secret after its length (2 bytes, big endian), then zeroes.",
			Content:     map[string]*huma.MediaType{api.SecretType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}},
		},
		"default": described("Error", registry.Schema(reflect.TypeFor[api.Error](), true, "Error")),
	}
	a.OpenAPI().AddOperation(&op)
	a.Adapter().Handle(&op, op.Middlewares.Handler(func(hc huma.Context) {
		r, w := humago.Unwrap(hc)
		at := cardOf(hc)
		answer, err := d.answerSecret(r, who, at, fn)
		defer answer.Wipe()
		if failed := d.conclude(r.Context(), op, at, err); failed != nil {
			writeError(w, failed)
			return
		}
		w.Header().Set("Content-Type", api.SecretType)
		w.Write(answer.Reveal())
	}))
}

func (d *Desk) answerSecret(r *http.Request, who access, at *PIVPath, fn func(context.Context, *PIVPath) (secret.Secret, error)) (answer secret.Secret, err error) {
	if r.URL.RawQuery != "" {
		return answer, api.Errorf(api.Invalid, "the request is not valid: the query has a parameter that this operation does not know")
	}
	if err := d.within(r.Context(), who, at); err != nil {
		return answer, err
	}
	told, err := fn(r.Context(), at)
	if err != nil {
		return answer, err
	}
	defer told.Wipe()
	return secret.Make(api.AnswerSize, func(b []byte) error { return api.PutAnswer(b, told.Reveal()) })
}

// onIt begins short work on a card, during which the vault stays open.
func (d *Desk) onIt(ctx context.Context, what string, p *PIVPath) (_ context.Context, end func(), id device.TokenID, err error) {
	if id, err = p.id(); err != nil {
		return nil, nil, "", err
	}
	ctx, end, err = d.Keeper.Works.Begin(ctx, what+" of "+string(id)+" by "+officer(ctx).Name)
	return ctx, end, id, err
}

func (d *Desk) provisionPIV(ctx context.Context, in *onPIV[api.ProvisionPIV], tell provision.Tell) (api.Outcome, error) {
	id, err := in.id()
	if err != nil {
		return api.Outcome{}, err
	}
	if why := d.unavailable(provision.TypeOf(id).Code); why != "" {
		return api.Outcome{}, api.Errorf(api.Refused, "%s", why)
	}
	if len(in.Body.Reason) > maxWords {
		return api.Outcome{}, api.Errorf(api.Invalid, "the request is not valid: body.reason: expected at most %d bytes", maxWords)
	}
	tenant, err := d.homeOf(ctx, in.Body.Tenant)
	if err != nil {
		return api.Outcome{}, err
	}
	o := provision.PIVProvision{Token: id, User: in.Body.User, Tenant: tenant, Reason: in.Body.Reason, Subject: in.Body.Subject, Overwrite: in.Body.Overwrite}
	for _, wish := range in.Body.Keys {
		spec, err := wished(wish)
		if err != nil {
			return api.Outcome{}, err
		}
		o.Keys = append(o.Keys, spec)
	}
	due, err := d.dueBefore(ctx, id)
	if err != nil {
		return api.Outcome{}, err
	}
	requests, changes, err := d.Runner.ProvisionPIV(ctx, officer(ctx), o, tell)
	out, err := d.outcome(ctx, id, changes, d.onCardError(id, err))
	if err != nil {
		return out, err
	}
	for _, r := range requests {
		out.Requests = append(out.Requests, shownRequest(r))
	}
	return d.toRevoke(ctx, out, due, id)
}

// wished is a key to be generated; what was not said of it is what such slots are for (SP 800-73-4 part 1, section 3.3).
func wished(w api.PIVWish) (spec device.PIVKeySpec, err error) {
	slot, err := device.ParsePIVSlot(w.Slot)
	if err != nil {
		return spec, api.Errorf(api.Invalid, "a key's slot is one of 9a, 9c, 9d, 9e, and 82 to 95")
	}
	spec = device.PIVKeySpec{Slot: slot, Algorithm: device.ECCP256, PIN: device.PINOnce, Touch: device.TouchNever}
	switch slot {
	case device.PIVSignature:
		spec.PIN = device.PINAlways
	case device.PIVCardAuthentication:
		spec.PIN = device.PINNever
	}
	if w.Algorithm != "" {
		spec.Algorithm = device.PIVAlgorithm(w.Algorithm)
	}
	if w.PINPolicy != "" {
		spec.PIN = device.PINPolicy(w.PINPolicy)
	}
	if w.TouchPolicy != "" {
		spec.Touch = device.TouchPolicy(w.TouchPolicy)
	}
	return spec, nil
}

func shownRequest(r provision.PIVRequest) api.PIVRequest {
	return api.PIVRequest{Slot: r.Slot.String(), PEM: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: r.DER}))}
}

func (d *Desk) requestPIV(ctx context.Context, at *PIVPath, in api.CSR, secrets []secret.Secret) (out api.PIVRequest, err error) {
	ctx, end, id, err := d.onIt(ctx, "piv-csr", at)
	if err != nil {
		return out, err
	}
	defer end()
	slot, err := slotNamed(in.Slot)
	if err != nil {
		return out, err
	}
	r, err := d.Runner.RequestPIV(ctx, officer(ctx), id, slot, in.Subject, secrets[0], func(provision.Progress) {})
	if err != nil {
		return out, d.onCardError(id, err)
	}
	return shownRequest(r), nil
}

func slotNamed(name string) (device.PIVSlot, error) {
	slot, err := device.ParsePIVSlot(name)
	if err != nil {
		return 0, api.Errorf(api.Invalid, "the slot is one of 9a, 9c, 9d, 9e, and 82 to 95")
	}
	return slot, nil
}

func (d *Desk) importCertificate(ctx context.Context, in *onPIV[api.ImportCertificate]) (out api.Certificate, err error) {
	ctx, end, id, err := d.onIt(ctx, "piv-import-cert", &in.PIVPath)
	if err != nil {
		return out, err
	}
	defer end()
	slot, err := slotNamed(in.Body.Slot)
	if err != nil {
		return out, err
	}
	block, rest := pem.Decode([]byte(in.Body.PEM))
	if block == nil || block.Type != "CERTIFICATE" || strings.TrimSpace(string(rest)) != "" {
		return out, api.Errorf(api.Invalid, "body.pem is not one certificate in PEM: it begins with -----BEGIN CERTIFICATE-----, and holds no other")
	}
	c, err := d.Runner.ImportCertificate(ctx, officer(ctx), id, slot, block.Bytes)
	if err != nil {
		return out, d.onCardError(id, err)
	}
	return certificateOf(c), nil
}

func (d *Desk) unblockPIV(ctx context.Context, in *PIVPath, tell provision.Tell) (api.Outcome, error) {
	id, err := in.id()
	if err != nil {
		return api.Outcome{}, err
	}
	err = d.Runner.UnblockPIV(ctx, officer(ctx), id, tell)
	return d.outcome(ctx, id, nil, d.onCardError(id, err))
}

func (d *Desk) takePIN(ctx context.Context, at *PIVPath) (secret.Secret, error) {
	ctx, end, id, err := d.onIt(ctx, "piv-pin", at)
	if err != nil {
		return secret.Secret{}, err
	}
	defer end()
	return d.Runner.TakePIN(ctx, officer(ctx), id)
}

func (d *Desk) setPIN(ctx context.Context, at *PIVPath, _ nothing, secrets []secret.Secret) (out api.Token, err error) {
	ctx, end, id, err := d.onIt(ctx, "piv-pin-set", at)
	if err != nil {
		return out, err
	}
	defer end()
	if n := secrets[0].Len(); n < device.MinPINSize || n > device.MaxPINSize {
		return out, api.Errorf(api.Invalid, "a PIN has %d to %d characters", device.MinPINSize, device.MaxPINSize)
	}
	if err := d.Runner.SetPIN(ctx, officer(ctx), id, secrets[0]); err != nil {
		return out, d.onCardError(id, err)
	}
	return d.token(ctx, id)
}
