package localapi

import (
	"context"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/sys/unix"

	"tokendesk/cmd/internal/api"
	"tokendesk/provision"
)

// Roles names the Unix groups whose members have each role. Where none is named only root and the daemon's own user have the
// role; officers may audit as well then.
type Roles struct {
	Officers, Approvers, Auditors, Administrators string
}

// Groups are the groups that are named, each once.
func (r Roles) Groups() []string {
	all := []string{r.Officers, r.Approvers, r.Auditors, r.Administrators}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(g string) bool { return g == "" })
}

// group is the group whose members have a role; empty if there is none.
func (r Roles) group(role string) string {
	switch role {
	case provision.RoleOfficer:
		return r.Officers
	case provision.RoleApprover:
		return r.Approvers
	case provision.RoleAuditor:
		if r.Auditors == "" {
			return r.Officers
		}
		return r.Auditors
	case provision.RoleAdministrator:
		return r.Administrators
	}
	return ""
}

// access is the roles of which a caller needs one.
type access struct {
	roles []string
	// tenants says that it is enough to have it in a tenant: what is asked for is about tokens, and others' are out of reach.
	tenants bool
}

// What routes ask for.
var (
	everyone       = anyOf(provision.RoleOfficer, provision.RoleApprover, provision.RoleAuditor, provision.RoleAdministrator)
	officers       = anyOf(provision.RoleOfficer)
	approvers      = anyOf(provision.RoleApprover)
	auditors       = anyOf(provision.RoleAuditor)
	administrators = anyOf(provision.RoleAdministrator)
)

func anyOf(roles ...string) access { return access{roles: roles} }

// inTenants is the same roles, be it in a tenant only.
func (a access) inTenants() access { return access{a.roles, true} }

func (a access) admits(roles []string) bool {
	return slices.ContainsFunc(a.roles, func(role string) bool { return slices.Contains(roles, role) })
}

// rolesOf are the roles of a peer. They are asked for at every request, so that whoever has left a group is out at once.
func (d *Desk) rolesOf(p peer) (r reach) {
	if !p.known {
		return r
	}
	if p.uid == 0 || int(p.uid) == unix.Geteuid() {
		r.desk = everyone.roles
		return r
	}
	u, err := user.LookupId(strconv.FormatUint(uint64(p.uid), 10))
	if err != nil {
		return r
	}
	groups, err := u.GroupIds()
	if err != nil {
		return r
	}
	in := func(all Roles) (roles []string) {
		for _, role := range everyone.roles {
			name := all.group(role)
			if name == "" {
				continue
			}
			if g, err := user.LookupGroup(name); err == nil && slices.Contains(groups, g.Gid) {
				roles = append(roles, role)
			}
		}
		return roles
	}
	r.desk = in(d.Roles)
	for tenant, all := range d.Tenants {
		if roles := in(all); len(roles) > 0 {
			if r.tenants == nil {
				r.tenants = map[string][]string{}
			}
			r.tenants[tenant] = roles
		}
	}
	return r
}

// require refuses a caller who has none of some roles, and says how to get one.
func (d *Desk) require(ctx context.Context, a access) error {
	r := reachOf(ctx)
	if a.admits(r.desk) || a.tenants && r.somewhere(a) {
		return nil
	}
	whole := ""
	if r.somewhere(a) {
		whole = ", of the whole desk"
	}
	return api.Errorf(api.Forbidden, "this takes the role %s%s: %s", strings.Join(a.roles, " or "), whole, d.admission(officer(ctx).Name, a))
}

// admission says how somebody comes to one of some roles.
func (d *Desk) admission(name string, a access) string {
	for _, role := range a.roles {
		if g := d.Roles.group(role); g != "" {
			return fmt.Sprintf("have an administrator run 'adduser %s %s', then log in again", name, g)
		}
	}
	return fmt.Sprintf("the configuration names no group for it ([roles] %ss), so that only root has it", a.roles[0])
}

// guarded declares what an operation takes, and has that checked before anything else of a request is looked at.
func (d *Desk) guarded(op huma.Operation, a access) huma.Operation {
	op.Extensions = map[string]any{"x-roles": a.roles}
	if a.tenants {
		op.Extensions["x-tenants"] = true // a role in the tokens' tenant is enough
	}
	op.Middlewares = huma.Middlewares{func(hc huma.Context, next func(huma.Context)) {
		if err := d.require(hc.Context(), a); err != nil {
			(&lines{ctx: hc}).fail(d.conclude(hc.Context(), op, nil, err))
			return
		}
		next(hc)
	}}
	return op
}
