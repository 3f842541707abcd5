package main

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

const (
	// shownActs is how much of a token's history show prints, of readActs entries: what was confirmed centrally is left out.
	shownActs = 10
	readActs  = 50
	// centralPatience is how long show waits for the central service: the rest is there without it.
	centralPatience = 3 * time.Second
)

// shown is all that show tells of a token.
type shown struct {
	api.Token
	There   *api.UserToken `json:"there,omitempty"`
	Custody []api.Handover `json:"handovers"`
	History []api.Act      `json:"history"`
}

func show(c *cli.Context) error {
	path, err := tokenPath(c)
	if err != nil {
		return err
	}
	var s shown
	if err := daemon(c).Get(c.Context, path, nil, &s.Token); err != nil {
		return err
	}
	var history api.Acts
	if err := daemon(c).Get(c.Context, path+"/history", url.Values{"limit": {strconv.Itoa(readActs)}}, &history); err != nil {
		return err
	}
	var custody api.Handovers
	if err := daemon(c).Get(c.Context, path+"/handovers", url.Values{"limit": {strconv.Itoa(shownActs)}}, &custody); err != nil {
		return err
	}
	s.History, s.Custody = decisive(history.Acts), append([]api.Handover{}, custody.Handovers...)
	s.There = there(c, s.Token)
	out := output(c)
	if out.json {
		return out.printJSON(s)
	}
	printToken(out, s)
	return nil
}

// decisive leaves out that a change arrived at the central service, as most do: the outbox says what did not.
func decisive(acts []api.Act) []api.Act {
	some := []api.Act{}
	for _, a := range acts {
		if arrived := strings.HasPrefix(a.Action, "push ") && a.Outcome == "done"; !arrived && len(some) < shownActs {
			some = append(some, a)
		}
	}
	return some
}

// there is what the central service has of a token that belongs to somebody; what belongs to nobody is not accepted anywhere.
func there(c *cli.Context, t api.Token) *api.UserToken {
	if t.Owner == "" || t.Central == "" {
		return nil
	}
	ctx, enough := context.WithTimeout(c.Context, centralPatience)
	defer enough()
	var u api.UserTokens
	if err := daemon(c).Get(ctx, "/v1/users/"+url.PathEscape(t.Owner), nil, &u); err != nil {
		if ctx.Err() != nil {
			return &api.UserToken{Central: t.Central, Problem: fmt.Sprintf("no answer within %v", centralPatience)}
		}
		return &api.UserToken{Central: t.Central, Problem: err.Error()}
	}
	for _, known := range u.Tokens {
		if known.Central == t.Central {
			return &known
		}
	}
	return &api.UserToken{Central: t.Central, Problem: or(u.Problem, "it is not there")}
}

func printToken(out screen, s shown) {
	t := s.Token
	status := out.status(t.Status)
	if l := t.Loss; l != nil {
		status += fmt.Sprintf(": %s on %s", l.Kind, moment(l.Time))
		if l.Words != "" {
			status += ", " + harmless(l.Words)
		}
	}
	owner := or(t.Owner, "nobody (stock)")
	if t.Loss != nil {
		owner = "nobody; last " + or(t.Loss.Owner, "nobody, too")
	}
	device := t.Device
	if t.Firmware != "0.0.0" {
		device += ", firmware " + t.Firmware
	}
	if t.Emulated {
		device += ", " + out.paint(text.FgMagenta, "EMULATED")
	}
	if t.Wiped != nil {
		device += ", erased on " + moment(*t.Wiped)
	}
	var rows [][2]string
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, [2]string{name, value})
		}
	}
	add("Token", t.ID)
	add("Status", status)
	add("Owner", owner)
	add("Address", harmless(t.Address))
	add("Description", harmless(t.Description))
	add("Type", kind(t))
	add("Out of date", out.paint(text.FgYellow, harmless(t.OutOfDate)))
	add("Device", device)
	add("Batch", harmless(t.Batch))
	add("Tenant", harmless(t.Tenant))
	if t.Digits > 0 {
		add("Next counter", nextCounter(out, t))
		add("Seed", seed(t))
	}
	if isPIV(t.ID) {
		add("Certificates", strings.Join(certificatesOf(out, t), "\n"))
	} else {
		add("Last used", strings.Replace(lastUsed(t), "never", "never seen by the desk", 1))
	}
	add("Expires", expires(t))
	add("Updated", moment(t.Updated))
	add("Created", moment(t.Created))
	add("Central name", t.Central)
	if s.There != nil {
		add("Centrally", centrally(out, *s.There))
	}
	if !isPIV(t.ID) { // no central service is told of those
		add("Outbox", pushes(out, t))
	}
	if t.Unfinished != "" {
		add("Unfinished", out.paint(text.FgRed, t.Unfinished)+"; settle it: tokendesk resolve "+t.ID)
	}
	add("Due", out.paint(text.FgYellow, harmless(t.Due)))
	add("Replaces", t.Replaces)
	add("Replaced by", t.ReplacedBy)
	add("Possible now", or(strings.Join(t.Actions, ", "), "nothing"))
	out.fields(rows)
	printCustody(out, s.Custody, false)
	printHistory(out, s.History)
}

func kind(t api.Token) string {
	k := harmless(or(t.TypeName, t.Type))
	if t.Digits > 0 {
		k += fmt.Sprintf(", %d digits", t.Digits)
	}
	if t.Identifier {
		k += ", types its token identifier first"
	}
	return k
}

func nextCounter(out screen, t api.Token) string {
	n := strconv.FormatUint(t.Counter, 10)
	if t.Stale {
		n += "; " + out.paint(text.FgRed, "restored from a backup, and old: resync before use") + ", with tokendesk resync " + t.ID
	}
	return n
}

func seed(t api.Token) string {
	if t.Generation == 0 {
		return "not verified yet, sealed in the vault"
	}
	return fmt.Sprintf("generation %d, sealed in the vault", t.Generation)
}

func expires(t api.Token) string {
	switch {
	case t.Expires == nil:
		return "never"
	case t.Status == "expired":
		return fmt.Sprintf("%s; to give it more time: tokendesk edit %s --expires DATE", moment(*t.Expires), t.ID)
	}
	return moment(*t.Expires)
}

// centrally says how the central service has a token.
func centrally(out screen, t api.UserToken) string {
	if t.There == nil {
		return out.paint(text.FgYellow, "not read: "+or(harmless(t.Problem), "nobody knows it"))
	}
	line := seenCell(*t.There)
	if more := differencesBelow(out, t.Differences); more != "" {
		line += "\n" + more
	}
	return line
}

func pushes(out screen, t api.Token) string {
	if t.Waiting == 0 {
		return "nothing waits in the outbox"
	}
	return out.paint(text.FgYellow, fmt.Sprintf("%s in the outbox: see tokendesk outbox", changes(t.Waiting)))
}

// printHistory shows what was done with a token, newest first.
func printHistory(out screen, acts []api.Act) {
	if len(acts) == 0 {
		return
	}
	var rows []row
	for _, a := range acts {
		what := harmless(a.Action)
		if a.Outcome != "done" {
			what += " " + out.paint(colourOfTrouble, harmless(a.Outcome))
		}
		rows = append(rows, row{cells: []string{moment(a.Time), cut(harmless(a.Officer), 12), what, harmless(a.Reason)}})
	}
	out.printf("\n")
	out.table([]string{"WHEN", "WHO", "WHAT WAS DONE", "WHY"}, rows)
}
