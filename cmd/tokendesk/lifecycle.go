package main

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

// lifecycleCategory holds what is done with a token after it exists.
const lifecycleCategory = "Lifecycle"

func lifecycleCommands() []*cli.Command {
	yes := &cli.BoolFlag{Name: "yes", Usage: "do not ask for confirmation"}
	reason := &cli.StringFlag{Name: "reason", Usage: "why, in `WORDS` for the audit trail; needed where a user is left without an active token"}
	cut := []cli.Flag{reason, yes}
	return []*cli.Command{
		{
			Name: "edit", Usage: "change a token's description or address, or when its time is over", ArgsUsage: "TOKEN", Category: lifecycleCategory, Action: edit,
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "description", Usage: "`WORDS` about it; none: ''"},
				&cli.StringFlag{Name: "address", Usage: "where its codes are sent, if they are: an `ADDRESS`"},
				&cli.StringFlag{Name: "tenant", Usage: "whose it is from now on, a `TENANT`; the desk's own: ''"},
				&cli.StringFlag{Name: "expires", Usage: "refuse it from `DATE` on (2031-12-31, or 2031-12-31T18:00), or never"},
				reason,
			},
		},
		{
			Name: "assign", Usage: "give a token of the stock to a user", ArgsUsage: "TOKEN --to USER", Category: lifecycleCategory, Action: assign,
			Flags: []cli.Flag{&cli.StringFlag{Name: "to", Usage: "the new owner, a `USER`", Required: true}},
		},
		{
			Name: "unassign", Usage: "release a token from its user, who can no longer log in with it", ArgsUsage: "TOKEN", Category: lifecycleCategory,
			Action: cutOff("unassign"), Flags: cut,
		},
		{
			Name: "disable", Usage: "have codes refused for a while, of a token or of all of a device", ArgsUsage: "TOKEN|DEVICE", Category: lifecycleCategory,
			Action: cutOff("disable"), Flags: cut,
		},
		{Name: "enable", Usage: "have a disabled token's codes accepted again", ArgsUsage: "TOKEN", Category: lifecycleCategory, Action: enable},
		{
			Name: "compromise", Usage: "refuse a token, or all of a device, for ever", ArgsUsage: "TOKEN|DEVICE --reason lost|stolen|damaged|destroyed|other",
			Category: lifecycleCategory, Action: compromise,
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "reason", Usage: "what happened to it: `KIND` is " + strings.Join(losses, ", "), Required: true},
				&cli.StringFlag{Name: "words", Usage: "more about it, in `WORDS` for the audit trail; other needs them"}, yes,
			},
		},
		{
			Name: "delete", Usage: "remove a token from the inventory for good", ArgsUsage: "TOKEN", Category: lifecycleCategory,
			Action: cutOff("delete"), Flags: cut,
		},
		{
			Name: "lifecycle", Usage: "print what can be done with a token in which status; needs no daemon", Category: lifecycleCategory,
			Action: lifecycle, CustomHelpTemplate: lifecycleHelp(),
		},
	}
}

// losses are the kinds of api.Loss.
var losses = []string{"lost", "stolen", "damaged", "destroyed", "other"}

func assign(c *cli.Context) error {
	o, err := orderOn(c)
	if err != nil {
		return err
	}
	o.User = c.String("to")
	if err := sensibleUser(o.User); err != nil {
		return err
	}
	if err := warned(c, "assign", o); err != nil {
		return err
	}
	return act(c, "assign", o)
}

// warned shows what speaks against an order. Whoever reads that can still take it back.
func warned(c *cli.Context, action string, o api.Order) error {
	var i api.Intent
	if err := daemon(c).Post(c.Context, actionsPath+action+"/preview", o, &i); err != nil {
		return err
	}
	if out := output(c); !out.json {
		for _, e := range i.Effects {
			if e.Warning != "" {
				out.wait("%s: %s", e.Token, e.Warning)
			}
		}
	}
	return nil
}

func enable(c *cli.Context) error {
	o, err := orderOn(c)
	if err != nil {
		return err
	}
	return act(c, "enable", o)
}

func edit(c *cli.Context) error {
	o, err := orderOn(c)
	if err != nil {
		return err
	}
	o.Reason = c.String("reason")
	if c.IsSet("description") {
		words := c.String("description")
		o.Description = &words
	}
	if c.IsSet("address") {
		address := c.String("address")
		o.Address = &address
	}
	if c.IsSet("tenant") {
		tenant := c.String("tenant")
		o.Tenant = &tenant
	}
	if c.IsSet("expires") {
		when, err := expiry(c.String("expires"))
		if err != nil {
			return err
		}
		o.Expires = &when
	}
	if o.Description == nil && o.Expires == nil && o.Address == nil && o.Tenant == nil {
		return usage("say what to change: --description WORDS, --expires DATE, --address ADDRESS, --tenant TENANT")
	}
	return act(c, "edit", o)
}

