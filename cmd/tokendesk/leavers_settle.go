package main

import (
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"tokendesk/cmd/internal/api"
)

// settleLeaver tells the desk what has become of a leaver's tokens.
func settleLeaver(c *cli.Context) error {
	user, err := leaverName(c.Args().First())
	if err != nil {
		return err
	}
	if c.NArg() > 2 {
		return usage("one argument too many: tokendesk leavers settle %s", c.Command.ArgsUsage)
	}
	in := api.Settlement{Token: c.Args().Get(1), Reason: c.String("reason")}
	if in.Token != "" {
		if _, err := pathOf(in.Token); err != nil {
			return err
		}
	}
	if in.State, err = returnState(c); err != nil {
		return err
	}
	if err := askToSettle(c, user, in); err != nil {
		return err
	}
	var done api.Settled
	if err := daemon(c).Post(c.Context, leaverPath(user)+"/settle", in, &done); err != nil {
		return err
	}
	out := output(c)
	err = errors.Join(waits(done.Approval), stillOpen(done.Changes))
	if out.json {
		return errors.Join(out.printJSON(done), err)
	}
	if done.Approval != nil {
		printWaiting(out, *done.Approval)
	}
	printChanges(out, done.Changes, len(done.Leaver.Tokens) > 1)
	printLeavers(out, []api.Leaver{done.Leaver})
	if err != nil || in.State != "returned" || done.Leaver.Successor == "" {
		return err
	}
	return handOn(c, done.Leaver, in.Token)
}

// returnState is the one of the flags that is set, as the API calls it.
func returnState(c *cli.Context) (state string, err error) {
	for flag, name := range map[string]string{"returned": "returned", "not-returned": "not returned", "written-off": "written off"} {
		if !c.Bool(flag) {
			continue
		}
		if state != "" {
			return "", usage("it is one of --returned, --not-returned and --written-off")
		}
		state = name
	}
	if state == "" {
		return "", usage("say what has become of it: --returned, --not-returned or --written-off")
	}
	return state, nil
}

// askToSettle shows whom it will cut off, and asks. Where a successor waits, the reissue asks.
func askToSettle(c *cli.Context, user string, in api.Settlement) error {
	if c.Bool("yes") {
		return nil
	}
	l, err := leaverNamed(c, user)
	if err != nil || l == nil { // if nobody of that name is there, the daemon says so
		return err
	}
	action, o := "unassign", api.Order{Reason: or(in.Reason, "leaver")}
	if in.State == "written off" {
		action, o.Loss = "compromise", "lost"
	}
	for _, t := range l.Tokens {
		if in.Token != t.Token && (in.Token != "" || t.Settled) {
			continue
		}
		if in.State == "not returned" && t.Inserted { // the daemon says so
			return nil
		}
		if in.State == "returned" && l.Successor != "" && heritable(t.Token) {
			continue // the reissue asks
		}
		if t.Held || action == "compromise" {
			o.Tokens = append(o.Tokens, t.Token)
		}
	}
	if len(o.Tokens) == 0 {
		return nil
	}
	var i api.Intent
	if err := daemon(c).Post(c.Context, actionsPath+action+"/preview", o, &i); err != nil {
		return err
	}
	if out := output(c); !out.json {
		printIntent(out, action, i)
	}
	return confirm(c, "%s", question(action, i))
}

// heritable tells whether a token can be handed on to a successor: codes that are sent cannot.
func heritable(token string) bool {
	return !strings.HasPrefix(token, "mail-") && !strings.HasPrefix(token, "phone-")
}

func leaverNamed(c *cli.Context, user string) (*api.Leaver, error) {
	var u api.Leavers
	if err := daemon(c).Get(c.Context, leaversPath, nil, &u); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(u.Leavers, func(l api.Leaver) bool { return equalNames(l.User, user) })
	if i < 0 {
		return nil, nil
	}
	return &u.Leavers[i], nil
}

// handOn goes on with the reissue to the successor, if the device is here and somebody says so.
func handOn(c *cli.Context, l api.Leaver, only string) error {
	out := output(c)
	for _, t := range l.Tokens {
		if t.Settled || only != "" && only != t.Token || t.State != "returned" {
			continue
		}
		in, atTerminal := c.App.Reader.(*os.File)
		atTerminal = atTerminal && term.IsTerminal(int(in.Fd()))
		if !t.Inserted || !c.Bool("yes") && !atTerminal {
			out.say("To give it to %s: %s", l.Successor, t.Next)
			continue
		}
		if err := confirm(c, "%s gets a new seed and goes to %s; %s can no longer log in with it", t.Token, l.Successor, l.User); err != nil {
			return api.Errorf(api.Refused, "it was noted that it came back, and %s has it still; to go on later: %s", l.User, t.Next)
		}
		path, err := pathOf(t.Token)
		if err != nil {
			return err
		}
		owner := "" // as it was shown
		if t.Held {
			owner = l.User
		}
		if err := work(c, path+"/reissue", api.Reissue{User: l.Successor, Owner: &owner, Reason: "leaver"}); err != nil {
			return err
		}
	}
	return nil
}
