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
type access []string

// What routes ask for.
var (
	everyone       = access{provision.RoleOfficer, provision.RoleApprover, provision.RoleAuditor, provision.RoleAdministrator}
	officers       = access{provision.RoleOfficer}
	approvers      = access{provision.RoleApprover}
	auditors       = access{provision.RoleAuditor}
	administrators = access{provision.RoleAdministrator}
)

func (a access) admits(roles []string) bool {
	return slices.ContainsFunc(a, func(role string) bool { return slices.Contains(roles, role) })
}

// rolesOf are the roles of a peer. They are asked for at every request, so that whoever has left a group is out at once.
func (d *Desk) rolesOf(p peer) []string {
	if !p.known {
		return nil
	}
	if p.uid == 0 || int(p.uid) == unix.Geteuid() {
		return everyone
	}
	u, err := user.LookupId(strconv.FormatUint(uint64(p.uid), 10))
	if err != nil {
		return nil
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil
	}
	var roles []string
	for _, role := range everyone {
		name := d.Roles.group(role)
		if name == "" {
			continue
		}
		if g, err := user.LookupGroup(name); err == nil && slices.Contains(groups, g.Gid) {
			roles = append(roles, role)
		}
	}
	return roles
}

// callers are the roles of who makes a request.
func callers(ctx context.Context) []string {
	roles, _ := ctx.Value(rolesKey).([]string)
	return roles
}

// require refuses a caller who has none of some roles, and says how to get one.
func (d *Desk) require(ctx context.Context, a access) error {
	if a.admits(callers(ctx)) {
		return nil
	}
	return api.Errorf(api.Forbidden, "this takes the role %s: %s", strings.Join(a, " or "), d.admission(officer(ctx).Name, a))
}

// admission says how somebody comes to one of some roles.
func (d *Desk) admission(name string, a access) string {
	for _, role := range a {
		if g := d.Roles.group(role); g != "" {
			return fmt.Sprintf("have an administrator run 'adduser %s %s', then log in again", name, g)
		}
	}
	return fmt.Sprintf("the configuration names no group for it ([roles] %ss), so that only root has it", a[0])
}

// guarded declares what an operation takes, and has that checked before anything else of a request is looked at.
func (d *Desk) guarded(op huma.Operation, a access) huma.Operation {
	op.Extensions = map[string]any{"x-roles": a}
	op.Middlewares = huma.Middlewares{func(hc huma.Context, next func(huma.Context)) {
		if err := d.require(hc.Context(), a); err != nil {
			(&lines{ctx: hc}).fail(d.conclude(hc.Context(), op, nil, err))
			return
		}
		next(hc)
	}}
	return op
}
