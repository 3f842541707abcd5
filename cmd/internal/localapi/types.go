package localapi

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
)

// Naming is what the administrator says of a type of token. Its zero value leaves it to the desk.
type Naming struct {
	Name        string
	Description string
	Retired     bool   // none is enrolled any more
	Instead     string // what to register instead
	Offered     bool   // of a type whose codes are sent: somebody sends them
}

// names is what types are called where the administrator says nothing, beside those of package device.
var names = map[string]Naming{
	provision.TypeFob:   {Name: "Fob (HOTP)", Description: "A fob that shows a one-time password, and has come with its seed"},
	provision.TypePIV:   {Name: "YubiKey (PIV)", Description: "Keys on a YubiKey's smart card that log in by certificates"},
	provision.TypeMail:  {Name: "Mail", Description: "One-time passwords that are sent by mail"},
	provision.TypePhone: {Name: "Phone", Description: "One-time passwords that are sent to a telephone"},
}

// naming is a type as it is shown.
func (d *Desk) naming(code string) Naming {
	n := d.Types[code]
	t := device.Types[code]
	n.Name = cmp.Or(n.Name, names[code].Name, t.Name, code)
	n.Description = cmp.Or(n.Description, names[code].Description, t.Description)
	return n
}

// retirement says that a type is retired, and what to register instead; empty if it is not.
func (d *Desk) retirement(code string) string {
	n := d.naming(code)
	switch {
	case !n.Retired:
		return ""
	case n.Instead == "":
		return n.Name + " is retired"
	}
	return fmt.Sprintf("%s is retired: register %s instead", n.Name, n.Instead)
}

// outOfDate says why a token should be replaced; empty if it need not be.
func (d *Desk) outOfDate(t vault.Token) string {
	if t.Status == vault.Compromised {
		return ""
	}
	if t.Status == vault.Expired || !t.Expires.IsZero() && !t.Expires.After(time.Now()) {
		text := "its time was over on " + t.Expires.UTC().Format(time.DateOnly)
		if retired := d.retirement(provision.TypeOf(t.ID).Code); retired != "" {
			return text + "; " + retired
		}
		return text + ": give it more, or register another"
	}
	return d.retirement(provision.TypeOf(t.ID).Code)
}

func (d *Desk) types(context.Context, *nothing) (api.Types, error) {
	out := api.Types{Types: []api.Type{}}
	for _, t := range provision.Types() {
		n := d.naming(t.Code)
		out.Types = append(out.Types, api.Type{
			Code: t.Code, Name: n.Name, Description: n.Description, Offered: d.unavailable(t.Code) == "", Retired: n.Retired, Instead: n.Instead, Actions: actions(t.Actions),
		})
	}
	return out, nil
}

func actions(all []provision.Action) []string {
	out := []string{}
	for _, a := range all {
		out = append(out, string(a))
	}
	return out
}

// offered are the actions that a caller can take on a token as it is.
func offered(ctx context.Context, t vault.Token) []string {
	roles := reachOf(ctx).in(t.Tenant)
	return actions(slices.DeleteFunc(provision.Allowed(t), func(a provision.Action) bool { return !rolesFor(a).admits(roles) }))
}

// rules is the table of what may be done with a token.
func (d *Desk) rules(context.Context, *nothing) (api.Lifecycle, error) {
	out := api.Lifecycle{Rules: []api.LifecycleRule{}}
	for _, r := range provision.Lifecycle() {
		shown := api.LifecycleRule{
			Action: string(r.Action), From: []string{}, Owner: string(r.Ownership), To: string(r.To), Pushes: kinds(r.Pushes),
			Role: r.Role, Reason: r.Reason, Permanent: r.Permanent, Text: effect(r),
		}
		for _, s := range r.From {
			shown.From = append(shown.From, string(s))
		}
		out.Rules = append(out.Rules, shown)
	}
	return out, nil
}

// effect says in words what a rule does.
func effect(r provision.Rule) string {
	var what []string
	if r.Device {
		what = append(what, "with the device at hand")
	}
	switch {
	case r.Gone:
		what = append(what, "it leaves the inventory")
	case r.To != "":
		what = append(what, "it becomes "+string(r.To))
	default:
		what = append(what, "its status stays")
	}
	if r.Frees {
		what = append(what, "it belongs to nobody then")
	}
	if r.Permanent {
		what = append(what, "for good")
	}
	return strings.Join(what, ", ")
}
