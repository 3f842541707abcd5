package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

func reissueCommand() *cli.Command {
	return &cli.Command{
		Name: "reissue", Usage: "take a token from its owner and give its access to somebody else, or on another device", Category: "Work",
		ArgsUsage: "TOKEN --to USER [CODE CODE]", Action: reissue,
		Description: "With the device at hand it gets a new seed, which is verified before the new owner has it. Without it (--without-device) the\n" +
			"owner is cut off now, and the rest waits until the device turns up. Another device can come in its place (--with), for a\n" +
			"successor or the same person. A token whose seed cannot be replaced is given away as it is, with two codes in a row that\n" +
			"it shows. The owner is always cut off first, and the central service has to confirm that.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "to", Usage: "the new owner, a `USER`; of a replacement by default the old one"},
			&cli.BoolFlag{Name: "without-device", Usage: "cut the owner off now; reseed the device when it turns up: tokendesk resolve"},
			&cli.StringFlag{Name: "with", Usage: "replace it by `DEVICE`, or one of its slots (yk-12345678/otp1): a new one, or one of the stock"},
			&cli.StringFlag{Name: "old", Usage: "what becomes of a token that is replaced: `END` is stock, " + strings.Join(losses, ", ")},
			&cli.StringFlag{Name: "words", Usage: "more about that, in `WORDS`; other needs them"},
			&cli.BoolFlag{Name: "overwrite", Usage: "replace what the slot of a new device holds now"},
			&cli.BoolFlag{Name: "no-enter", Usage: "do not have a new device press Enter after each code"},
			&cli.BoolFlag{Name: "continue-offline", Usage: "go on although the central service does not confirm the cut-off; needs --reason"},
			&cli.StringFlag{Name: "reason", Usage: "why, in `WORDS` for the audit trail and the receipt"},
			&cli.BoolFlag{Name: "yes", Usage: "do not ask for confirmation"},
		},
	}
}

func reissue(c *cli.Context) error {
	if c.NArg() == 0 {
		return usage("name the token: %s %s", c.Command.HelpName, c.Command.ArgsUsage)
	}
	path, err := pathOf(c.Args().First())
	if err != nil {
		return err
	}
	r, err := reissueAsked(c)
	if err != nil {
		return err
	}
	var t api.Token
	if err := daemon(c).Get(c.Context, path, nil, &t); err != nil {
		return err
	}
	r.Owner = &t.Owner // who the question is about
	if r.With, err = replacementFor(t, c.String("with")); err != nil {
		return err
	}
	if err := confirm(c, "%s", reissueQuestion(t, r)); err != nil {
		return err
	}
	return work(c, path+"/reissue", r)
}

// reissueAsked is what the flags ask for. What the daemon would refuse in a programmer's words is refused here in an officer's.
func reissueAsked(c *cli.Context) (r api.Reissue, err error) {
	r = api.Reissue{
		User: c.String("to"), WithoutDevice: c.Bool("without-device"), Old: c.String("old"), Words: c.String("words"),
		ContinueOffline: c.Bool("continue-offline"), Reason: c.String("reason"), Codes: plainCodes(c.Args().Tail()),
		Overwrite: c.Bool("overwrite"), Enter: !c.Bool("no-enter"),
	}
	ends := append([]string{"stock"}, losses...)
	switch with := c.String("with"); {
	case r.User == "" && with == "":
		return r, usage("name the new owner: --to USER")
	case with != "" && r.WithoutDevice:
		return r, usage("a token is either replaced by another one (--with) or waits for its device (--without-device)")
	case with == "" && (r.Old != "" || r.Words != ""):
		return r, usage("--old and --words say what becomes of a token that another one replaces: name that with --with DEVICE")
	case with != "" && r.Old != "" && !slices.Contains(ends, r.Old):
		return r, usage("--old is one of %s, not %q; put further words into --words", strings.Join(ends, ", "), r.Old)
	case r.Old == "other" && strings.TrimSpace(r.Words) == "":
		return r, usage("--old other needs --words: say what happened")
	case r.ContinueOffline && strings.TrimSpace(r.Reason) == "":
		return r, usage("--continue-offline needs --reason: say why the new owner cannot wait until the cut-off is confirmed")
	case len(r.Codes) != 0 && len(r.Codes) != 2:
		return r, usage("reissue takes a token, and of one whose seed cannot be replaced two codes in a row: %s %s", c.Command.HelpName, c.Command.ArgsUsage)
	}
	return r, sensibleUser(r.User)
}

// replacementFor is the token that a device, or one of its slots, is to replace another one with: in the same slot, if nothing
// else is said.
func replacementFor(old api.Token, with string) (string, error) {
	if deviceName.MatchString(with) && !strings.HasPrefix(with, "yk-") {
		return "", usage("say which application of it, such as %s/hotp1", with)
	}
	if deviceName.MatchString(with) {
		_, slot, _ := strings.Cut(old.ID, "/")
		if slot != "otp1" {
			slot = "otp2"
		}
		return with + "/" + slot, nil
	}
	if with == "" {
		return "", nil
	}
	if _, err := pathOf(with); err != nil {
		return "", usage("%q is not a device: they are named like yk-12345678, and their slots like yk-12345678/otp2", with)
	}
	return with, nil
}

// reissueQuestion says who loses what, and who gets it.
func reissueQuestion(t api.Token, r api.Reissue) string {
	var parts []string
	if t.Owner != "" {
		parts = append(parts, t.Owner+" can no longer log in")
	}
	switch {
	case r.With != "":
		end := "stays " + t.Status
		switch {
		case r.Old == "stock" || r.Old == "" && t.Owner != "":
			end = "goes back to stock"
		case r.Old != "":
			end = fmt.Sprintf("is compromised (%s), for good", r.Old)
		}
		to := or(r.User, t.Owner)
		if to == "" && t.Loss != nil {
			to = t.Loss.Owner
		}
		parts = append([]string{t.ID + " " + end}, parts...)
		parts = append(parts, fmt.Sprintf("%s gets a new seed and goes to %s in its place", r.With, to))
	case r.WithoutDevice:
		parts = append(parts, fmt.Sprintf("%s waits for its device, and then gets a new seed and goes to %s", t.ID, r.User))
	case len(r.Codes) > 0:
		parts = append(parts, fmt.Sprintf("%s keeps its seed, which cannot be replaced, and goes to %s", t.ID, r.User))
	default:
		parts = append(parts, fmt.Sprintf("%s gets a new seed and goes to %s", t.ID, r.User))
	}
	if r.ContinueOffline {
		parts = append(parts, "all that also if the central service does not confirm the cut-off")
	}
	return strings.Join(parts, "; ")
}
