// Package flagorder lets flags stand anywhere on a command line of urfave/cli, which by itself takes what
// follows the first argument as arguments, silently: "show TOKEN --json" would look for a token "--json".
//
// It moves words and judges nothing: unknown commands and flags are left where they stand, for the parser
// to refuse. It never loses, invents or changes a word, but for one "--" where an argument would otherwise
// be taken for a flag. Combined short options (-ab) are not taken apart.
package flagorder

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
)

// completion is the flag by which a shell asks for completions; it counts only as the last word.
const completion = "--generate-bash-completion"

// Sort returns args, program name first, with the flags of each command before its arguments. A flag goes
// to the command it stands after, if that has it, else to the nearest enclosing one that has it, else to the
// nearest one named later: global flags may follow a command, and a command's flags precede it. Behind "--"
// everything is an argument; so is "-", and a negative number that is no flag. The only error is a flag at
// the end whose value is missing.
func Sort(app *cli.App, args []string) ([]string, error) {
	if len(args) == 0 || app.EnableBashCompletion && args[len(args)-1] == completion && !slices.Contains(args, "--") {
		return args, nil
	}
	l := &line{levels: []level{{flags: app.Flags, commands: app.Commands}}}
	if err := l.read(args[1:]); err != nil {
		return nil, err
	}
	return append([]string{args[0]}, l.words()...), nil
}

// level is the program or a command named on the line, with what belongs to it.
type level struct {
	name     string
	flags    []cli.Flag
	commands []*cli.Command
	given    []given // its flags on this line, and those that nobody knew when they came
}

// given is a flag on the line, with its value if that is a word of its own.
type given struct {
	name  string
	words []string
}

func (l *level) flag(name string) cli.Flag {
	for _, f := range l.flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

// line is a command line taken apart.
type line struct {
	levels    []level
	arguments []string
	rest      []string // left as it is
}

func (l *line) read(words []string) error {
	for len(words) > 0 {
		here := &l.levels[len(l.levels)-1]
		w := words[0]
		switch name, whole := flagName(w); {
		case w == "--":
			l.rest = words
			words = nil
		case name != "" && !(isNumber(w) && l.find(name) < 0):
			n := 1
			if !whole && l.takesValue(name) {
				if n = 2; len(words) < n {
					return fmt.Errorf("%s needs a value", w)
				}
			}
			l.place(name, words[:n])
			words = words[n:]
		case len(here.commands) > 0:
			c := command(here.commands, w)
			if c == nil || c.SkipFlagParsing {
				l.rest = words
				words = nil
				break
			}
			l.levels = append(l.levels, level{name: w, flags: c.Flags, commands: c.Subcommands})
			words = words[1:]
		default:
			l.arguments = append(l.arguments, w)
			words = words[1:]
		}
	}
	return nil
}

// flagName returns the name of the flag that w gives, empty if it gives none, and whether w holds its value.
func flagName(w string) (name string, whole bool) {
	if len(w) < 2 || w[0] != '-' {
		return "", false
	}
	// Like package flag, which takes one dash or two, and refuses "--=", "---x" and the like.
	name, _, whole = strings.Cut(strings.TrimPrefix(w[1:], "-"), "=")
	if name == "" {
		name = w
	}
	return name, whole
}

func isNumber(w string) bool {
	_, err := strconv.ParseFloat(w, 64)
	return err == nil && strings.ContainsAny(w[1:2], ".0123456789") // -Inf is no number that anybody means
}

func command(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

// find returns the innermost level that has the flag, or -1.
func (l *line) find(name string) int {
	for i, v := range slices.Backward(l.levels) {
		if v.flag(name) != nil {
			return i
		}
	}
	return -1
}

// takesValue reports whether the word after the flag is its value. A flag that only commands named later
// can have takes one if it does in all of them.
func (l *line) takesValue(name string) bool {
	if i := l.find(name); i >= 0 {
		return takesValue(l.levels[i].flag(name))
	}
	boolean, value := kinds(l.levels[len(l.levels)-1].commands, name)
	return value && !boolean
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return !ok || d.TakesValue()
}

// kinds reports whether commands, or theirs, have a flag of that name without and with a value.
func kinds(commands []*cli.Command, name string) (boolean, value bool) {
	for _, c := range commands {
		if f := (&level{flags: c.Flags}).flag(name); f != nil {
			value = value || takesValue(f)
			boolean = boolean || !takesValue(f)
		}
		b, v := kinds(c.Subcommands, name)
		boolean, value = boolean || b, value || v
	}
	return boolean, value
}

func (l *line) place(name string, words []string) {
	i := l.find(name)
	if i < 0 {
		i = len(l.levels) - 1
	}
	l.levels[i].given = append(l.levels[i].given, given{name, words})
}

// settle hands flags that came too early down to the level that has them, before those given there: of
// several equal flags the last counts.
func (l *line) settle() {
	for i, here := range slices.Backward(l.levels) {
		l.levels[i].given = nil
		down := make([][]given, len(l.levels))
		for _, g := range here.given {
			at := i
			if here.flag(g.name) == nil {
				below := slices.IndexFunc(l.levels[i:], func(v level) bool { return v.flag(g.name) != nil })
				at += max(below, 0)
			}
			down[at] = append(down[at], g)
		}
		for at, early := range down {
			l.levels[at].given = append(early, l.levels[at].given...)
		}
	}
}

// words puts the line together again.
func (l *line) words() []string {
	l.settle()
	var out []string
	for i, v := range l.levels {
		if i > 0 {
			out = append(out, v.name)
		}
		for _, g := range v.given {
			out = append(out, g.words...)
		}
	}
	rest := l.rest
	if len(l.arguments) > 0 {
		terminated := len(rest) > 0 && rest[0] == "--"
		if terminated {
			rest = rest[1:]
		}
		if name, _ := flagName(l.arguments[0]); terminated || name != "" {
			out = append(out, "--")
		}
	}
	return append(append(out, l.arguments...), rest...)
}
