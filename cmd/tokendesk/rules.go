package main

import (
	"bytes"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

// rule is a row of the transition table: what an action does with a token in one of some statuses.
type rule struct {
	action    string
	from      []string
	owner     string // any, owned, stock
	to        string // empty: the status stays
	frees     bool   // the owner goes
	gone      bool   // the token goes
	pushes    []string
	reason    bool // always takes words
	permanent bool
	device    bool   // at hand
	role      string // empty: only the desk itself
}

// rules is a copy of provision.Lifecycle, which a test holds against it: the table is printed without a daemon, and the
// command line does not link what the daemon does.
var rules = []rule{
	{action: "test", from: fit, owner: anybody, pushes: []string{"advance"}, role: officer},
	{action: "resync", from: fit, owner: anybody, pushes: []string{"advance"}, role: officer},
	{action: "edit", from: []string{"pending", "active", "disabled", "limbo", "compromised"}, owner: anybody, role: officer},
	{action: "edit", from: []string{"expired"}, owner: anybody, to: "active", pushes: []string{"enable"}, role: officer},
	{action: "assign", from: []string{"active"}, owner: "stock", pushes: []string{"assign"}, role: officer},
	{action: "unassign", from: alive, owner: "owned", frees: true, pushes: []string{"unassign"}, role: officer},
	{action: "disable", from: []string{"active"}, owner: anybody, to: "disabled", pushes: []string{"disable"}, role: officer},
	{action: "enable", from: []string{"disabled"}, owner: anybody, to: "active", pushes: []string{"enable"}, role: officer},
	{action: "expire", from: []string{"active"}, owner: anybody, to: "expired", pushes: []string{"disable"}},
	{action: "reseed", from: []string{"active"}, owner: anybody, pushes: []string{"put"}, device: true, role: officer},
	{action: "reissue", from: []string{"active"}, owner: anybody, pushes: []string{"unassign", "put", "assign"}, device: true, role: officer},
	{action: "wipe", from: alive, owner: anybody, frees: true, gone: true, pushes: []string{"unassign", "remove"}, permanent: true, device: true, role: officer},
	{action: "wipe", from: []string{"compromised"}, owner: anybody, permanent: true, device: true, role: officer},
	{
		action: "compromise", from: alive, owner: anybody, to: "compromised", frees: true, pushes: []string{"unassign", "disable"},
		reason: true, permanent: true, role: officer,
	},
	{action: "delete", from: statuses, owner: anybody, frees: true, gone: true, pushes: []string{"remove"}, permanent: true, role: officer},
}

const (
	anybody = "any"
	officer = "officer"
)

var (
	alive = []string{"pending", "active", "disabled", "limbo", "expired"}
	fit   = []string{"active", "disabled"}
)

// lifecycle prints the table.
func lifecycle(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(wireRules())
	}
	printRules(out)
	return nil
}

func wireRules() api.Lifecycle {
	all := api.Lifecycle{Rules: []api.LifecycleRule{}}
	for _, r := range rules {
		all.Rules = append(all.Rules, api.LifecycleRule{
			Action: r.action, From: r.from, Owner: r.owner, To: r.to, Pushes: append([]string{}, r.pushes...), Role: r.role,
			Reason: r.reason, Permanent: r.permanent, Text: r.effect(),
		})
	}
	return all
}

const lifecycleIntro = `Status and owner of a token are separate facts: an active token without an
owner is stock. Nobody logs in with stock, or with a token that is not active.
What leaves a user without an active token takes a reason and, where the policy
says so, a second officer (tokendesk approvals). A reissue is reason enough, but
where it would take a second officer, the token is unassigned first. So it is
with a wipe. A compromise has its reason, and is never held up for this.`

func printRules(out screen) {
	out.printf("%s\n\n", lifecycleIntro)
	headings := []string{"ACTION", "STATUS", "OWNER", "BECOMES", "CENTRALLY"}
	if out.width >= wide {
		headings = append(headings, "ROLE", "NOTE")
	}
	var rows []row
	byRole := map[string][]string{}
	for _, r := range rules {
		if !slices.Contains(byRole[r.role], r.action) {
			byRole[r.role] = append(byRole[r.role], r.action)
		}
		cells := []string{r.action, among(r.from), r.owner, r.becomes(out), strings.Join(r.pushes, ", ")}
		if out.width >= wide {
			rows = append(rows, row{cells: append(cells, or(r.role, "the desk"), r.note(out))})
		} else {
			rows = append(rows, row{cells, r.note(out)})
		}
	}
	out.table(headings, rows)
	if out.width >= wide {
		return
	}
	out.printf("\n")
	for _, role := range slices.Sorted(maps.Keys(byRole)) {
		if role == "" {
			out.say("The desk does by itself: %s.", strings.Join(byRole[role], ", "))
		} else {
			out.say("The role %s: %s.", role, strings.Join(byRole[role], ", "))
		}
	}
}

// among names statuses, by those that are missing if these are fewer.
func among(some []string) string {
	var missing []string
	for _, s := range statuses {
		if !slices.Contains(some, s) {
			missing = append(missing, s)
		}
	}
	switch len(missing) {
	case 0:
		return "any"
	case 1, 2:
		return "any but " + strings.Join(missing, ", ")
	}
	return strings.Join(some, ", ")
}

func (r rule) becomes(out screen) string {
	switch {
	case r.gone:
		return out.paint(text.FgRed, "gone")
	case r.to == "compromised":
		return out.status(r.to)
	case r.to != "" && r.frees:
		return out.status(r.to) + ", stock"
	case r.frees:
		return "stock"
	}
	return out.status(r.to)
}

// note is what an action takes beside the role, and whether it can be taken back.
func (r rule) note(out screen) string {
	var notes []string
	if r.device {
		notes = append(notes, "with the device at hand")
	}
	if r.reason {
		notes = append(notes, "with a reason")
	}
	if r.permanent {
		notes = append(notes, out.paint(text.FgRed, "permanent"))
	}
	return strings.Join(notes, ", ")
}

// effect says in words what a rule does.
func (r rule) effect() string {
	plain := screen{}
	words := "stays as it is"
	if r.gone {
		words = "leaves the inventory"
	} else if b := r.becomes(plain); b != "" {
		words = "becomes " + b
	}
	if note := r.note(plain); note != "" {
		words += "; " + note
	}
	return words
}

// lifecycleHelp is the table as "tokendesk help lifecycle" shows it.
func lifecycleHelp() string {
	out := screenOn(os.Stdout)
	var page bytes.Buffer
	out.Writer = &page
	printRules(out)
	return page.String()
}

// types shows the types of tokens, as the administrator has named them.
func types(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	var found api.Types
	if err := daemon(c).Get(c.Context, "/v1/types", nil, &found); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(found)
	}
	var rows []row
	for _, t := range found.Types {
		state := "in use"
		if !t.Offered {
			state = "not offered"
		}
		if t.Retired {
			state = out.paint(text.FgYellow, "retired")
		}
		below := harmless(t.Description)
		if t.Instead != "" {
			below += "\nInstead: " + harmless(t.Instead)
		}
		rows = append(rows, row{[]string{t.Code, state, harmless(t.Name)}, below + "\nPossible: " + strings.Join(t.Actions, ", ")})
	}
	out.table([]string{"TYPE", "STATE", "NAME"}, rows)
	return nil
}
