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

func userCommand() *cli.Command {
	return &cli.Command{
		Name: "user", Usage: "look at users", Category: "Look", Action: group,
		Subcommands: []*cli.Command{
			{Name: "show", Usage: "show all tokens of a user, central ones included, and what can be done", ArgsUsage: "USER", Action: showUser},
		},
	}
}

func showUser(c *cli.Context) error {
	args, err := arguments(c, "user")
	if err != nil {
		return err
	}
	if err := sensibleUser(args[0]); err != nil {
		return err
	}
	var u api.UserTokens
	if err := daemon(c).Get(c.Context, "/v1/users/"+url.PathEscape(args[0]), nil, &u); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(u)
	}
	printUser(out, u)
	return nil
}

func printUser(out screen, u api.UserTokens) {
	if u.Problem != "" {
		out.say("%s %s", out.paint(text.FgYellow, "Centrally:"), harmless(u.Problem))
	}
	if u.Leaver != nil {
		out.say("%s", out.paint(text.FgYellow, leaving(*u.Leaver)))
	}
	var rows []row
	for _, t := range u.Tokens {
		there := harmless(t.Problem)
		switch {
		case t.There != nil:
			there = seenCell(*t.There)
		case t.Central == "":
			there = "is not told of it"
		}
		rows = append(rows, row{[]string{or(t.Token, harmless(t.Central)), hereCell(t.Desk, t.Deleted), there}, userTokenBelow(out, t)})
	}
	if len(rows) > 0 {
		out.table([]string{"TOKEN", "DESK", "CENTRAL"}, rows)
	} else {
		out.printf("%s has no token.\n", u.User)
	}
	printCustody(out, u.Handovers, true)
	printAddable(out, u)
}

// leaving says that somebody leaves, and what becomes of their tokens.
func leaving(l api.Leaver) string {
	line := fmt.Sprintf("%s leaves by %s", l.User, day(l.Deadline))
	switch {
	case l.Open == 0:
		line = fmt.Sprintf("%s is in the queue of leavers since %s, and nothing is open", l.User, day(l.Created))
	case l.Overdue:
		line = fmt.Sprintf("%s was to leave by %s, and something is OVERDUE", l.User, day(l.Deadline))
	}
	if l.Successor != "" {
		line += "; " + l.Successor + " takes over"
	}
	if l.Open > 0 {
		line += ": see tokendesk leavers"
	}
	return line
}

func userTokenBelow(out screen, t api.UserToken) string {
	var lines []string
	add := func(words string) {
		if words != "" {
			lines = append(lines, words)
		}
	}
	add(differencesBelow(out, t.Differences))
	if t.Waiting > 0 {
		add(changes(t.Waiting) + " in the outbox")
	}
	switch {
	case !t.Ours:
		add("not of this desk: it is changed with the tools that have made it")
	case len(t.Actions) > 0:
		add("possible: " + strings.Join(t.Actions, ", "))
	}
	return strings.Join(lines, "\n")
}

// printAddable shows which types of tokens could be added, and why others cannot now.
func printAddable(out screen, u api.UserTokens) {
	var can, problems []string
	cannot := map[string][]string{}
	for _, t := range u.Types {
		name := harmless(or(t.Name, t.Code))
		if t.Problem == "" {
			can = append(can, name)
			continue
		}
		if !slices.Contains(problems, t.Problem) {
			problems = append(problems, t.Problem)
		}
		cannot[t.Problem] = append(cannot[t.Problem], name)
	}
	if len(can)+len(problems) > 0 {
		out.printf("\n")
	}
	if len(can) > 0 {
		out.say("Can be added: %s", strings.Join(can, ", "))
	}
	for _, p := range problems {
		out.say("Cannot be added now: %s, because %s", strings.Join(cannot[p], ", "), harmless(p))
	}
}

// seenCell is thereCell for all providers together.
func seenCell(s api.Seen) string {
	return thereCell(api.There{Provider: s.Provider, Exists: s.Exists, Owner: s.Owner, Enabled: s.Enabled, Counter: s.Counter})
}

// hereCell is what the desk has of a token, or had.
func hereCell(d *api.DeskSide, gone *api.Deleted) string {
	if d == nil && gone != nil {
		return "deleted " + day(gone.Time)
	}
	return deskCell(d)
}

func equalNames(a, b string) bool { return strings.EqualFold(a, b) }
