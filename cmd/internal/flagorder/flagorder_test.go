package flagorder_test

import (
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/flagorder"
)

// parsed is what the parser of urfave/cli made of a line.
type parsed struct {
	command string
	args    []string
	flags   string // those that were set, by name
}

// newApp is a program with the shapes of flags and commands that matter; got receives what was run.
func newApp(got *parsed) *cli.App {
	shared := func() []cli.Flag {
		return []cli.Flag{&cli.BoolFlag{Name: "json"}, &cli.PathFlag{Name: "socket", Aliases: []string{"s"}}}
	}
	names := []string{"verbose", "level", "json", "socket", "times", "long", "all", "to", "key", "mode"}
	action := func(c *cli.Context) error {
		*got = parsed{command: c.Command.Name, args: c.Args().Slice()}
		for _, name := range names {
			if c.IsSet(name) {
				got.flags += name + "=" + strings.TrimSpace(stringOf(c, name)) + " "
			}
		}
		return nil
	}
	quiet := func(_ *cli.Context, err error, _ bool) error { return err }
	app := &cli.App{
		Name:                 "prog",
		Writer:               io.Discard,
		ErrWriter:            io.Discard,
		EnableBashCompletion: true,
		OnUsageError:         quiet,
		ExitErrHandler:       func(*cli.Context, error) {},
		Flags:                []cli.Flag{&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}}, &cli.IntFlag{Name: "level"}},
		HideVersion:          true,
		Commands: []*cli.Command{
			{Name: "touch", Aliases: []string{"t"}, Action: action, Flags: append(shared(),
				&cli.IntFlag{Name: "times", Aliases: []string{"n"}}, &cli.BoolFlag{Name: "long"}, &cli.StringSliceFlag{Name: "key"}, &cli.StringFlag{Name: "mode"})},
			{Name: "token", Subcommands: []*cli.Command{
				{Name: "assign", Action: action, Flags: append(shared(), &cli.StringFlag{Name: "to"}, &cli.BoolFlag{Name: "mode"})},
				{Name: "list", Action: action, Flags: append(shared(), &cli.BoolFlag{Name: "all"}, &cli.BoolFlag{Name: "4"})},
			}},
			{Name: "raw", SkipFlagParsing: true, Action: action},
		},
	}
	finish(app.Commands, quiet)
	return app
}

func finish(commands []*cli.Command, quiet cli.OnUsageErrorFunc) {
	for _, c := range commands {
		c.OnUsageError = quiet
		c.HideHelpCommand = true
		finish(c.Subcommands, quiet)
	}
}

func stringOf(c *cli.Context, name string) string {
	switch v := c.Value(name).(type) {
	case bool:
		return strconv.FormatBool(v)
	case int:
		return strconv.Itoa(v)
	case string:
		return v
	case cli.StringSlice:
		return strings.Join(v.Value(), "+")
	}
	return "?"
}

func TestSort(t *testing.T) {
	for _, c := range []struct{ name, line, want string }{
		{"nothing", "", ""},
		{"only a command", "touch", "touch"},
		{"flags behind arguments", "touch 7 --long 8 --json", "touch --long --json 7 8"},
		{"in order already", "touch --long 7", "touch --long 7"},
		{"a value", "touch 7 --times 2 8", "touch --times 2 7 8"},
		{"a value with =", "touch 7 --times=2 8", "touch --times=2 7 8"},
		{"one dash", "touch 7 -times 2 -long", "touch -times 2 -long 7"},
		{"an alias of a flag", "touch 7 -n 2", "touch -n 2 7"},
		{"an alias of a command", "t 7 --long", "t --long 7"},
		{"a value like a flag", "touch 7 --socket --long", "touch --socket --long 7"},
		{"a value like a command", "touch 7 --socket touch", "touch --socket touch 7"},
		{"a value that is --", "touch 7 --socket -- --long", "touch --socket -- --long 7"},
		{"a repeated value", "touch --key a 7 --key b", "touch --key a --key b 7"},
		{"a boolean takes no value", "touch --long false", "touch --long false"},
		{"a boolean with a value", "touch 7 --long=false", "touch --long=false 7"},
		{"behind --", "touch 7 --long -- --json", "touch --long -- 7 --json"},
		{"-- without need", "touch -- 7", "touch -- 7"},
		{"-- behind --", "touch 7 -- -- x", "touch -- 7 -- x"},
		{"-- at the end", "touch --long --", "touch --long --"},
		{"-- before the command", "-- touch 7 --long", "-- touch 7 --long"},
		{"a lone dash", "touch - --long", "touch --long -"},
		{"an empty argument", "touch  --long", "touch --long "},
		{"a negative number", "touch 7 --long -1", "touch --long 7 -1"},
		{"a negative number first", "touch -1 7 --long", "touch --long -- -1 7"},
		{"a negative fraction", "touch -.5 --long", "touch --long -- -.5"},
		{"a negative value", "touch 7 --times -1", "touch --times -1 7"},
		{"a number that is a flag", "token list x -4", "token list -4 x"},
		{"nested", "token assign yk-1/otp2 --to anna --json", "token assign --to anna --json yk-1/otp2"},
		{"nested, flags in between", "token --json assign x", "token assign --json x"},
		{"flags of a command before it", "--socket s touch 7", "touch --socket s 7"},
		{"the later one still counts", "--json=false touch 7 --json", "touch --json=false --json 7"},
		{"two early ones keep their order", "--socket a --socket b touch", "touch --socket a --socket b"},
		{"global", "--verbose touch 7", "--verbose touch 7"},
		{"global behind a command", "touch 7 --verbose --long", "--verbose touch --long 7"},
		{"global with a value behind a nested command", "token list --level 3 --all x", "--level 3 token list --all x"},
		{"boolean or value, by command", "--mode x touch", "--mode x touch"},
		{"unknown flag", "touch 7 --hard 8", "touch --hard 7 8"},
		{"unknown flag before a command", "--hard touch 7", "--hard touch 7"},
		{"malformed flags", "touch 7 --=x ---y", "touch --=x ---y 7"},
		{"unknown command", "dance 7 --long", "dance 7 --long"},
		{"unknown subcommand", "token dance --json", "token dance --json"},
		{"help for a command", "touch 7 --help", "touch --help 7"},
		{"command help", "help touch --x", "help touch --x"},
		{"a command with flags of its own making", "raw 7 --long", "raw 7 --long"},
		{"completion", "touch 7 --long --generate-bash-completion", "touch 7 --long --generate-bash-completion"},
		{"completion of a value", "touch 7 --socket --generate-bash-completion", "touch 7 --socket --generate-bash-completion"},
		{"no completion behind --", "touch 7 --long -- --generate-bash-completion", "touch --long -- 7 --generate-bash-completion"},
	} {
		args := []string{"prog"}
		if c.line != "" {
			args = append(args, strings.Split(c.line, " ")...)
		}
		before := slices.Clone(args)
		got, err := flagorder.Sort(newApp(new(parsed)), args)
		if err != nil || strings.Join(got[1:], " ") != c.want || got[0] != "prog" {
			t.Errorf("%s: %q became %q, %v", c.name, c.line, got, err)
		}
		if !slices.Equal(args, before) {
			t.Errorf("%s: the caller's words were changed", c.name)
		}
	}
	if got, err := flagorder.Sort(newApp(new(parsed)), nil); err != nil || len(got) != 0 {
		t.Errorf("no words at all became %q, %v", got, err)
	}
}

