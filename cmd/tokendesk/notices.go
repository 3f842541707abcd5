package main

import (
	"fmt"
	"net/url"
	"strconv"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

func noticesCommand() *cli.Command {
	filters := []cli.Flag{
		&cli.BoolFlag{Name: "parked", Usage: "only those that wait for an officer"},
		&cli.StringFlag{Name: "user", Usage: "only those to `USER`"},
		&cli.IntFlag{Name: "limit", Usage: "at most `N`", Value: 100},
		&cli.Uint64Flag{Name: "after", Usage: "start after notice `NUMBER`: the next page"},
	}
	return &cli.Command{
		Name: "notices", Usage: "show mail to tokens' holders that was not sent yet", Category: "Look", Action: notices, Flags: filters,
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "show mail to tokens' holders that was not sent yet", Action: notices, Flags: filters},
			{Name: "retry", Usage: "try to send a notice again, now", ArgsUsage: "NUMBER", Action: retryNotice},
			{
				Name: "discard", Usage: "give a notice up: nobody is told", ArgsUsage: "NUMBER", Action: discardNotice,
				Flags: []cli.Flag{&cli.StringFlag{Name: "reason", Usage: "why, in `WORDS` for the audit trail"}},
			},
		},
	}
}

func notices(c *cli.Context) error {
	if c.NArg() > 0 {
		return usage("there is no tokendesk notices %s: see tokendesk notices --help", c.Args().First())
	}
	q := url.Values{"limit": {strconv.Itoa(c.Int("limit"))}}
	if c.Bool("parked") {
		q.Set("parked", "true")
	}
	if user := c.String("user"); user != "" {
		q.Set("user", user)
	}
	if after := c.Uint64("after"); after > 0 {
		q.Set("after", strconv.FormatUint(after, 10))
	}
	var found api.Notices
	if err := daemon(c).Get(c.Context, "/v1/notices", q, &found); err != nil {
		return err
	}
	return printNotices(output(c), found)
}

func retryNotice(c *cli.Context) error {
	path, err := noticePath(c)
	if err != nil {
		return err
	}
	return treatedNotice(c, path+"/retry", nil)
}

func discardNotice(c *cli.Context) error {
	path, err := noticePath(c)
	if err != nil {
		return err
	}
	return treatedNotice(c, path+"/discard", api.OptionalReason{Reason: c.String("reason")})
}

// treatedNotice does something to a notice and shows what is left.
func treatedNotice(c *cli.Context, path string, in any) error {
	var left api.Notices
	if err := daemon(c).Post(c.Context, path, in, &left); err != nil {
		return err
	}
	return printNotices(output(c), left)
}

func noticePath(c *cli.Context) (string, error) {
	args, err := arguments(c, "number of the notice")
	if err != nil {
		return "", err
	}
	id, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil || id == 0 {
		return "", usage("%q is not the number of a notice: tokendesk notices shows them", args[0])
	}
	return fmt.Sprintf("/v1/notices/%d", id), nil
}

func printNotices(out screen, found api.Notices) error {
	if out.json {
		return out.printJSON(found)
	}
	switch s := found.State; {
	case len(found.Notices) > 0:
	case s.Waiting > 0:
		out.printf("No such notice waits.\n")
		return nil
	case !s.Configured:
		out.printf("No mail server is configured: nobody is told by mail.\n")
		return nil
	default:
		out.printf("All notices are sent.\n")
		return nil
	}
	var rows []row
	for _, n := range found.Notices {
		rows = append(rows, row{[]string{
			strconv.FormatUint(n.ID, 10), out.status(n.State), n.Kind, cut(n.User, 16), n.Token, moment(n.Created), strconv.Itoa(n.Attempts),
		}, n.Problem})
	}
	out.table([]string{"NO", "STATE", "NOTICE", "USER", "TOKEN", "SINCE", "TRIES"}, rows)
	if found.State.Problem != "" {
		out.wait("%s", found.State.Problem)
	}
	if found.Next > 0 {
		out.say("More: add --after %d", found.Next)
	}
	return nil
}

// noticesLine says how the sending of notices stands; empty if there is nothing to say.
func noticesLine(out screen, s *api.NoticesStatus) string {
	switch {
	case s == nil, !s.Configured && s.Waiting == 0:
		return ""
	case s.Waiting == 0 && s.Problem == "":
		return "all are sent"
	case !s.Configured:
		return out.paint(text.FgYellow, fmt.Sprintf("%s, and no mail server is configured any more", waitingNotices(s.Waiting)))
	}
	line := waitingNotices(s.Waiting)
	if s.Parked > 0 {
		line += fmt.Sprintf(", %d parked: tokendesk notices list --parked", s.Parked)
	}
	if s.Problem != "" {
		line += ": " + s.Problem
	}
	return out.paint(text.FgYellow, line)
}

func waitingNotices(n int) string {
	switch n {
	case 0:
		return "none waits"
	case 1:
		return "1 notice waits"
	}
	return fmt.Sprintf("%d notices wait", n)
}
