package main

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

const takeOver = "take-over"

func centralCommands() []*cli.Command {
	return []*cli.Command{
		{
			Name: "drift", Usage: "compare the desk with every provider of the central service, and repair what differs", ArgsUsage: "[TOKEN ...]",
			Category: "Look", Action: drift,
			Description: "Without --repair nothing is changed. A repair is shown first, and asks. It puts the providers back to what the desk says; " +
				"with --take-over the desk gives in to what was changed in the server's own tools, where that opens nothing. " +
				"What is open there and must not be is closed by either.",
			Flags: []cli.Flag{
				&cli.BoolFlag{Name: "repair", Usage: "show a plan, ask, and carry it out"},
				&cli.BoolFlag{Name: takeOver, Usage: "with --repair: take over what was changed in the server's own tools"},
				&cli.BoolFlag{Name: "yes", Usage: "do not ask for confirmation"},
			},
		},
		userCommand(),
	}
}

func drift(c *cli.Context) error {
	tokens := c.Args().Slice()
	for _, t := range tokens {
		if _, err := pathOf(t); err != nil {
			return err
		}
	}
	if c.Bool("repair") {
		return repair(c, tokens)
	}
	if c.Bool(takeOver) {
		return usage("--take-over goes with --repair")
	}
	var found api.Drift
	if err := daemon(c).Get(c.Context, "/v1/drift", url.Values{"token": tokens}, &found); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return errors.Join(out.printJSON(found), breached(found))
	}
	printDrift(out, found)
	return breached(found)
}

// breached is an error if something is open that must not be.
func breached(d api.Drift) error {
	if d.Breaches == 0 {
		return nil
	}
	return api.Errorf(api.Unfinished, "%s: put it back with tokendesk drift --repair",
		these(d.Breaches, "1 token IS OPEN at the central service and must not be", "%d tokens ARE OPEN at the central service and must not be"))
}

func printDrift(out screen, d api.Drift) {
	for _, m := range d.Missing {
		out.say("%s %s", out.paint(text.FgYellow, "Not read:"), m)
	}
	if len(d.Rows) > 0 {
		var rows []row
		for _, r := range d.Rows {
			cells := []string{or(r.Token, r.Central), hereCell(r.Desk, r.Deleted)}
			for _, t := range r.There {
				cells = append(cells, thereCell(t))
			}
			rows = append(rows, row{cells, differencesBelow(out, r.Differences)})
		}
		out.table(append([]string{"TOKEN", "DESK"}, headings(d.Providers)...), rows)
	}
	switch {
	case d.Differ == 0:
		out.done("desk and central service agree on %s", these(d.Agree, "1 token", "%d tokens"))
	default:
		line := fmt.Sprintf("%d agree, %d differ", d.Agree, d.Differ)
		if d.Settling > 0 {
			line += fmt.Sprintf(", %d of them until the outbox has settled it", d.Settling)
		}
		out.wait("%s", line)
	}
	if more := d.Differ - len(d.Rows); more > 0 && len(d.Rows) > 0 {
		out.say("%d more differ.", more)
	}
}

// headings name the providers, short enough for a column: a host, and the port if that tells two apart.
func headings(providers []string) (all []string) {
	for _, p := range providers {
		if u, err := url.Parse(p); err == nil && u.Host != "" {
			p = u.Host
		}
		all = append(all, strings.ToUpper(cut(p, 24)))
	}
	return all
}

func deskCell(d *api.DeskSide) string {
	if d == nil {
		return "unknown"
	}
	return fmt.Sprintf("%s, %s, at %d", or(d.Owner, "stock"), d.Status, d.Counter)
}

func thereCell(t api.There) string {
	switch {
	case t.Problem != "":
		return "not read"
	case !t.Exists:
		return "missing"
	}
	open := "on"
	if !t.Enabled {
		open = "off"
	}
	return fmt.Sprintf("%s, %s, at %d", or(t.Owner, "stock"), open, t.Counter)
}

func differencesBelow(out screen, all []api.Difference) string {
	var lines []string
	for _, x := range all {
		line := x.Provider + ": " + x.Text
		switch {
		case x.Breach:
			line = out.paint(text.FgRed, "BREACH") + " " + line
		case x.Pending != "":
			line += "; " + x.Pending
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func repair(c *cli.Context, tokens []string) error {
	choice := api.RepairChoice{Choice: "put-back", Tokens: tokens}
	if c.Bool(takeOver) {
		choice.Choice = takeOver
	}
	var plan api.RepairPlan
	if err := daemon(c).Post(c.Context, "/v1/drift/plan", choice, &plan); err != nil {
		return err
	}
	out := output(c)
	if out.json && !c.Bool("yes") {
		return out.printJSON(plan)
	}
	if !out.json {
		printPlan(out, plan)
	}
	done := api.Repaired{Changes: []api.Change{}}
	if len(plan.Steps) > 0 {
		if err := confirm(c, "%s will be repaired", these(len(plan.Steps), "1 token", "%d tokens")); err != nil {
			return err
		}
		if err := daemon(c).Post(c.Context, "/v1/drift/repair", api.Repair{RepairChoice: choice, Digest: plan.Digest}, &done); err != nil {
			return err
		}
	}
	if out.json {
		return errors.Join(out.printJSON(done), stillOpen(done.Changes))
	}
	if done.Steps == 0 {
		return nil
	}
	confirmed := 0
	for _, ch := range done.Changes {
		if ch.State == "confirmed" {
			confirmed++
			continue
		}
		out.wait("%s of %s is %s", ch.Kind, ch.Token, ch.State)
	}
	out.done("repaired %s, with %s", these(done.Steps, "1 token", "%d tokens"), these(confirmed, "1 confirmed change", "%d confirmed changes"))
	if done.More > 0 {
		out.wait("%d more changes are on their way: tokendesk outbox", done.More)
	}
	return stillOpen(done.Changes)
}

func printPlan(out screen, p api.RepairPlan) {
	if len(p.Steps) == 0 && len(p.Skipped) == 0 {
		out.done("there is nothing to repair")
	}
	var rows []row
	for _, s := range p.Steps {
		do := s.Do
		if s.Breach {
			do = out.paint(text.FgRed, "BREACH") + " " + do
		}
		rows = append(rows, row{[]string{s.Token, do}, s.Why})
	}
	if len(rows) > 0 {
		out.table([]string{"TOKEN", "WILL BE REPAIRED"}, rows)
	}
	rows = nil
	for _, s := range p.Skipped {
		rows = append(rows, row{cells: []string{s.Central, s.Why}})
	}
	if len(rows) > 0 {
		out.table([]string{"TOKEN", "IS LEFT ALONE"}, rows)
	}
}

// rollbackLine says in one sentence what happened, and whether it is over.
func rollbackLine(r api.Rollback) string {
	end := "and still are"
	if r.Repaired != nil {
		end = "until " + r.Repaired.Local().Format(time.DateTime)
	}
	return fmt.Sprintf("%s went back from %d to %d in %s: used codes were accepted again, from %s at the earliest %s",
		r.Provider, r.From, r.To, r.Token, r.LastGood.Local().Format(time.DateTime), end)
}
