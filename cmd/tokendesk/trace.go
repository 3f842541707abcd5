package main

import (
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

const traceHelp = `"trace record" programs a token that nobody has with a published seed, has it
give codes, erases it, and writes everything that was said to it into a file,
which the desk's own tests can repeat without the device (device/trace). Nothing
in the file is secret; it tells the device's serial number. Tokens of the
inventory, other seeds, and OATH applets with a password or with credentials are
refused. A Nitrokey Pro or Storage must have its admin PIN of the factory,
12345678; another one costs it one of its three tries.`

func traceCommand() *cli.Command {
	return &cli.Command{
		Name: "trace", Usage: "record what is said to a device, for tests", Category: "Work", Description: traceHelp, Action: group,
		Subcommands: []*cli.Command{{
			Name: "record", Usage: "record an enroll with a published seed; the token is erased", ArgsUsage: "DEVICE", Action: recordTrace,
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "app", Usage: "its application: otp1, otp2, hotp1 to hotp3, or oath:NAME", Value: "otp2"},
				&cli.StringFlag{Name: "seed", Usage: "the published seed: rfc4226, rfc2202-2 (4 bytes) or rfc2202-5", Value: "rfc4226"},
				&cli.IntFlag{Name: "digits", Usage: "6 or 8", Value: 6},
				&cli.BoolFlag{Name: "overwrite", Usage: "also if there is something in it, which is lost"},
				&cli.BoolFlag{Name: "yes", Usage: "do not ask for confirmation"}, outputFlag, forceFlag,
			},
		}},
	}
}

func recordTrace(c *cli.Context) error {
	args, err := arguments(c, "device")
	if err != nil {
		return err
	}
	file := c.String("output")
	if file == "" || file == "-" && c.Bool("json") {
		return usage("say where the trace goes: --output FILE")
	}
	if err := sensible(api.Enroll{Device: args[0], App: c.String("app"), Digits: c.Int("digits")}); err != nil {
		return err
	}
	token := args[0] + "/" + c.String("app")
	path, err := pathOf(token)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(file); err == nil && !c.Bool("force") { // better known before than afterwards
		return usage("%s exists: name another file (--output FILE), or replace it (--force)", file)
	}
	if err := confirm(c, "%s gets a published seed and is erased", token); err != nil {
		return err
	}
	out := output(c)
	if file == "-" { // which is the trace's
		out = screenOn(c.App.ErrWriter)
	}
	outcome, err := follow(c, out, path+"/trace", api.RecordTrace{Seed: c.String("seed"), Digits: c.Int("digits"), Overwrite: c.Bool("overwrite")})
	if err != nil {
		return err
	}
	if file == "-" {
		_, err := io.WriteString(c.App.Writer, outcome.Trace)
		return err
	}
	if err := writeFile(file, c.Bool("force"), func(w io.Writer) error { _, err := io.WriteString(w, outcome.Trace); return err }); err != nil {
		return err
	}
	if out.json {
		return out.printJSON(printed{File: file, Kind: "trace", Token: token})
	}
	out.done("%s; the trace is in %s", outcome.Text, file)
	return nil
}