// expiry reads when a token's time is over; zero is never.
func expiry(words string) (time.Time, error) {
	if words == "never" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.DateOnly, "2006-01-02T15:04", "2006-01-02 15:04", time.RFC3339} {
		if t, err := time.ParseInLocation(layout, words, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usage("--expires is a date, such as 2031-12-31 or 2031-12-31T18:00, or never; not %q", words)
}

// cutOff is the action of commands that end somebody's access, after asking.
func cutOff(action string) cli.ActionFunc {
	return func(c *cli.Context) error {
		o, err := orderOn(c)
		if err != nil {
			return err
		}
		o.Reason = c.String("reason")
		return actAfterAsking(c, action, o)
	}
}

func compromise(c *cli.Context) error {
	kind := c.String("reason")
	switch {
	case !slices.Contains(losses, kind):
		return usage("--reason is one of %s, not %q; put further words into --words", strings.Join(losses, ", "), kind)
	case kind == "other" && strings.TrimSpace(c.String("words")) == "":
		return usage("--reason other needs --words: say what happened")
	}
	o, err := orderOn(c)
	if err != nil {
		return err
	}
	o.Loss, o.Reason = kind, c.String("words")
	return actAfterAsking(c, "compromise", o)
}

// wholeDevices are the commands that take a device, too, and then mean all of its tokens.
var wholeDevices = []string{"disable", "compromise", "wipe"}

// orderOn begins an order on what the only argument names.
func orderOn(c *cli.Context) (api.Order, error) {
	args, err := arguments(c, "token")
	if err != nil {
		return api.Order{}, err
	}
	if deviceName.MatchString(args[0]) && slices.Contains(wholeDevices, c.Command.Name) {
		tokens, err := tokensOf(c, args[0])
		return api.Order{Tokens: tokens}, err
	}
	if _, err := pathOf(args[0]); err != nil {
		return api.Order{}, err
	}
	return api.Order{Tokens: args}, nil
}

// tokensOf are the tokens of a device with which the command can be done; all of them if it can be with none, so that
// the daemon says why.
func tokensOf(c *cli.Context, device string) (possible []string, err error) {
	var found api.Tokens
	if err := daemon(c).Get(c.Context, "/v1/tokens", url.Values{"device": {device}}, &found); err != nil {
		return nil, err
	}
	var all, skipped []string
	for _, t := range found.Tokens {
		all = append(all, t.ID)
		if slices.Contains(t.Actions, c.Command.Name) {
			possible = append(possible, t.ID)
		} else {
			skipped = append(skipped, fmt.Sprintf("%s is %s: it stays as it is", t.ID, t.Status))
		}
	}
	switch {
	case len(all) == 0:
		return nil, api.Errorf(api.NotFound, "%s has no token in the inventory: tokendesk list shows them all", device)
	case len(possible) == 0:
		return all, nil
	}
	if out := output(c); !out.json {
		for _, s := range skipped {
			out.wait("%s", s)
		}
	}
	return possible, nil
}

const actionsPath = "/v1/tokens/actions/"

// actAfterAsking shows what an order would do, and asks.
func actAfterAsking(c *cli.Context, action string, o api.Order) error {
	if c.Bool("yes") {
		return act(c, action, o)
	}
	var i api.Intent
	if err := daemon(c).Post(c.Context, actionsPath+action+"/preview", o, &i); err != nil {
		return err
	}
	if out := output(c); !out.json {
		printIntent(out, action, i)
	}
	if err := confirm(c, "%s", question(action, i)); err != nil {
		return err
	}
	return act(c, action, o)
}

// act has an order carried out, and shows what it has led to.
func act(c *cli.Context, action string, o api.Order) error {
	var done api.Outcomes
	if err := daemon(c).Post(c.Context, actionsPath+action, o, &done); err != nil {
		return err
	}
	return acted(c, o.Tokens, done)
}

// acted shows what has become of tokens.
func acted(c *cli.Context, tokens []string, done api.Outcomes) error {
	out := output(c)
	err := errors.Join(waits(done.Approval), stillOpen(done.Changes))
	if out.json {
		return errors.Join(out.printJSON(done), err)
	}
	if done.Approval != nil {
		printWaiting(out, *done.Approval)
		return err
	}
	printChanges(out, done.Changes, len(tokens) > 1)
	for _, id := range tokens {
		i := slices.IndexFunc(done.Tokens, func(t api.Token) bool { return t.ID == id })
		if i < 0 {
			out.say("%s is no longer in the inventory.", id)
			continue
		}
		printStanding(out, done.Tokens[i])
	}
	printRevoke(out, done.Revoke)
	if done.Text != "" {
		out.say("%s", done.Text)
	}
	return err
}
