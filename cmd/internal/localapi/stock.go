package localapi

import (
	"context"

	"tokendesk/cmd/internal/api"
	"tokendesk/provision"
	"tokendesk/vault/secret"
)

type registration struct{ Body api.Registration }

// register takes a token whose codes are sent into the inventory.
func (d *Desk) register(ctx context.Context, in *registration) (api.Outcome, error) {
	g := in.Body
	if why := d.unavailable(g.Type); why != "" {
		return api.Outcome{}, api.Errorf(api.Refused, "%s", why)
	}
	tenant, err := d.homeOf(ctx, g.Tenant)
	if err != nil {
		return api.Outcome{}, err
	}
	t, err := d.Runner.Register(ctx, officer(ctx), provision.Registration{
		Type: g.Type, User: g.User, Address: g.Address, Description: g.Description, Tenant: tenant,
	})
	return d.outcome(ctx, t.ID, nil, err)
}

// imports takes fobs into the stock. What a line says is not repeated, for its seed may stand in any place of it.
func (d *Desk) imports(ctx context.Context, in api.Import, s []secret.Secret) (api.Imported, error) {
	out := api.Imported{Lines: []api.ImportedLine{}}
	if why := d.unavailable(provision.TypeFob); why != "" {
		return out, api.Errorf(api.Refused, "%s", why)
	}
	tenant, err := d.homeOf(ctx, in.Tenant)
	if err != nil {
		return out, err
	}
	all, err := d.Runner.Import(officer(ctx), s[0], provision.Delivery{
		Batch: in.Batch, Tenant: tenant, May: func(tenant string) bool { return sees(ctx, tenant) },
	})
	for _, i := range all {
		line := api.ImportedLine{Line: i.Line, Token: string(i.Token)}
		if i.Err != nil {
			line.Error = i.Err.Error()
		}
		out.Lines = append(out.Lines, line)
	}
	return out, err
}

// unavailable says why no token of a type can be added; empty if one can.
func (d *Desk) unavailable(code string) string {
	n := d.naming(code)
	for _, t := range provision.Types() {
		if t.Code == code && t.Sent && !n.Offered {
			return n.Name + " is not offered here: an administrator can set [types." + code + "] offered = true, if somebody sends such codes"
		}
	}
	return d.retirement(code)
}
