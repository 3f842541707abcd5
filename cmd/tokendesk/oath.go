package main

import (
	"fmt"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

func oathCommand() *cli.Command {
	return &cli.Command{
		Name: "oath", Usage: "look into the OATH applet of an inserted device", Category: "Look", Action: group,
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "list its credentials, the desk's and others", ArgsUsage: "DEVICE", Action: listOATH},
		},
	}
}

func listOATH(c *cli.Context) error {
	args, err := arguments(c, "device")
	if err != nil {
		return err
	}
	if !deviceName.MatchString(args[0]) {
		return usage("%q is not a device: devices are named like yk-12345678; tokendesk devices shows them", args[0])
	}
	var found api.OATH
	if err := daemon(c).Get(c.Context, "/v1/oath/"+args[0], nil, &found); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(found)
	}
	if found.Emulated {
		out.say("%s is %s", found.Device, out.paint(text.FgMagenta, "EMULATED"))
	}
	if found.Locked {
		out.say("%s: %s", out.paint(text.FgYellow, "The applet is locked by a password that the desk does not know"), found.Cure)
		return nil
	}
	var rows []row
	for _, f := range found.Credentials {
		status := ""
		if f.Token != "" {
			status = out.status(f.Status)
		}
		rows = append(rows, row{cells: []string{harmless(f.Name), f.Type, f.Algorithm, f.Token, status, f.Owner}})
	}
	if len(rows) > 0 {
		out.table([]string{"CREDENTIAL", "TYPE", "HASH", "TOKEN", "STATUS", "OWNER"}, rows)
	}
	count := fmt.Sprintf("%d credentials", len(rows))
	if found.Capacity > 0 {
		count += fmt.Sprintf(", of %d that fit in", found.Capacity)
	}
	out.say("%s", count)
	return nil
}