func TestMissingValue(t *testing.T) {
	for line, flag := range map[string]string{
		"touch 7 --times":   "--times",
		"touch 7 -n":        "-n",
		"touch --long -s":   "-s",
		"--socket":          "--socket",
		"token list -level": "-level",
	} {
		got, err := flagorder.Sort(newApp(new(parsed)), append([]string{"prog"}, strings.Fields(line)...))
		if err == nil || err.Error() != flag+" needs a value" {
			t.Errorf("%q became %q, %v", line, got, err)
		}
	}
}

// TestParser has the real parser say what it understands.
func TestParser(t *testing.T) {
	for line, want := range map[string]parsed{
		"touch 7 --times 2 8 --long --socket=s":      {"touch", []string{"7", "8"}, "socket=s times=2 long=true "},
		"touch 7 -- --long":                          {"touch", []string{"7", "--long"}, ""},
		"touch -1 --verbose -":                       {"touch", []string{"-1", "-"}, "verbose=true "},
		"--json --level 3 token assign x --to anna":  {"assign", []string{"x"}, "level=3 json=true to=anna "},
		"touch 7 --key a --key=b --times -1":         {"touch", []string{"7"}, "times=-1 key=a+b "},
		"--socket a touch x --socket b":              {"touch", []string{"x"}, "socket=b "},
		"raw x --long -- y":                          {"raw", []string{"x", "--long", "--", "y"}, ""},
		"token list x -4 -1 --all":                   {"list", []string{"x", "-1"}, "all=true "},
		"touch --long -- --generate-bash-completion": {"touch", []string{"--generate-bash-completion"}, "long=true "},
	} {
		var got parsed
		app := newApp(&got)
		args, err := flagorder.Sort(app, append([]string{"prog"}, strings.Fields(line)...))
		if err == nil {
			err = app.Run(args)
		}
		if err != nil || got.command != want.command || !slices.Equal(got.args, want.args) || got.flags != want.flags {
			t.Errorf("%q was understood as %+v, %v", line, got, err)
		}
	}
}

func FuzzSort(f *testing.F) {
	for _, line := range []string{
		"touch 7 --long -- --json", "token assign x --to anna --verbose", "--socket s t - -1 --times=2", "dance --x",
		"touch --generate-bash-completion", "-- -- touch", "raw --long", "token -4 list -4 -5 ---x --= =",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := append([]string{"prog"}, strings.Split(line, " ")...)
		var got parsed
		app := newApp(&got)
		out, err := flagorder.Sort(app, args)
		if err != nil {
			return
		}
		if again, err := flagorder.Sort(app, out); err != nil || !slices.Equal(again, out) {
			t.Fatalf("%q became %q, and that %q, %v", args, out, again, err)
		}
		was, is := slices.Sorted(slices.Values(args)), slices.Sorted(slices.Values(out))
		if len(is) == len(was)+1 { // "--" may be added
			i := slices.Index(is, "--")
			if i < 0 {
				t.Fatalf("%q became %q", args, out)
			}
			is = slices.Delete(is, i, i+1)
		}
		if !slices.Equal(was, is) {
			t.Fatalf("%q became %q", args, out)
		}
		if app.Run(out) != nil || got.command == "" || got.command == "raw" {
			return
		}
		// What the parser takes for arguments stood there in that order, and no flag is among them.
		rest := args
		for _, a := range got.args {
			i := slices.Index(rest, a)
			if i < 0 {
				t.Fatalf("%q became %q: the arguments %q are not in order", args, out, got.args)
			}
			if slices.Contains([]string{"--long", "--json", "--verbose", "-n"}, a) && !slices.Contains(args, "--") {
				t.Fatalf("%q became %q: the flag %s is an argument", args, out, a)
			}
			rest = rest[i+1:]
		}
	})
}
