// Command tokendesk is the desk's command line. It shows what tokendeskd knows and asks it to act; it
// opens neither keys nor the vault, and needs no cgo. Secrets pass through it in locked memory that is wiped: on the way to
// the daemon, PINs and identities, read from a terminal or a file; on the way to its holder, a card's PIN.
//
// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no daemon or one of another version, 4 no such token,
// 5 refused, 6 trouble with the key, 7 not verified, 8 unfinished (resolve settles it), 9 vault locked or unusable.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/client"
	"tokendesk/cmd/internal/flagorder"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	app := newApp()
	args, err := flagorder.Sort(app, os.Args)
	if err == nil {
		err = app.RunContext(ctx, args)
	}
	os.Exit(report(err))
}

// exitCodes explains what api.Code.ExitCode gives.
const exitCodes = `Exit codes: 0 done; 1 failed; 2 wrong usage; 3 no daemon, or one of another
version; 4 no such token; 5 refused; 6 trouble with the key; 7 not verified;
8 unfinished; 9 vault: locked or unusable.`

// report tells an error and chooses the exit code.
func report(err error) int {
	if err == nil {
		return 0
	}
	if silent := exitCode(0); errors.As(err, &silent) {
		return int(silent)
	}
	known := (*api.Error)(nil)
	if !errors.As(err, &known) {
		known = api.Errorf(api.Invalid, "%v", err) // only the command line's own parser fails without a code
	}
	words := "tokendesk: " + harmlessLines(strings.Split(known.Message, "\n")) // others' names are in it
	if s := screenOn(os.Stderr); s.terminal {
		s.say("%s", words)
	} else {
		fmt.Fprintln(os.Stderr, words) // one line, for logs
	}
	return known.Code.ExitCode()
}

// exitCode ends the program without another word.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

var shared = []cli.Flag{
	&cli.BoolFlag{Name: "json", Usage: "print JSON, for programs"},
	&cli.PathFlag{Name: "socket", Usage: "the daemon's socket, a `PATH`", EnvVars: []string{api.SocketVariable}, Value: api.DefaultSocket},
}

func newApp() *cli.App {
	app := &cli.App{
		Name:                      "tokendesk",
		Usage:                     "enroll, verify and look after hardware tokens",
		UsageText:                 "tokendesk COMMAND [TOKEN] [flags]",
		Description:               "Tokens are named DEVICE/APPLICATION, for example yk-12345678/otp2.\n\"resync\" finds a drifted counter and keeps the seed; \"reissue\" gives the token a new seed and a new owner.\n\n" + exitCodes,
		HideVersion:               true,
		EnableBashCompletion:      true,
		DisableSliceFlagSeparator: true,
		Commands: slices.Concat(viewCommands(), centralCommands(), workCommands(), stockCommands(), renewCommands(), lifecycleCommands(),
			[]*cli.Command{pivCommand(), oathCommand(), identifyCommand(), leaversCommand(), approvalsCommand()}, paperCommands(), vaultCommands(), auditCommands()),
		OnUsageError:   plainUsageError,
		ExitErrHandler: func(*cli.Context, error) {},
	}
	app.Commands = append(app.Commands, documentCommands(app)...)
	app.Action = func(c *cli.Context) error {
		if c.Args().Present() {
			return usage("there is no command %q: see tokendesk --help", c.Args().First())
		}
		return cli.ShowAppHelp(c)
	}
	for _, command := range app.Commands {
		finish(command)
	}
	return app
}

// finish gives a command what all have. Its subcommands inherit the shared flags: of one's own each would have
// the default, whatever stands before its name.
func finish(c *cli.Command) {
	plain(c)
	if c.Category == documents {
		return
	}
	c.Flags = append(c.Flags, shared...)
	c.Action = failAsAsked(c.Action)
	for _, sub := range c.Subcommands {
		plain(sub)
		sub.Action = failAsAsked(sub.Action)
	}
}

func plain(c *cli.Command) {
	c.HideHelpCommand = true
	c.OnUsageError = plainUsageError
}

// failAsAsked has an action tell its failure as JSON, beside the words, if JSON was asked for.
func failAsAsked(action cli.ActionFunc) cli.ActionFunc {
	return func(c *cli.Context) error {
		err := action(c)
		if known := (*api.Error)(nil); c.Bool("json") && errors.As(err, &known) {
			err = errors.Join(err, output(c).printJSON(api.Event{Error: known}))
		}
		return err
	}
}

// plainUsageError keeps the library from printing the whole help after a wrong flag.
func plainUsageError(_ *cli.Context, err error, _ bool) error { return err }

func usage(format string, args ...any) error { return api.Errorf(api.Invalid, format, args...) }

func daemon(c *cli.Context) *client.Client { return &client.Client{Socket: c.Path("socket")} }

// arguments checks how many arguments there are and what they are called.
func arguments(c *cli.Context, names ...string) ([]string, error) {
	if c.NArg() < len(names) {
		return nil, usage("name the %s: %s %s", names[c.NArg()], c.Command.HelpName, c.Command.ArgsUsage)
	}
	if c.NArg() > len(names) {
		return nil, usage("one argument too many: %s", strings.TrimSpace(c.Command.HelpName+" "+c.Command.ArgsUsage))
	}
	return c.Args().Slice(), nil
}
