// Command tokenemu is a bench of emulated tokens: it serves them on a bus socket, and their smart cards to readers
// of pcscd, or attaches them to this machine's USB, and plugs, pulls, touches and breaks them.
//
// It is a separate program so that no production binary contains a token that is none; the daemon reaches
// it only through the socket and the readers that its configuration names, or finds its tokens on the kernel's virtual
// USB, and marks what comes from there EMULATED. Tokens live as long as the process. Standard output carries only
// what was asked for; everything else goes to standard error, and a failure exits with 1.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/flagorder"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "tokenemu:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	app := newApp(stdout, stderr)
	args, err := flagorder.Sort(app, args)
	if err != nil {
		return fmt.Errorf("%w; see tokenemu --help", err)
	}
	return app.RunContext(ctx, args)
}

func newApp(stdout, stderr io.Writer) *cli.App {
	return &cli.App{
		Name:                      "tokenemu",
		Usage:                     "a bench of emulated hardware tokens",
		Writer:                    stdout,
		ErrWriter:                 stderr,
		HideVersion:               true,
		DisableSliceFlagSeparator: true, // --yubikey has commas of its own
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              usageError,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return fmt.Errorf("there is no command %q; see tokenemu --help", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
		Commands: []*cli.Command{
			onSocket(serveCommand()), onSocket(attachCommand()), onSocket(insertCommand()), onSocket(removeCommand()),
			onSocket(touchCommand()), onSocket(faultCommand()), onSocket(listCommand()),
		},
	}
}

func usageError(c *cli.Context, err error, _ bool) error {
	name := "tokenemu"
	if c.Command != nil && c.Command.Name != name {
		name += " " + c.Command.Name
	}
	return fmt.Errorf("%w; see %s --help", err, name)
}

// onSocket completes a command that needs the bus socket.
func onSocket(command *cli.Command) *cli.Command {
	command.Flags = append([]cli.Flag{&cli.StringFlag{
		Name:    "socket",
		Usage:   "`PATH` of the bus socket",
		EnvVars: []string{"TOKENEMU_SOCKET"},
	}}, command.Flags...)
	command.HideHelpCommand = true
	command.OnUsageError = usageError
	command.Before = func(c *cli.Context) error {
		if c.String("socket") == "" {
			return errors.New("no socket is named; give --socket PATH or set TOKENEMU_SOCKET")
		}
		return nil
	}
	return command
}
