package main

import (
	"bufio"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

func workCommands() []*cli.Command {
	return []*cli.Command{
		{
			Name: "enroll", Usage: "seal a fresh seed, program it, verify it, assign it, push it", Category: "Work", Action: enroll,
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "device", Usage: "the inserted `DEVICE`; may be left out if only one is inserted"},
				&cli.StringFlag{Name: "app", Usage: "its application: otp1 (typed by a short touch) or otp2 (a long one), hotp1 to hotp3, oath:NAME, or oath for oath:USER", Value: "otp2"},
				&cli.StringFlag{Name: "user", Usage: "give it to `USER`; without it the token becomes stock"},
				tenantFlag(),
				&cli.IntFlag{Name: "digits", Usage: "6 or 8", Value: 6},
				&cli.Uint64Flag{Name: "start-counter", Usage: "first moving factor; of a YubiKey's slots a multiple of 16"},
				&cli.BoolFlag{Name: "identifier", Usage: "have the key type its token identifier before each code"},
				&cli.BoolFlag{Name: "no-enter", Usage: "do not have the key press Enter after each code"},
				&cli.BoolFlag{Name: "overwrite", Usage: "replace what is there now"},
				&cli.BoolFlag{Name: "typed", Usage: "verify by codes that the key types into this terminal, not by captured ones"},
			},
		},
		{
			Name: "resolve", Usage: "settle interrupted work on a token", ArgsUsage: "[TOKEN [CODE CODE]]", Category: "Work", Action: resolve,
			Flags: []cli.Flag{
				&cli.BoolFlag{Name: "undo", Usage: "give up an enroll, or a reissue that has not sealed a new seed, instead of finishing it"},
				&cli.BoolFlag{Name: "continue-offline", Usage: "go on with a reissue whose cut-off the central service does not confirm; needs --reason"},
				&cli.StringFlag{Name: "reason", Usage: "why, in `WORDS` for the audit trail and the receipt"},
			},
		},
		testCommand(), resyncCommand(), passwordCommand(), forgetPasswordCommand(), traceCommand(),
	}
}

func enroll(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	device := c.String("device")
	if device == "" {
		var err error
		if device, err = onlyDevice(c); err != nil {
			return err
		}
	}
	app, err := application(c)
	if err != nil {
		return err
	}
	e := api.Enroll{
		Device: device, App: app, User: c.String("user"), Digits: c.Int("digits"), StartCounter: c.Uint64("start-counter"),
		Identifier: c.Bool("identifier"), Enter: !c.Bool("no-enter"), Overwrite: c.Bool("overwrite"), Typed: c.Bool("typed"),
		Tenant: c.String("tenant"),
	}
	if err := sensible(e); err != nil {
		return err
	}
	if err := work(c, "/v1/enroll", e); err != nil || !e.Typed {
		return err
	}
	return verifyTyped(c, device+"/"+app)
}

