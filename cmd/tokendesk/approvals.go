package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

const approvalsHelp = `Some orders take a second officer: by policy what leaves a user without an
active token and the compromise of many tokens, and always to discard a
cut-off. Such an order waits here. It is bound to exactly what it would have
done when it was asked for: if anything of that has changed since, approving
it ends it, and it has to be asked for again. Whoever asked cannot approve.`

func approvalsCommand() *cli.Command {
	yes := &cli.BoolFlag{Name: "yes", Usage: "do not ask for confirmation"}
	return &cli.Command{
		Name: "approvals", Usage: "approve or reject what takes a second officer", Category: lifecycleCategory, Description: approvalsHelp, Action: group,
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "show what waits for a second officer", Action: listApprovals},
			{Name: "show", Usage: "show what exactly would happen", ArgsUsage: "NUMBER", Action: showApproval},
			{Name: "approve", Usage: "have it done", ArgsUsage: "NUMBER", Action: approve, Flags: []cli.Flag{yes}},
			{
				Name: "reject", Usage: "have it not done", ArgsUsage: "NUMBER --reason WORDS", Action: reject,
				Flags: []cli.Flag{&cli.StringFlag{Name: "reason", Usage: "why, in `WORDS` for the audit trail", Required: true}},
			},
		},
	}
}

const approvalsPath = "/v1/approvals"

func listApprovals(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	var found api.Approvals
	if err := daemon(c).Get(c.Context, approvalsPath, nil, &found); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(found)
	}
	if len(found.Approvals) == 0 {
		out.printf("Nothing waits for a second officer.\n")
		return nil
	}
	var rows []row
	for _, a := range found.Approvals {
		rows = append(rows, row{[]string{
			strconv.FormatUint(a.ID, 10), a.Action, cut(harmless(a.Object), max(20, out.width-60)), cut(harmless(a.Officer), 12), moment(a.Created), moment(a.Expires)[:len("2006-01-02")],
		}, harmless(a.Reason)})
	}
	out.table([]string{"NO", "ACTION", "OBJECT", "ASKED BY", "SINCE", "UNTIL"}, rows)
	return nil
}

// approval gets the one that the only argument names, and its path.
func approval(c *cli.Context) (a api.Approval, path string, err error) {
	args, err := arguments(c, "number of the approval")
	if err != nil {
		return a, "", err
	}
	id, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil || id == 0 {
		return a, "", usage("%q is not the number of an approval: tokendesk approvals list shows them", args[0])
	}
	path = fmt.Sprintf("%s/%d", approvalsPath, id)
	return a, path, daemon(c).Get(c.Context, path, nil, &a)
}

func showApproval(c *cli.Context) error {
	a, _, err := approval(c)
	if err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(a)
	}
	printApproval(out, a)
	return nil
}

func printApproval(out screen, a api.Approval) {
	out.fields([][2]string{
		{"Approval", strconv.FormatUint(a.ID, 10)},
		{"Action", harmless(a.Action) + " of " + harmless(a.Object)},
		{"Asked by", fmt.Sprintf("%s, %s", harmless(a.Officer), moment(a.Created))},
		{"Reason", or(harmless(a.Reason), "none")},
		{"Waits until", moment(a.Expires)},
		{"Effect", harmlessLines(a.Text)},
	})
}

func harmlessLines(lines []string) string {
	var all []string
	for _, l := range lines {
		all = append(all, harmless(l))
	}
	return strings.Join(all, "\n")
}

func approve(c *cli.Context) error {
	a, path, err := approval(c)
	if err != nil {
		return err
	}
	out := output(c)
	if !out.json && !c.Bool("yes") {
		printApproval(out, a)
	}
	if err := confirm(c, "%s of %s is carried out", a.Action, a.Object); err != nil {
		return err
	}
	var done api.Outcomes
	if err := daemon(c).Post(c.Context, path+"/approve", nil, &done); err != nil {
		return err
	}
	if out.json {
		return errors.Join(out.printJSON(done), stillOpen(done.Changes))
	}
	out.done("approval %d: %s of %s was carried out", a.ID, harmless(a.Action), harmless(a.Object))
	return acted(c, tokensOfOutcome(done), done)
}

// tokensOfOutcome names the tokens that an outcome knows of, also those that are gone.
func tokensOfOutcome(o api.Outcomes) (ids []string) {
	seen := map[string]bool{}
	add := func(id string) {
		if id != "" && !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	for _, ch := range o.Changes {
		add(ch.Token)
	}
	for _, t := range o.Tokens {
		add(t.ID)
	}
	return ids
}

func reject(c *cli.Context) error {
	a, path, err := approval(c)
	if err != nil {
		return err
	}
	var left api.Approvals
	if err := daemon(c).Post(c.Context, path+"/reject", api.Reason{Reason: c.String("reason")}, &left); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(left)
	}
	out.done("approval %d is rejected: %s of %s is not done", a.ID, harmless(a.Action), harmless(a.Object))
	return nil
}

// waits is an error if an order waits for a second officer instead of having been carried out.
func waits(a *api.Approval) error {
	if a == nil {
		return nil
	}
	return api.Errorf(api.Refused, "nothing was done yet: it takes a second officer, and waits for one as approval %d: tokendesk approvals approve %d", a.ID, a.ID)
}

// printWaiting shows an order that waits.
func printWaiting(out screen, a api.Approval) {
	for _, line := range a.Text {
		out.wait("%s", harmless(line))
	}
	out.wait("%s", out.paint(text.FgYellow, fmt.Sprintf("approval %d waits for a second officer until %s", a.ID, moment(a.Expires))))
}
