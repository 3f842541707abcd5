package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"tokendesk/cmd/internal/api"
)

// narrow is the width that every table fits into; unpiped output uses the terminal's.
const narrow = 80

// screen is where a command writes to.
type screen struct {
	io.Writer
	width  int
	colour bool
	json   bool
}

func output(c *cli.Context) screen {
	s := screen{Writer: c.App.Writer, width: narrow, json: c.Bool("json")}
	if f, ok := c.App.Writer.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			s.width = w
		}
		s.colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	return s
}

// printJSON writes v as one line of JSON that says which version of the API it follows.
func (s screen) printJSON(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return api.Errorf(api.Internal, "cannot write JSON: %v", err)
	}
	rest := string(b[1:]) // v is an object
	if rest != "}" {
		rest = "," + rest
	}
	_, err = fmt.Fprintf(s, "{%q:%q%s\n", "api_version", api.Version, rest)
	return err
}

func (s screen) printf(format string, args ...any) { fmt.Fprintf(s, format, args...) }

func (s screen) paint(c text.Color, words string) string {
	if !s.colour || words == "" {
		return words
	}
	return text.Colors{c}.Sprint(words)
}

// status colours a status by what it asks of the officer.
func (s screen) status(word string) string {
	switch word {
	case "active", "confirmed":
		return s.paint(text.FgGreen, word)
	case "limbo", "parked":
		return s.paint(text.FgRed, word)
	case "pending", "disabled", "waiting":
		return s.paint(text.FgYellow, word)
	}
	return word
}

// table prints rows under headings, aligned and without frames. Cells of the last column may wrap.
func (s screen) table(headings []string, rows [][]string) {
	t := table.NewWriter()
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	style.Format.Header = text.FormatDefault
	t.SetStyle(style)
	widths := make([]int, len(headings))
	header := table.Row{}
	for i, h := range headings {
		header = append(header, s.paint(text.Bold, h))
		widths[i] = len(h)
	}
	t.AppendHeader(header)
	for _, row := range rows {
		cells := table.Row{}
		for i, cell := range row {
			cells = append(cells, cell)
			widths[i] = max(widths[i], text.StringWidthWithoutEscSequences(cell))
		}
		t.AppendRow(cells)
	}
	used := 0
	for _, w := range widths[:len(widths)-1] {
		used += w + 2
	}
	t.SetColumnConfigs([]table.ColumnConfig{{
		Number: len(headings), WidthMax: max(20, s.width-used), WidthMaxEnforcer: text.WrapSoft,
	}})
	for line := range strings.Lines(t.Render() + "\n") {
		fmt.Fprintln(s, strings.TrimRight(line, " \n"))
	}
}

// fields prints names and values, one a line.
func (s screen) fields(rows [][2]string) {
	width := 0
	for _, r := range rows {
		width = max(width, len(r[0]))
	}
	for _, r := range rows {
		lines := strings.Split(text.WrapSoft(r[1], max(30, s.width-width-2)), "\n")
		s.printf("%s  %s\n", s.paint(text.Bold, fmt.Sprintf("%-*s", width, r[0])), strings.TrimRight(lines[0], " "))
		for _, more := range lines[1:] {
			s.printf("%*s  %s\n", width, "", strings.TrimRight(more, " "))
		}
	}
}

func (s screen) done(format string, args ...any) {
	s.printf("%s %s\n", s.paint(text.FgGreen, "✓"), fmt.Sprintf(format, args...))
}

func (s screen) wait(format string, args ...any) {
	s.printf("%s %s\n", s.paint(text.FgYellow, "…"), fmt.Sprintf(format, args...))
}

func moment(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

// cut shortens text to n cells.
func cut(words string, n int) string {
	if text.StringWidthWithoutEscSequences(words) <= n {
		return words
	}
	return text.Trim(words, n-1) + "…"
}

// confirm asks before something that somebody will feel. Scripts say --yes.
func confirm(c *cli.Context, format string, args ...any) error {
	if c.Bool("yes") {
		return nil
	}
	in, ok := c.App.Reader.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return usage("%s. Nobody is at a terminal to confirm it: add --yes", fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(c.App.ErrWriter, "%s. Go on? [y/N] ", fmt.Sprintf(format, args...))
	answer, _ := bufio.NewReader(in).ReadString('\n')
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return api.Errorf(api.Refused, "nothing was changed")
	}
	return nil
}
