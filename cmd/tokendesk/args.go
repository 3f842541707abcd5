package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// flagsFirst moves flags before arguments, so that "show TOKEN --json" means the same as
// "show --json TOKEN": the library would silently take the flag for an argument.
func flagsFirst(app *cli.App, args []string) ([]string, error) {
	path := []string{args[0]}
	commands := app.Commands
	known := shared
	var flags, rest []string
	for todo := args[1:]; len(todo) > 0; {
		arg := todo[0]
		todo = todo[1:]
		switch {
		case arg == "--":
			rest = append(rest, todo...)
			todo = nil
		case len(arg) > 1 && arg[0] == '-':
			flags = append(flags, arg)
			if takesValue(known, arg) {
				if len(todo) == 0 {
					return nil, usage("the flag %s needs a value", arg)
				}
				flags = append(flags, todo[0])
				todo = todo[1:]
			}
		default:
			i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(arg) })
			if i < 0 || len(rest) > 0 {
				rest = append(rest, arg)
				commands = nil
				continue
			}
			path = append(path, arg)
			known = commands[i].Flags
			commands = commands[i].Subcommands
		}
	}
	out := append(path, flags...)
	if len(rest) > 0 && slices.ContainsFunc(rest, func(s string) bool { return strings.HasPrefix(s, "-") }) {
		out = append(out, "--")
	}
	return append(out, rest...), nil
}

func takesValue(flags []cli.Flag, arg string) bool {
	name, _, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	if hasValue {
		return false
	}
	for _, f := range flags {
		if _, isBool := f.(*cli.BoolFlag); !isBool && slices.Contains(f.Names(), name) {
			return true
		}
	}
	return false
}
