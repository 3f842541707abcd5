package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// flagsFirst moves the flags of a command before its arguments: urfave/cli takes what follows the first
// argument as arguments, silently. What follows "--" stays an argument.
func flagsFirst(app *cli.App, args []string) ([]string, error) {
	if len(args) < 2 {
		return args, nil
	}
	command := app.Command(args[1])
	if command == nil {
		return args, nil
	}
	flags := slices.Clone(args[:2])
	var arguments []string
	for rest := args[2:]; len(rest) > 0; rest = rest[1:] {
		a := rest[0]
		if a == "--" {
			arguments = append(arguments, rest[1:]...)
			break
		}
		if !strings.HasPrefix(a, "-") || a == "-" {
			arguments = append(arguments, a)
			continue
		}
		flags = append(flags, a)
		name, _, whole := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if whole || !takesValue(command, name) {
			continue
		}
		if len(rest) < 2 {
			return nil, fmt.Errorf("%s needs a value; see tokenemu %s --help", a, command.Name)
		}
		rest = rest[1:]
		flags = append(flags, rest[0])
	}
	if len(arguments) > 0 {
		flags = append(append(flags, "--"), arguments...)
	}
	return flags, nil
}

func takesValue(command *cli.Command, name string) bool {
	for _, f := range command.Flags {
		if slices.Contains(f.Names(), name) {
			_, isBool := f.(*cli.BoolFlag)
			return !isBool
		}
	}
	return false // unknown: urfave/cli will say so
}