var (
	deviceName     = regexp.MustCompile(`^[a-z]{2,8}-[0-9a-f]{1,10}$`)
	appName        = regexp.MustCompile(`^[a-z0-9]+(:[a-z0-9._-]+)?$`)
	credentialName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,30}[a-z0-9])?$`)
)

// application is what --app names: a credential may be named by its user.
func application(c *cli.Context) (string, error) {
	app := c.String("app")
	if app != "oath" {
		return app, nil
	}
	name := strings.ToLower(c.String("user"))
	if !credentialName.MatchString(name) {
		return "", usage("say how the credential is to be called: --app oath:NAME, with up to 32 small letters, digits, and . _ - between them")
	}
	return "oath:" + name, nil
}

// sensible says in an officer's words what the daemon would refuse in a programmer's.
func sensible(e api.Enroll) error {
	switch {
	case !deviceName.MatchString(e.Device):
		return usage("%q is not a device: devices are named like yk-12345678; tokendesk devices shows them", e.Device)
	case !appName.MatchString(e.App):
		return usage("--app is the name of an application, such as otp1, hotp1 or oath:NAME; not %q", e.App)
	case e.Digits != 6 && e.Digits != 8:
		return usage("--digits is 6 or 8, not %d", e.Digits)
	case strings.HasPrefix(e.App, "otp") && (e.StartCounter%16 != 0 || e.StartCounter > 1_048_560):
		return usage("--start-counter is a multiple of 16 up to 1048560, not %d", e.StartCounter)
	}
	return sensibleUser(e.User)
}

var userName = regexp.MustCompile(`^[A-Za-z0-9._@-]{0,64}$`)

func sensibleUser(name string) error {
	if !userName.MatchString(name) {
		return usage("%q cannot be a user: names have letters, digits, and . _ @ -, at most 64 of them", name)
	}
	return nil
}

// verifyTyped reads two codes that the key types into this terminal, and has the enroll go on with them.
func verifyTyped(c *cli.Context, token string) error {
	path, err := pathOf(token)
	if err != nil {
		return err
	}
	fmt.Fprintln(c.App.ErrWriter, "Keep this window in front and have the key type two codes into it, a line each:")
	var typed []string
	for lines := bufio.NewScanner(c.App.Reader); len(typed) < 2 && lines.Scan(); {
		if code := plainCode(lines.Text()); code != "" {
			typed = append(typed, code)
		}
	}
	if len(typed) < 2 {
		return api.Errorf(api.Unfinished, "two codes were wanted and %d came; nothing is lost: run tokendesk resolve %s", len(typed), token)
	}
	return work(c, path+"/resolve", api.Resolve{Codes: typed})
}

// identifier is what a token may type before a code: an OATH token identifier of class A.
var identifier = regexp.MustCompile(`^ubhe[0-9]{8}`)

// plainCode is a code without what a token may type around it.
func plainCode(typed string) string { return identifier.ReplaceAllString(strings.TrimSpace(typed), "") }

func plainCodes(typed []string) []string {
	var plain []string
	for _, t := range typed {
		plain = append(plain, plainCode(t))
	}
	return plain
}

// onlyDevice is the inserted device, if there is no doubt which one.
func onlyDevice(c *cli.Context) (string, error) {
	var found api.Keys
	if err := daemon(c).Get(c.Context, "/v1/devices", nil, &found); err != nil {
		return "", err
	}
	switch len(found.Keys) {
	case 0:
		return "", api.Errorf(api.Device, "no device is inserted: insert one; tokendesk devices says why if it is not seen")
	case 1:
		if k := found.Keys[0]; k.ID == "" {
			return "", api.Errorf(api.Device, "the inserted key is not identified: look at tokendesk devices, and repeat")
		}
		return found.Keys[0].ID, nil
	}
	return "", usage("%d devices are inserted: choose one with --device, or pull the others", len(found.Keys))
}

func resolve(c *cli.Context) error {
	if c.NArg() > 0 {
		path, err := pathOf(c.Args().First())
		if err != nil {
			return err
		}
		typed := plainCodes(c.Args().Tail())
		if n := len(typed); n != 0 && (n != 2 || c.Bool("undo")) {
			return usage("resolve takes a token, and either no codes or the two that the key has typed since it was programmed")
		}
		r, err := resolveAsked(c)
		r.Codes = typed
		if err != nil {
			return err
		}
		return work(c, path+"/resolve", r)
	}
	var s api.Status
	if err := daemon(c).Get(c.Context, "/v1/status", nil, &s); err != nil {
		return err
	}
	switch len(s.Unfinished) {
	case 0:
		if out := output(c); out.json {
			return out.printJSON(api.Event{Outcome: &api.Outcome{Text: "nothing is unfinished"}})
		}
		fmt.Fprintln(c.App.Writer, "Nothing is unfinished.")
		return nil
	case 1:
		token, _, _ := strings.Cut(s.Unfinished[0], ":")
		path, err := pathOf(token)
		if err != nil {
			return err
		}
		r, err := resolveAsked(c)
		if err != nil {
			return err
		}
		return work(c, path+"/resolve", r)
	}
	return usage("several tokens have unfinished work, name one:\n  %s", strings.Join(s.Unfinished, "\n  "))
}

// resolveAsked is what the flags ask for.
func resolveAsked(c *cli.Context) (api.Resolve, error) {
	r := api.Resolve{Undo: c.Bool("undo"), ContinueOffline: c.Bool("continue-offline"), Reason: c.String("reason")}
	switch {
	case r.ContinueOffline && r.Undo:
		return r, usage("either give it up or go on")
	case r.ContinueOffline && strings.TrimSpace(r.Reason) == "":
		return r, usage("--continue-offline needs --reason: say why the new owner cannot wait until the cut-off is confirmed")
	case !r.ContinueOffline && r.Reason != "":
		return r, usage("--reason belongs to --continue-offline")
	}
	return r, nil
}

// work asks the daemon for something that takes a while, and shows it.
func work(c *cli.Context, path string, in any) error {
	out := output(c)
	outcome, err := follow(c, out, path, in)
	if err != nil {
		return err
	}
	return concluded(out, outcome)
}

// follow asks the daemon for something that takes a while, and shows how it goes.
func follow(c *cli.Context, out screen, path string, in any) (api.Outcome, error) {
	var due []string
	outcome, err := daemon(c).Work(c.Context, path, in, func(p api.Progress) {
		words := harmless(p.Text)
		switch {
		case out.json:
			out.printJSON(api.Event{Progress: &p})
		case p.Kind == "done":
			out.done("%s", words)
		case p.Kind == "touch" && p.Slot == 0: // of a card, which shows no code
			out.mark(text.FgCyan, "●", "%s", out.paint(text.Bold, words))
		case p.Kind == "touch":
			out.mark(text.FgCyan, "●", "%s (code %d)", out.paint(text.Bold, words), p.Codes+1)
		case strings.HasPrefix(p.Text, dueNote):
			due = append(due, p.Text)
		default:
			out.wait("%s", words)
		}
	})
	for _, note := range due {
		told := func(r api.Certificate) bool {
			return strings.HasSuffix(note, "issued by "+r.Issuer+", serial "+r.Serial)
		}
		if !slices.ContainsFunc(outcome.Revoke, told) {
			out.wait("%s", harmless(note))
		}
	}
	return outcome, err
}

// dueNote begins the note that work tells about each certificate to be revoked. The outcome tells of the same; where there is
// none, or not of that one, the note is shown.
const dueNote = "to be revoked at its issuer: "

// concluded shows what work has come to.
func concluded(out screen, outcome api.Outcome) error {
	err := errors.Join(waits(outcome.Approval), stillOpen(outcome.Changes))
	switch {
	case out.json:
		return errors.Join(out.printJSON(api.Event{Outcome: &outcome}), err)
	case outcome.Approval != nil:
		if outcome.Text != "" {
			out.wait("%s", harmless(outcome.Text))
		}
		printWaiting(out, *outcome.Approval)
	default:
		printOutcome(out, outcome)
	}
	return err
}

// stillOpen is an error if somebody was to be cut off and is not yet.
func stillOpen(pushed []api.Change) error {
	for _, ch := range pushed {
		if ch.CutOff && (ch.State == "waiting" || ch.State == "parked") {
			who := "whoever has it"
			if ch.User != "" {
				who = ch.User
			}
			return api.Errorf(api.Unfinished, "%s CAN STILL LOG IN with %s until the central service has confirmed change %d: see tokendesk outbox", who, ch.Token, ch.Seq)
		}
	}
	return nil
}

func printOutcome(out screen, o api.Outcome) {
	printChanges(out, o.Changes, slices.ContainsFunc(o.Changes, func(ch api.Change) bool { return ch.Token != o.Changes[0].Token }))
	if o.Token != nil && o.Token.Unfinished != "" && o.Text != "" { // as asked
		out.say("%s", o.Text)
	} else if o.Token != nil {
		printStanding(out, *o.Token)
	}
	printRevoke(out, o.Revoke)
}

// printChanges tells what became of changes; named says of which token each is.
func printChanges(out screen, pushed []api.Change, named bool) {
	for _, ch := range pushed {
		what := ch.Kind
		if ch.User != "" && ch.Kind != "put" && ch.Kind != "advance" {
			what += " " + ch.User
		}
		if named {
			what = ch.Token + ": " + what
		}
		if ch.State == "confirmed" {
			out.done("push: %s confirmed", what)
			continue
		}
		line := fmt.Sprintf("push: %s is %s", what, ch.State)
		if ch.State == "local" {
			line = "push: " + what
		}
		if ch.Problem != "" {
			line += ": " + ch.Problem
		}
		out.wait("%s", line)
	}
}

// printStanding says in a line how a token is.
func printStanding(out screen, t api.Token) {
	if t.Unfinished != "" {
		out.wait("%s: %s", t.ID, t.Unfinished)
		return
	}
	switch {
	case t.Loss != nil:
		out.say("%s is %s (%s), for good.", t.ID, out.status(t.Status), t.Loss.Kind)
	case isPIV(t.ID):
		out.say("%s is %s%s.", t.ID, out.status(t.Status), belonging(t.Owner))
	case t.Owner == "":
		out.say("%s is %s and is stock; its next counter is %d.", t.ID, out.status(t.Status), t.Counter)
	default:
		out.say("%s is %s and belongs to %s; its next counter is %d.", t.ID, out.status(t.Status), t.Owner, t.Counter)
	}
}

func belonging(owner string) string {
	if owner == "" {
		return " and is stock"
	}
	return " and belongs to " + owner
}
