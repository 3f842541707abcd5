package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

func captureFlag() cli.Flag {
	return &cli.BoolFlag{Name: "capture", Usage: "capture codes by touches of the inserted key"}
}

func testCommand() *cli.Command {
	return &cli.Command{
		Name: "test", Usage: "check one code of a token; the code is used up", ArgsUsage: "TOKEN [CODE]",
		Category: "Work", Action: testCode, Flags: []cli.Flag{captureFlag()},
	}
}

const resyncDescription = `A resync keeps the seed and finds where the token's counter is, for a token that was touched too often.
A reseed gives the token a new seed and starts over, for one whose seed may be known to others, or which no resync can bring back.

Give two consecutive codes, oldest first, or three. Codes up to 1000 touches ahead are found; up to 10000, a second officer has to
approve it. When the codes do not fit, it says why.

A file has lines TOKEN,CODE,CODE[,CODE], with commas or semicolons; a first line that names columns, empty lines, and lines that begin
with # are skipped. Every line gets a result. With --capture and no token, every inserted key is resynced: touch each twice, in any
order.`

func resyncCommand() *cli.Command {
	return &cli.Command{
		Name: "resync", Usage: "find a drifted counter from two or three consecutive codes; the seed stays",
		ArgsUsage: "TOKEN [CODE CODE [CODE]]", Description: resyncDescription, Category: "Work", Action: resync,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "capture", Usage: "capture codes by touches of the inserted key, or without TOKEN of all inserted keys"},
			&cli.StringFlag{Name: "file", Usage: "resync the tokens in `FILE`, or - for standard input"},
			&cli.StringFlag{Name: "format", Usage: "of several results: `table` or csv", Value: "table"},
		},
	}
}

func testCode(c *cli.Context) error {
	path, typed, err := givenCodes(c, 1, 1)
	if err != nil {
		return err
	}
	return afterMiss(c, path, work(c, path+"/test", api.Codes{Codes: typed, Capture: c.Bool("capture")}))
}

func resync(c *cli.Context) error {
	if f := c.String("format"); f != "table" && f != "csv" {
		return usage("--format is table or csv, not %q", cut(harmless(f), 24))
	}
	switch {
	case c.String("file") != "" && (c.NArg() > 0 || c.Bool("capture")):
		return usage("the codes are in the file, or given, or captured")
	case c.String("file") != "":
		return resyncFile(c)
	case c.NArg() == 0 && c.Bool("capture"):
		return resyncTray(c)
	}
	path, typed, err := givenCodes(c, 2, 3)
	if err != nil {
		return err
	}
	return work(c, path+"/resync", api.Codes{Codes: typed, Capture: c.Bool("capture")})
}

// givenCodes are the path of the token and the codes on the command line, if they are not to be captured.
func givenCodes(c *cli.Context, least, most int) (path string, typed []string, err error) {
	if c.NArg() == 0 {
		return "", nil, usage("name the token: tokendesk %s %s", c.Command.Name, c.Command.ArgsUsage)
	}
	if path, err = pathOf(c.Args().First()); err != nil {
		return "", nil, err
	}
	typed = plainCodes(c.Args().Tail())
	switch capture := c.Bool("capture"); {
	case capture && len(typed) > 0:
		return "", nil, usage("codes are either given or captured, not both")
	case !capture && (len(typed) < least || len(typed) > most):
		return "", nil, usage("give the codes, oldest first, or --capture them: tokendesk %s %s", c.Command.Name, c.Command.ArgsUsage)
	}
	return path, typed, nil
}

// resyncFile resyncs the tokens of a list.
func resyncFile(c *cli.Context) error {
	list, err := readList(c, c.String("file"))
	if err != nil {
		return err
	}
	lines, err := parseResyncs(list)
	if err != nil {
		return err
	}
	var good []*resyncLine
	in := api.ResyncLines{Lines: []api.ResyncLine{}}
	for _, l := range lines {
		if l.Problem == nil {
			good = append(good, l)
			in.Lines = append(in.Lines, api.ResyncLine{Line: l.Line, Token: l.Token, Codes: l.codes})
		}
	}
	if len(good) > 0 {
		if err := resyncAll(c, in, good); err != nil {
			return err
		}
	}
	return printResynced(c, lines)
}

// resyncAll has lines resynced, and notes what became of each.
func resyncAll(c *cli.Context, in api.ResyncLines, lines []*resyncLine) error {
	out := output(c)
	shows, next := out.terminal && !out.json && c.String("format") == "table", 0
	err := daemon(c).Resync(c.Context, in, func(e api.ResyncEvent) {
		if shows && e.Of > 0 {
			out.printf("\r%d of %d lines", e.Done, e.Of)
		}
		for _, r := range e.Results {
			if next < len(lines) {
				lines[next].ResyncResult = r
				next++
			}
		}
	})
	if shows {
		out.printf("\r\x1b[K")
	}
	if err == nil && next != len(lines) {
		err = api.Errorf(api.Internal, "tokendeskd answered %d of %d lines: look at tokendesk list before repeating", next, len(lines))
	}
	return err
}

func printResynced(c *cli.Context, lines []*resyncLine) error {
	out, bad := output(c), 0
	for _, l := range lines {
		if l.Problem != nil {
			bad++
		}
	}
	var failed error
	if bad > 0 {
		failed = api.Errorf(api.NotVerified, "%d of %s not resynced", bad, these(len(lines), "1 line was", "%d lines were"))
	}
	switch {
	case out.json:
		return errors.Join(out.printJSON(struct {
			Lines []*resyncLine `json:"lines"`
		}{append([]*resyncLine{}, lines...)}), failed)
	case c.String("format") == "csv":
		return cmp.Or(writeResynced(c.App.Writer, lines), failed)
	case len(lines) == 0:
		out.printf("The list names no token.\n")
		return nil
	}
	var rows []row
	for _, l := range lines {
		r := row{cells: []string{fmt.Sprint(l.Line), cut(or(l.Token, "?"), 26), cut(l.Owner, 20), l.shown(out)}}
		if l.Problem != nil {
			r.below = harmless(strings.TrimPrefix(l.Problem.Message, l.Token+": "))
		}
		rows = append(rows, r)
	}
	out.table([]string{"LINE", "TOKEN", "OWNER", "RESULT"}, rows)
	return failed
}
