package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

const bashCompletion = `_tokendesk() {
  local current="${COMP_WORDS[$COMP_CWORD]}" words flag=()
  [[ $current == -* ]] && flag=("$current")
  words=$("${COMP_WORDS[@]:0:$COMP_CWORD}" "${flag[@]}" --generate-bash-completion 2>/dev/null)
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o bashdefault -o default -F _tokendesk tokendesk
`

// documents is the category of commands that do not ask the daemon.
const documents = "Documents"

// documentCommands print what is installed beside the program.
func documentCommands(app *cli.App) []*cli.Command {
	return []*cli.Command{
		{
			Name: "completion", Usage: "print completion for a shell", ArgsUsage: "bash|fish", Category: documents,
			Action: func(c *cli.Context) error {
				args, err := arguments(c, "shell")
				if err != nil {
					return err
				}
				switch args[0] {
				case "bash":
					fmt.Fprint(c.App.Writer, bashCompletion)
					return nil
				case "fish":
					script, err := app.ToFishCompletion()
					fmt.Fprint(c.App.Writer, script)
					return err
				}
				return usage("there is completion for bash and fish, not for %q", args[0])
			},
		},
		{
			Name: "man", Usage: "print the manual page", Category: documents,
			Action: func(c *cli.Context) error {
				page, err := described(*app).ToMan()
				fmt.Fprint(c.App.Writer, page)
				return err
			},
		},
	}
}

// described has the program's description tell those of its commands, too, which a manual page would leave out.
func described(app cli.App) *cli.App {
	for _, c := range app.Commands {
		if c.Description != "" {
			app.Description += "\n\n" + c.Description
		}
	}
	return &app
}
