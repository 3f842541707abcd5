package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

// renewCommands change what is on the device of a token that exists.
func renewCommands() []*cli.Command {
	yes := &cli.BoolFlag{Name: "yes", Usage: "do not ask for confirmation"}
	reason := &cli.StringFlag{Name: "reason", Usage: "why, in `WORDS` for the audit trail"}
	return []*cli.Command{
		{
			Name: "reseed", Usage: "replace a token's seed; its owner stays", ArgsUsage: "TOKEN", Category: "Work", Action: reseed,
			Flags: []cli.Flag{reason, yes},
		},
		reissueCommand(),
		{
			Name: "wipe", Usage: "erase a token, or all of a device, on the device and from the inventory", ArgsUsage: "TOKEN|DEVICE", Category: "Work",
			Action: wipeTokens, Flags: []cli.Flag{reason, yes},
		},
	}
}

func reseed(c *cli.Context) error {
	path, err := tokenPath(c)
	if err != nil {
		return err
	}
	var t api.Token
	if err := daemon(c).Get(c.Context, path, nil, &t); err != nil {
		return err
	}
	if err := confirm(c, "%s gets a new seed; the old one is destroyed, and codes of it are worthless", t.ID); err != nil {
		return err
	}
	return work(c, path+"/reseed", api.OptionalReason{Reason: c.String("reason")})
}

// wipeTokens erases one token after another: each takes the device for itself.
func wipeTokens(c *cli.Context) error {
	o, err := orderOn(c)
	if err != nil {
		return err
	}
	if !c.Bool("yes") {
		i, err := wiping(c, o.Tokens)
		if err != nil {
			return err
		}
		if out := output(c); !out.json {
			printIntent(out, "wipe", i)
		}
		if err := confirm(c, "%s", question("wipe", i)); err != nil {
			return err
		}
	}
	for _, token := range o.Tokens {
		path, err := pathOf(token)
		if err != nil {
			return err
		}
		if err := work(c, path+"/wipe", api.OptionalReason{Reason: c.String("reason")}); err != nil {
			return err
		}
	}
	return nil
}

// wiping is what a wipe does as far as the inventory tells.
func wiping(c *cli.Context, tokens []string) (api.Intent, error) {
	i := api.Intent{Permanent: true}
	for _, token := range tokens {
		path, err := pathOf(token)
		if err != nil {
			return i, err
		}
		var t api.Token
		if err := daemon(c).Get(c.Context, path, nil, &t); err != nil {
			return i, err
		}
		e := api.Effect{Token: t.ID, From: t.Status, Owner: t.Owner}
		if t.Status == "compromised" { // its record stays
			e.To = t.Status
		}
		i.Effects = append(i.Effects, e)
	}
	return i, nil
}

// afterMiss adds to a code's not fitting what to do next, by how the token is.
func afterMiss(c *cli.Context, path string, err error) error {
	known := (*api.Error)(nil)
	if !errors.As(err, &known) || known.Code != api.NotVerified {
		return err
	}
	var t api.Token
	if daemon(c).Get(c.Context, path, nil, &t) != nil { // what is known is told all the same
		return err
	}
	return api.Errorf(known.Code, "%s. Next: %s", known.Message, nextSteps(t))
}

func nextSteps(t api.Token) string {
	can := func(action string) bool { return slices.Contains(t.Actions, action) }
	switch {
	case t.Unfinished != "":
		return fmt.Sprintf("settle its unfinished work: tokendesk resolve %s", t.ID)
	case t.Status == "compromised":
		return "none: it is compromised, and is accepted nowhere"
	}
	steps := ""
	if can("resync") {
		steps = fmt.Sprintf("tokendesk resync %s CODE CODE; if that finds nothing, ", t.ID)
	}
	if can("reseed") {
		steps += fmt.Sprintf("give it a new seed: tokendesk reseed %s, or ", t.ID)
	}
	steps += fmt.Sprintf("tokendesk delete %s and enroll it again", t.ID)
	switch {
	case t.Status == "disabled":
		steps += fmt.Sprintf("; it is disabled, too: tokendesk enable %s", t.ID)
	case t.Status == "expired":
		steps += fmt.Sprintf("; its time is over, too: tokendesk edit %s --expires DATE", t.ID)
	}
	return steps
}
