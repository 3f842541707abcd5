package main

import (
	"fmt"
	"math"
	"strconv"

	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

func identifyCommand() *cli.Command {
	return &cli.Command{
		Name: "identify", Usage: "whose token is this? by two or three consecutive codes", ArgsUsage: "CODE CODE [CODE]", Category: "Look", Action: identify,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "capture", Usage: "capture the codes by touches of whichever inserted key"}},
		Description: "Looks for the codes, oldest first, among those that each token in the vault gives next: 16 of each, then 100, 1000 and\n" +
			"10000. It moves no counter and grants nothing. A token is named only if no chance explains the codes; if two do\n" +
			"not tell, it asks for a third.\n\n" +
			"Exit codes: 0 it is certain whose they are; 4 no token gives them; 5 it is a token that you do not see, or too\n" +
			"many tries have failed in a row; 7 it is not certain.",
	}
}

func identify(c *cli.Context) error {
	typed := plainCodes(c.Args().Slice())
	if c.Bool("capture") {
		if len(typed) > 0 {
			return usage("codes are either given or captured, not both")
		}
		return identifyCapture(c)
	}
	if len(typed) < 2 || len(typed) > 3 {
		return usage("give two or three consecutive codes, oldest first: tokendesk identify %s", c.Command.ArgsUsage)
	}
	return identifyCodes(c, typed)
}

// identifyCodes asks whose codes these are, and tells.
func identifyCodes(c *cli.Context, codes []string) error {
	var found api.Identified
	if err := daemon(c).Post(c.Context, "/v1/identify", api.Identify{Codes: codes}, &found); err != nil {
		return err
	}
	return tellIdentified(output(c), found)
}

// tellIdentified prints whose codes are. It is an error if that is not certain, or not the caller's to know.
func tellIdentified(out screen, found api.Identified) error {
	if out.json {
		if err := out.printJSON(found); err != nil {
			return err
		}
	} else {
		printIdentified(out, found)
	}
	return identifiedCode(found)
}

// identifiedCode is the exit code for whom nothing else is said.
func identifiedCode(found api.Identified) error {
	switch {
	case found.Hidden:
		return exitCode(api.Forbidden.ExitCode())
	case found.Certain:
		return nil
	case found.Matches == 0:
		return exitCode(api.NotFound.ExitCode())
	}
	return exitCode(api.NotVerified.ExitCode())
}

func printIdentified(out screen, found api.Identified) {
	if t := found.Token; t != nil {
		out.done("%s", whose(out, *t))
		place := fmt.Sprintf("counter %d, the one expected next", found.Counter)
		switch {
		case found.Other:
			place = fmt.Sprintf("counter %d of a seed that is not in use yet", found.Counter)
		case found.Ahead > 0:
			place = fmt.Sprintf("counter %d, +%d after the one expected next", found.Counter, found.Ahead)
		}
		rows := [][2]string{{"Token", t.ID}, {"Status", out.status(t.Status)}, {"Owner", or(t.Owner, "nobody (stock)")}, {"Device", t.Device},
			{"First code", place}, {"Chance", chance(found)}}
		if t.Due != "" {
			rows = append(rows, [2]string{"Due", harmless(t.Due)})
		}
		out.fields(rows)
	} else {
		out.wait("%s", found.Why)
		rows := [][2]string{{"Searched", searched(found)}, {"Chance", chance(found)}}
		if found.Hidden { // how far ahead it was found is not told
			rows = rows[1:]
		}
		out.fields(rows)
	}
	if found.Next != "" {
		out.say("Next: %s.", found.Next)
	}
}

// whose says in a line whose token it is.
func whose(out screen, t api.Token) string {
	switch {
	case t.Loss != nil && t.Loss.Owner != "":
		return fmt.Sprintf("This is %s, which is %s; %s had it last.", t.ID, out.status(t.Status), t.Loss.Owner)
	case t.Owner == "":
		return fmt.Sprintf("This is %s, which belongs to nobody.", t.ID)
	}
	return fmt.Sprintf("This is %s's token: %s.", t.Owner, t.ID)
}

func searched(found api.Identified) string {
	all := "all tokens"
	if found.Searched == 1 {
		all = "1 seed"
	} else if found.Searched > 1 {
		all = strconv.Itoa(found.Searched) + " seeds"
	}
	return fmt.Sprintf("%s whose codes have that many digits, %d counters ahead of each", all, found.Window)
}

// chance says how likely codes that are no token's would match all the same.
func chance(found api.Identified) string {
	if found.Chance <= 0 {
		return "none: there is no token whose codes have that many digits"
	}
	return fmt.Sprintf("one search in %s matches falsely", readable(math.Floor(1/found.Chance)))
}

// readable writes a number of many digits so that it can be read.
func readable(x float64) string {
	s := strconv.FormatFloat(x, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
