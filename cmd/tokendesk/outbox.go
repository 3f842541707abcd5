package main

import (
	"fmt"
	"strconv"

	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

func outbox(c *cli.Context) error {
	if c.NArg() > 0 {
		return usage("there is no tokendesk outbox %s: see tokendesk outbox --help", c.Args().First())
	}
	var found api.Changes
	if err := daemon(c).Get(c.Context, "/v1/outbox", nil, &found); err != nil {
		return err
	}
	return printOutbox(output(c), found)
}

func retry(c *cli.Context) error {
	args, err := arguments(c, "number of the change")
	if err != nil {
		return err
	}
	seq, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return usage("%q is not the number of a change: tokendesk outbox shows them", args[0])
	}
	var left api.Changes
	if err := daemon(c).Post(c.Context, fmt.Sprintf("/v1/outbox/%d/retry", seq), nil, &left); err != nil {
		return err
	}
	return printOutbox(output(c), left)
}

func printOutbox(out screen, found api.Changes) error {
	if out.json {
		return out.printJSON(found)
	}
	if len(found.Changes) == 0 {
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
	return nil
}
