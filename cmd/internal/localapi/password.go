package localapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault/secret"
)

func (d *Desk) routePassword(a huma.API, who access) {
	op := operation(http.MethodPost, "/v1/tokens/{device}/{application}/password", "password", "Learn the password or PIN that a device wants before it is programmed")
	for _, name := range []string{"device", "application"} {
		op.Parameters = append(op.Parameters, &huma.Param{Name: name, In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}})
	}
	at := func(hc huma.Context) *passwordPath {
		return &passwordPath{TokenPath{hc.Param("device"), hc.Param("application")}}
	}
	framed(a, d, who, op, []string{"password or PIN"}, at, d.learnPassword)
}

func (d *Desk) forgetPassword(ctx context.Context, in *TokenPath) (out api.Outcome, err error) {
	id, err := in.id()
	if err != nil {
		return out, err
	}
	if err := d.Runner.ForgetPassword(officer(ctx), id); err != nil {
		return out, err
	}
	return api.Outcome{Text: "forgotten: work that needs it asks for it again"}, nil
}

// passwordPath is a TokenPath that the router has not looked at, and that is therefore not repeated.
type passwordPath struct{ TokenPath }

func (p *passwordPath) id() (device.TokenID, error) {
	id, err := p.TokenPath.id()
	if err != nil || !id.Programmable() {
		return "", api.Errorf(api.Invalid, "that is no token with a password: tokens are named DEVICE/APPLICATION, for example nk-00005d19/hotp1 or yk-12345678/oath:alice")
	}
	return id, nil
}

func (p *passwordPath) concerns() ([]device.TokenID, error) {
	id, err := p.id()
	return []device.TokenID{id}, err
}

func (d *Desk) learnPassword(ctx context.Context, in *passwordPath, _ nothing, s []secret.Secret) (out api.Outcome, err error) {
	id, err := in.id()
	if err != nil {
		return out, err
	}
	if s[0].IsZero() {
		return out, api.Errorf(api.Invalid, "the password is missing")
	}
	err = d.Runner.LearnPassword(ctx, officer(ctx), id, s[0], func(p provision.Progress) { out.Text = p.Text })
	return out, err
}
