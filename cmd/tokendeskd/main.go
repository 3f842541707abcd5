// Command tokendeskd is the desk's daemon. It owns the inserted keys, the vault and the outbox, and
// answers tokendesk on a Unix socket. Its only flags choose the configuration, and to look at nothing else.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/daemon"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := command().RunContext(ctx, os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "tokendeskd:", err)
		os.Exit(1)
	}
}

func command() *cli.App {
	return &cli.App{
		Name:            "tokendeskd",
		Usage:           "the daemon of a hardware-token desk",
		Version:         daemon.Version,
		HideHelpCommand: true,
		Flags: []cli.Flag{
			&cli.PathFlag{Name: "config", Usage: "read the configuration from `FILE`", Value: daemon.DefaultConfigPath},
			&cli.BoolFlag{Name: "check-config", Usage: "check the configuration and exit"},
		},
		Action: run,
	}
}

func run(c *cli.Context) error {
	if c.Args().Present() {
		return fmt.Errorf("unexpected argument %q: see tokendeskd --help", c.Args().First())
	}
	config, err := daemon.LoadConfig(c.Path("config"))
	if err != nil {
		return err
	}
	if c.Bool("check-config") {
		fmt.Fprintf(c.App.Writer, "%s is good\n", c.Path("config"))
		return nil
	}
	if err := daemon.HardenProcess(); err != nil {
		return err
	}
	d := &daemon.Daemon{Config: config, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Heads: os.Stderr}
	return d.Run(c.Context)
}
