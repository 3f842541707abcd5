package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

func lifecycleCommands() []*cli.Command {
	yes := &cli.BoolFlag{Name: "yes", Usage: "do not ask for confirmation"}
	return []*cli.Command{
		{
			Name: "assign", Usage: "give a token of the stock to a user", ArgsUsage: "TOKEN --to USER", Category: "Lifecycle", Action: assign,
			Flags: []cli.Flag{&cli.StringFlag{Name: "to", Usage: "the new owner, a `USER`", Required: true}},
		},
		{
			Name: "unassign", Usage: "release a token from its user, who can no longer log in with it", ArgsUsage: "TOKEN", Category: "Lifecycle",
			Action: cutOff("unassign", "%s can no longer log in with %s"), Flags: []cli.Flag{yes},
		},
		{
			Name: "disable", Usage: "have a token's codes refused for a while", ArgsUsage: "TOKEN", Category: "Lifecycle",
			Action: cutOff("disable", "%s cannot log in with %s until it is enabled"), Flags: []cli.Flag{yes},
		},
		{Name: "enable", Usage: "have a disabled token's codes accepted again", ArgsUsage: "TOKEN", Category: "Lifecycle", Action: enable},
	}
}

func assign(c *cli.Context) error {
	path, err := tokenPath(c)
	if err != nil {
		return err
	}
	if err := sensibleUser(c.String("to")); err != nil {
		return err
	}
	return act(c, path+"/assign", api.User{User: c.String("to")})
}

func enable(c *cli.Context) error {
	path, err := tokenPath(c)
	if err != nil {
		return err
	}
	return act(c, path+"/enable", nil)
}

// cutOff is the action of commands that end somebody's access, after asking.
func cutOff(operation, effect string) cli.ActionFunc {
	return func(c *cli.Context) error {
		path, err := tokenPath(c)
		if err != nil {
			return err
		}
		var t api.Token
		if err := daemon(c).Get(c.Context, path, nil, &t); err != nil {
			return err
		}
		who := t.Owner
		if who == "" {
			who = "nobody"
		}
		if err := confirm(c, "%s", fmt.Sprintf(effect, who, t.ID)); err != nil {
			return err
		}
		return act(c, path+"/"+operation, nil)
	}
}

func act(c *cli.Context, path string, in any) error {
	var o api.Outcome
	if err := daemon(c).Post(c.Context, path, in, &o); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return errors.Join(out.printJSON(o), stillOpen(o))
	}
	printOutcome(out, o)
	return stillOpen(o)
}
