package main

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

const leaversHelp = `Who leaves stands in a queue, with a deadline, until every token of theirs has
come back or is given up. To put somebody there takes nothing from them. A
token that came back goes to the successor, by a reissue, or to stock. One that
did not is taken from its owner at once, and can still come back; one that is
written off is compromised as lost. What becomes of a token by other commands
is seen here without another word.`

const leaversPath = "/v1/leavers"

func leaversCommand() *cli.Command {
	yes := &cli.BoolFlag{Name: "yes", Usage: "do not ask for confirmation"}
	filters := []cli.Flag{
		&cli.BoolFlag{Name: "overdue", Usage: "only those whose deadline has passed"},
		&cli.BoolFlag{Name: "all", Usage: "also those of whom nothing is open"},
	}
	return &cli.Command{
		Name: "leavers", Usage: "see to it that the tokens of people who leave come back", Category: lifecycleCategory, Description: leaversHelp,
		Action: listLeavers, Flags: filters,
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "show the queue: who, which token, and what to do next", Action: listLeavers, Flags: filters},
			{
				Name: "add", Usage: "put somebody into the queue, or change what is said of them", ArgsUsage: "USER", Action: addLeaver,
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "successor", Usage: "who takes over and gets the token, a `USER`"},
					&cli.StringFlag{Name: "by", Usage: "everything is to be back by `DATE` (2031-12-31, or 2031-12-31T18:00); without it by the end of today"},
					&cli.StringFlag{Name: "words", Usage: "more about it, in `WORDS`"},
				},
			},
			{
				Name: "import", Usage: "put those of a list into the queue", ArgsUsage: "FILE|-", Action: importLeavers,
				Description: "The list is CSV, as spreadsheets write it. Its first line names the columns: " + strings.Join(leaverColumns, ",") +
					", of which user is needed. Every line has a result; one that is wrong stops no other.",
			},
			{
				Name: "settle", Usage: "say what has become of a leaver's token, or of all that are open", ArgsUsage: "USER [TOKEN] --returned|--not-returned|--written-off",
				Action: settleLeaver,
				Flags: []cli.Flag{
					&cli.BoolFlag{Name: "returned", Usage: "it came back: it goes to the successor, or to stock"},
					&cli.BoolFlag{Name: "not-returned", Usage: "it did not: whoever has it can no longer log in"},
					&cli.BoolFlag{Name: "written-off", Usage: "it will not: it is compromised as lost, for good"},
					&cli.StringFlag{Name: "reason", Usage: "more about it, in `WORDS` for the audit trail"}, yes,
				},
			},
			{Name: "remove", Usage: "take somebody out of the queue; their tokens stay as they are", ArgsUsage: "USER", Action: removeLeaver},
		},
	}
}

func listLeavers(c *cli.Context) error {
	if c.NArg() > 0 {
		return usage("there is no tokendesk leavers %s: see tokendesk leavers --help", harmless(c.Args().First()))
	}
	q := url.Values{}
	for _, name := range []string{"overdue", "all"} {
		if c.Bool(name) {
			q.Set(name, "true")
		}
	}
	var found api.Leavers
	if err := daemon(c).Get(c.Context, leaversPath, q, &found); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(found)
	}
	if len(found.Leavers) == 0 {
		words := "Nobody's token is to come back."
		if c.Bool("overdue") {
			words = "Nothing is overdue."
		}
		out.printf("%s\n", words)
		return nil
	}
	printLeavers(out, found.Leavers)
	if slices.ContainsFunc(found.Leavers, func(l api.Leaver) bool { return l.Open > 0 }) {
		out.say("What did not come back is settled by --not-returned instead of --returned, and what never will, by --written-off.")
	}
	return nil
}

// printLeavers shows a line for each token, with what is so and what comes next.
func printLeavers(out screen, leavers []api.Leaver) {
	nameWidth := 12 // which fits beside the other columns at their longest
	if out.width >= wide {
		nameWidth = 24
	}
	var rows []row
	for _, l := range leavers {
		deadline := day(l.Deadline)
		if l.Overdue {
			deadline = out.paint(text.FgRed, deadline+" OVERDUE")
		}
		who, heir := cut(l.User, nameWidth), cut(l.Successor, nameWidth)
		if len(l.Tokens) == 0 {
			rows = append(rows, row{cells: []string{who, "none", "settled", deadline, heir}})
		}
		for i, t := range l.Tokens {
			below := leaverLineBelow(out, t)
			if i == 0 && l.Words != "" {
				below = harmless(l.Words) + "\n" + below
			}
			rows = append(rows, row{[]string{who, t.Token, leaverState(out, t), deadline, heir}, below})
		}
	}
	out.table([]string{"LEAVER", "TOKEN", "STATE", "DEADLINE", "SUCCESSOR"}, rows)
}

// leaverState is what was said of a token, and settled for one that nothing was said of and nothing is due about.
func leaverState(out screen, t api.LeaverToken) string {
	switch {
	case t.Settled && t.State == "open":
		return out.paint(text.FgGreen, "settled")
	case t.Settled:
		return out.paint(text.FgGreen, t.State)
	}
	return out.paint(text.FgYellow, t.State)
}

func leaverLineBelow(out screen, t api.LeaverToken) string {
	fact := harmless(t.Fact)
	if strings.Contains(fact, " can still log in") {
		fact = out.paint(text.FgRed, fact)
	}
	if t.Words != "" {
		fact += fmt.Sprintf(" (%s: %s)", harmless(t.Officer), harmless(t.Words))
	}
	if t.Next != "" {
		fact += "\n→ " + t.Next
	}
	return fact
}

func addLeaver(c *cli.Context) error {
	args, err := arguments(c, "user")
	if err != nil {
		return err
	}
	in := api.NewLeaver{User: args[0], Successor: c.String("successor"), Words: c.String("words")}
	if err := sensibleLeaver(&in, c.String("by")); err != nil {
		return err
	}
	var added api.Added
	if err := daemon(c).Post(c.Context, leaversPath, in, &added); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(added)
	}
	l := added.Leaver
	line := fmt.Sprintf("%s is in the queue: everything is to be back by %s", l.User, moment(l.Deadline))
	if l.Successor != "" {
		line += fmt.Sprintf(", and %s takes over", l.Successor)
	}
	out.done("%s", line)
	for _, n := range added.Notes {
		out.wait("%s", harmless(n))
	}
	if len(l.Tokens) > 0 {
		printLeavers(out, []api.Leaver{l})
	}
	return nil
}

func removeLeaver(c *cli.Context) error {
	user, err := leaverName(c.Args().First())
	if err != nil {
		return err
	}
	if _, err := arguments(c, "user"); err != nil {
		return err
	}
	var left api.Leavers
	if err := daemon(c).Post(c.Context, leaverPath(user)+"/remove", nil, &left); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(left)
	}
	out.done("%s is no longer in the queue; their tokens stay as they are", user)
	return nil
}

func leaverPath(user string) string { return leaversPath + "/" + url.PathEscape(user) }

func leaverName(name string) (string, error) {
	if name == "" {
		return "", usage("name the user: tokendesk leavers --help")
	}
	return name, sensibleUser(name)
}

func harmlessEach(all []string) []string {
	out := make([]string, len(all))
	for i, words := range all {
		out[i] = harmless(words)
	}
	return out
}
