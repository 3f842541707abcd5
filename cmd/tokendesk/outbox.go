package main

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

func outboxCommand() *cli.Command {
	filters := []cli.Flag{
		&cli.StringFlag{Name: "state", Usage: "only changes that are `STATE`: waiting, parked"},
		&cli.StringFlag{Name: "token", Usage: "only changes of `TOKEN`"},
		&cli.StringFlag{Name: "user", Usage: "only changes that concern `USER`"},
		&cli.BoolFlag{Name: "cut-offs", Usage: "only changes that end somebody's access"},
		&cli.IntFlag{Name: "limit", Usage: "at most `N`", Value: 100},
		&cli.Uint64Flag{Name: "after", Usage: "start after change `NUMBER`: the next page"},
	}
	reason := &cli.StringFlag{Name: "reason", Usage: "why, in `WORDS` for the audit trail", Required: true}
	return &cli.Command{
		Name: "outbox", Usage: "show what the central service has not confirmed", Category: "Look", Action: outbox, Flags: filters,
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "show what the central service has not confirmed", Action: outbox, Flags: filters},
			{Name: "show", Usage: "show a change, and what it waits for", ArgsUsage: "NUMBER", Action: showChange},
			{Name: "retry", Usage: "try a waiting or parked change again, now", ArgsUsage: "NUMBER", Action: retry},
			{
				Name: "park", Usage: "hold a change back, and what depends on it, until it is retried", ArgsUsage: "NUMBER --reason WORDS",
				Action: park, Flags: []cli.Flag{reason},
			},
			{
				Name: "discard", Usage: "give a change up: it is never pushed; for a cut-off that takes an approver", ArgsUsage: "NUMBER --reason WORDS",
				Action: discard, Flags: []cli.Flag{reason, &cli.BoolFlag{Name: "yes", Usage: "do not ask for confirmation"}},
			},
		},
	}
}

func outbox(c *cli.Context) error {
	if c.NArg() > 0 {
		return usage("there is no tokendesk outbox %s: see tokendesk outbox --help", c.Args().First())
	}
	q := url.Values{"limit": {strconv.Itoa(c.Int("limit"))}}
	for _, name := range []string{"state", "token", "user"} {
		if v := c.String(name); v != "" {
			q.Set(name, v)
		}
	}
	if c.Bool("cut-offs") {
		q.Set("cut_offs", "true")
	}
	if after := c.Uint64("after"); after > 0 {
		q.Set("after", strconv.FormatUint(after, 10))
	}
	var found api.Changes
	if err := daemon(c).Get(c.Context, "/v1/outbox", q, &found); err != nil {
		return err
	}
	return printOutbox(output(c), found, len(q) > 1)
}

func showChange(c *cli.Context) error {
	path, err := changePath(c)
	if err != nil {
		return err
	}
	var ch api.ChangeDetail
	if err := daemon(c).Get(c.Context, path, nil, &ch); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(ch)
	}
	rows := [][2]string{
		{"Change", strconv.FormatUint(ch.Seq, 10)},
		{"State", out.status(ch.State)},
		{"Kind", ch.Kind},
		{"Token", ch.Token},
		{"User", or(ch.User, "none")},
		{"Since", moment(ch.Created)},
		{"Tries", strconv.Itoa(ch.Attempts)},
	}
	if ch.CutOff {
		rows[2][1] += ", ends somebody's access"
	}
	if ch.Problem != "" {
		rows = append(rows, [2]string{"Problem", ch.Problem})
	}
	for _, h := range ch.Holds {
		rows = append(rows, [2]string{"Waits for", h.Text})
	}
	out.fields(rows)
	return nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func retry(c *cli.Context) error {
	path, err := changePath(c)
	if err != nil {
		return err
	}
	return changed(c, path+"/retry", nil)
}

func park(c *cli.Context) error {
	path, err := changePath(c)
	if err != nil {
		return err
	}
	return changed(c, path+"/park", api.Reason{Reason: c.String("reason")})
}

func discard(c *cli.Context) error {
	path, err := changePath(c)
	if err != nil {
		return err
	}
	var ch api.ChangeDetail
	if err := daemon(c).Get(c.Context, path, nil, &ch); err != nil {
		return err
	}
	effect := fmt.Sprintf("the central service is never told of %s of %s", ch.Kind, ch.Token)
	if ch.CutOff {
		effect = fmt.Sprintf("%s CAN GO ON LOGGING IN with %s, for all the desk does", or(ch.User, "somebody"), ch.Token)
	}
	if err := confirm(c, "%s", effect); err != nil {
		return err
	}
	return changed(c, path+"/discard", api.Reason{Reason: c.String("reason")})
}

// changed does something to a change and shows what is left of its token.
func changed(c *cli.Context, path string, in any) error {
	var left api.Changes
	if err := daemon(c).Post(c.Context, path, in, &left); err != nil {
		return err
	}
	out := output(c)
	if err := waits(left.Approval); err != nil {
		if out.json {
			return errors.Join(out.printJSON(left), err)
		}
		printWaiting(out, *left.Approval)
		out.wait("until then the change goes on being delivered")
		return err
	}
	return printOutbox(out, left, true)
}

func changePath(c *cli.Context) (string, error) {
	args, err := arguments(c, "number of the change")
	if err != nil {
		return "", err
	}
	seq, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil || seq == 0 {
		return "", usage("%q is not the number of a change: tokendesk outbox shows them", args[0])
	}
	return fmt.Sprintf("/v1/outbox/%d", seq), nil
}

// printOutbox shows a page; part says that there may be more which was not asked for.
func printOutbox(out screen, found api.Changes, part bool) error {
	if out.json {
		return out.printJSON(found)
	}
	switch {
	case len(found.Changes) > 0:
	case part:
		out.printf("Nothing such waits in the outbox.\n")
		return nil
	default:
		out.printf("The outbox is empty.\n")
		return nil
	}
	var rows []row
	for _, ch := range found.Changes {
		rows = append(rows, row{[]string{
			strconv.FormatUint(ch.Seq, 10), out.status(ch.State), ch.Kind, ch.Token, cut(ch.User, 16), moment(ch.Created), strconv.Itoa(ch.Attempts),
		}, ch.Problem})
	}
	out.table([]string{"NO", "STATE", "CHANGE", "TOKEN", "USER", "SINCE", "TRIES"}, rows)
	if found.Note != "" {
		out.wait("%s", found.Note)
	}
	if d := found.Drain; d != nil {
		out.say("%s", drained(*d))
	}
	if found.Next > 0 {
		out.say("More: add --after %d", found.Next)
	}
	return nil
}

func drained(d api.Drain) string {
	s := fmt.Sprintf("%d delivered, %d left, %.0f a second", d.Done, d.Left, d.PerSecond)
	if d.Until != nil {
		s += ", until " + d.Until.Local().Format(time.TimeOnly)
	}
	return s
}
