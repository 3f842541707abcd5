package localapi

import (
	"context"
	"errors"
	"maps"
	"slices"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/vault"
)

// A tenant's tokens are those of its people alone, and of those who have a role for the whole desk. Every token is of one tenant;
// that of most is the desk itself, which has no name.

// reach is what a caller may do: everywhere, and beyond that with the tokens of each tenant.
type reach struct {
	desk    []string
	tenants map[string][]string
}

func reachOf(ctx context.Context) reach {
	r, _ := ctx.Value(rolesKey).(reach)
	return r
}

func (r reach) none() bool { return len(r.desk) == 0 && len(r.tenants) == 0 }

// in are the roles for a tenant's tokens.
func (r reach) in(tenant string) []string {
	return slices.Concat(r.desk, r.tenants[tenant])
}

// somewhere tells whether there is a tenant in which one has one of some roles.
func (r reach) somewhere(a access) bool {
	for _, roles := range r.tenants {
		if a.admits(roles) {
			return true
		}
	}
	return false
}

// Sees tells whether who makes a request may know of a tenant's tokens; without a request, nobody is kept from anything.
func Sees(ctx context.Context, tenant string) bool {
	_, asked := ctx.Value(rolesKey).(reach)
	return !asked || sees(ctx, tenant)
}

// SeesAll tells whether who makes a request has a role for the whole desk.
func SeesAll(ctx context.Context) bool {
	r, asked := ctx.Value(rolesKey).(reach)
	return !asked || len(r.desk) > 0
}

// sees tells whether a caller may know of a tenant's tokens.
func sees(ctx context.Context, tenant string) bool { return len(reachOf(ctx).in(tenant)) > 0 }

// concerning is a request that is about tokens which it names.
type concerning interface {
	concerns() ([]device.TokenID, error)
}

// within refuses a request about tokens of tenants in which the caller has none of some roles. To them, those do not exist.
func (d *Desk) within(ctx context.Context, a access, in any) error {
	r := reachOf(ctx)
	c, ok := in.(concerning)
	if !ok || a.admits(r.desk) {
		return nil
	}
	ids, err := c.concerns()
	if err != nil {
		return nil // what is wrong with it is said by whoever wants to use it
	}
	return d.allWithin(r, a, ids)
}

func (d *Desk) allWithin(r reach, a access, ids []device.TokenID) error {
	err := d.Vault.View(func(tx *vault.Tx) error {
		for _, id := range ids {
			tenant, known, err := tenantOf(tx, id)
			if err == nil && known && !a.admits(r.in(tenant)) {
				err = vault.ErrNotFound
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// tenantOf is whose a token is, or was before it was deleted.
func tenantOf(tx *vault.Tx, id device.TokenID) (tenant string, known bool, err error) {
	t, err := tx.Token(id)
	if errors.Is(err, vault.ErrNotFound) {
		stone, buried, err := tx.Tombstone(id)
		return stone.Tenant, buried, err
	}
	return t.Tenant, err == nil, err
}

// homeOf says whose a new token of a caller is: the tenant that they name, or the one in which they are an officer.
func (d *Desk) homeOf(ctx context.Context, asked string) (string, error) {
	r := reachOf(ctx)
	if officers.admits(r.desk) {
		return asked, d.knownTenant(asked)
	}
	var theirs []string
	for _, tenant := range slices.Sorted(maps.Keys(r.tenants)) {
		if officers.admits(r.tenants[tenant]) {
			theirs = append(theirs, tenant)
		}
	}
	switch {
	case slices.Contains(theirs, asked):
		return asked, nil
	case asked != "":
		return "", api.Errorf(api.Forbidden, "you are no officer of that tenant")
	case len(theirs) == 1:
		return theirs[0], nil
	}
	return "", api.Errorf(api.Invalid, "say whose it is: you are an officer of %d tenants", len(theirs))
}

func (d *Desk) knownTenant(name string) error {
	if _, ok := d.Tenants[name]; !ok && name != "" {
		return api.Errorf(api.Invalid, "there is no tenant of that name: the configuration has them as [tenants.NAME]")
	}
	return nil
}

// settled refuses to give tokens to another tenant, unless the caller is an officer of the whole desk.
func (d *Desk) settled(ctx context.Context, tenant string) error {
	if err := d.require(ctx, officers); err != nil {
		return err
	}
	return d.knownTenant(tenant)
}
