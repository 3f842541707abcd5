package main

import (
	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

func passwordCommand() *cli.Command {
	return &cli.Command{
		Name: "password", Usage: "give the desk the password or PIN that a device wants before it is programmed", ArgsUsage: "TOKEN", Category: "Work", Action: password,
		Description: "OATH applets may have a password, and Nitrokeys have an admin PIN. The inserted device is asked whether it is the right one, and the vault\n" +
			"keeps it until the last token that needs it is wiped, or somebody has it forgotten. The desk never changes it.",
		Flags: []cli.Flag{
			&cli.PathFlag{Name: "pin-file", Usage: "read it from the first line of `FILE`"},
			&cli.BoolFlag{Name: "pin-stdin", Usage: "read it from the first line of the standard input"},
		},
	}
}

func forgetPasswordCommand() *cli.Command {
	return &cli.Command{
		Name: "forget-password", Usage: "have the desk forget the password or PIN of a device", ArgsUsage: "TOKEN",
		Category: "Work", Action: forgetPassword,
	}
}

func password(c *cli.Context) error {
	path, err := tokenPath(c)
	if err != nil {
		return err
	}
	word, _, err := pin(c, "Password or PIN of the device")
	if err != nil {
		return err
	}
	defer wipe(word)
	if word.IsZero() {
		return usage("an empty password is none")
	}
	var done api.Outcome
	if err := daemon(c).PostSecret(c.Context, path+"/password", nil, &done, word); err != nil {
		return err
	}
	return told(c, done)
}

func forgetPassword(c *cli.Context) error {
	path, err := tokenPath(c)
	if err != nil {
		return err
	}
	var done api.Outcome
	if err := daemon(c).Post(c.Context, path+"/password/forget", nil, &done); err != nil {
		return err
	}
	return told(c, done)
}

func told(c *cli.Context, done api.Outcome) error {
	out := output(c)
	if out.json {
		return out.printJSON(done)
	}
	out.say("%s", done.Text)
	return nil
}
