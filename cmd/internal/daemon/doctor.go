package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/user"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/keys"
	"tokendesk/cmd/internal/localapi"
	"tokendesk/device"
	"tokendesk/device/usbhid"
	"tokendesk/provision"
	"tokendesk/vault"
)

// doctor looks at everything the desk needs, and names what is broken with its cure.
func (d *Daemon) doctor(desk *localapi.Desk) func(context.Context) []api.Finding {
	return func(ctx context.Context) []api.Finding {
		return slices.Concat(d.checkVault(desk), d.checkProcess(), d.checkBuses(desk), d.checkCards(desk), d.checkCentral(ctx, desk), d.checkNotices(ctx, desk), d.checkWork(desk))
	}
}

func good(area, format string, args ...any) api.Finding {
	return api.Finding{Area: area, OK: true, Text: fmt.Sprintf(format, args...)}
}

func bad(area, cure, format string, args ...any) api.Finding {
	return api.Finding{Area: area, Text: fmt.Sprintf(format, args...), Cure: cure}
}

func (d *Daemon) checkProcess() []api.Finding {
	var found []api.Finding
	if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || dumpable != 0 {
		found = append(found, bad("process", "start the desk as tokendeskd", "its memory could reach a core dump"))
	} else {
		found = append(found, good("process", "its memory stays out of core dumps"))
	}
	return append(found, d.checkRoles()...)
}

// checkRoles looks for the groups that the configuration names.
func (d *Daemon) checkRoles() (found []api.Finding) {
	roles := d.Config.Roles
	type named struct{ key, group, of string }
	all := []named{
		{"officers", roles.Officers, ""}, {"approvers", roles.Approvers, ""}, {"auditors", roles.Auditors, ""}, {"administrators", roles.Administrators, ""},
	}
	for _, name := range slices.Sorted(maps.Keys(d.Config.Tenants)) {
		t, of := d.Config.Tenants[name], " of the tenant "+name
		all = append(all, named{"officers", t.Officers, of}, named{"approvers", t.Approvers, of}, named{"auditors", t.Auditors, of})
	}
	for _, r := range all {
		if r.group == "" {
			continue
		}
		if _, err := user.LookupGroup(r.group); err != nil {
			found = append(found, bad("access", "addgroup --system "+r.group, "the group %s, whose members are to be %s%s, does not exist", r.group, r.key, r.of))
		} else {
			found = append(found, good("access", "members of the group %s are %s%s", r.group, r.key, r.of))
		}
	}
	policy := d.Config.Policy
	switch {
	case len(found) == 0:
		found = append(found, good("access", "only root and the daemon's own user may call; roles.officers opens it to officers"))
	case roles.Approvers == "" && (policy.ApproveLastToken || policy.ApproveCompromiseOver > 0):
		found = append(found, bad("access", "name a group in the configuration: [roles] approvers", "the policy wants a second officer's approval, and only root can give it"))
	}
	return found
}

func (d *Daemon) checkBuses(desk *localapi.Desk) []api.Finding {
	var found []api.Finding
	problems := desk.Keys.BusProblems()
	if len(problems) == 0 {
		found = append(found, bad("devices", "set devices.usb = true in the configuration", "no bus is configured: no key can be seen"))
	}
	for name, problem := range problems {
		if problem == "" {
			found = append(found, watched(name))
		} else {
			found = append(found, bad("devices", "mend it, or take the bus out of the configuration ([devices])", "bus %s: %s", name, problem))
		}
	}
	slices.SortFunc(found, func(a, b api.Finding) int { return strings.Compare(a.Text, b.Text) })
	for _, k := range desk.Keys.List() {
		switch {
		case k.New:
		case k.Problem != "":
			found = append(found, bad("devices", k.Cure, "%s", k.Problem))
		default:
			found = append(found, inserted(k))
		}
	}
	return found
}

// watched says how a bus is watched.
func watched(bus string) api.Finding {
	if why := (usbhid.Bus{}).Polling(); bus == (usbhid.Bus{}).Name() && why != nil {
		return bad("devices", "let the desk have netlink sockets (RestrictAddressFamilies= of its unit)",
			"bus %s is only looked at four times a second, because the kernel's events cannot be had: %v", bus, why)
	}
	return good("devices", "bus %s is watched", bus)
}

// inserted looks at a key that was identified, without opening it.
func inserted(k keys.Key) api.Finding {
	name := name(k)
	if k.Bus == (usbhid.Bus{}).Name() {
		if err := (usbhid.Bus{}).Examine(k.Info); err != nil {
			problem, cure := device.Cure(err)
			return bad("devices", cure, "%s on %s port %s: %s", name, k.Bus, k.Info.Port, problem)
		}
	}
	return good("devices", "%s is inserted, firmware %s", name, k.Firmware)
}

func (d *Daemon) checkCentral(ctx context.Context, desk *localapi.Desk) []api.Finding {
	if desk.Connector == nil {
		return []api.Finding{good("central", "no central service is configured: changes wait in the outbox")}
	}
	var found []api.Finding
	for _, p := range desk.Connector.Check(ctx) {
		found = append(found, bad("central", p.Cure, "%s: %s", desk.Connector.Name(), p.What))
	}
	if len(found) == 0 {
		found = append(found, good("central", "%s answers and grants what the desk needs", desk.Connector.Name()))
	}
	return found
}

// shownParked is how many parked changes doctor tells of by name.
const shownParked = 20

func (d *Daemon) checkWork(desk *localapi.Desk) []api.Finding {
	var found []api.Finding
	err := desk.Vault.View(func(tx *vault.Tx) error {
		jobs, err := tx.Jobs()
		if err != nil {
			return err
		}
		for _, j := range jobs {
			found = append(found, bad("work", "tokendesk resolve "+string(j.Token), "%s: %s", j.Token, provision.Waiting(j)))
		}
		if n := tx.Counts().Revocations; n > 0 {
			found = append(found, bad("cards", "tokendesk piv revocations", "certificates to be revoked at their issuers: %d", n))
		}
		parked, err := tx.ParkedFrom(0, shownParked)
		for _, c := range parked {
			why := c.Problem
			if c.Reason != "" {
				why = c.ParkedBy.Name + " did: " + c.Reason
			}
			found = append(found, bad("outbox", fmt.Sprintf("mend the cause, then tokendesk outbox retry %d", c.Seq), "%s of %s is parked: %s", c.Kind, c.Token, why))
		}
		if more := tx.Counts().Parked - len(parked); more > 0 {
			found = append(found, bad("outbox", "tokendesk outbox list --state parked", "%d more changes are parked", more))
		}
		return err
	})
	if state := (*vault.StateError)(nil); err != nil && !errors.As(err, &state) { // a state is told as that of the vault
		found = append(found, bad("vault", "see the log", "%v", err))
	}
	return found
}
