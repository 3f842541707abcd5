package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"tokendesk/cmd/internal/api"
)

// narrow is the width that everything fits into; on a terminal it is the terminal's.
const narrow = 80

// screen is where a command writes to.
type screen struct {
	io.Writer
	width    int
	terminal bool
	colour   bool
	json     bool
}

func output(c *cli.Context) screen {
	s := screenOn(c.App.Writer)
	s.json = c.Bool("json")
	return s
}

func screenOn(w io.Writer) screen {
	s := screen{Writer: w, width: narrow}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			s.width = w
		}
		s.terminal = true
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
	case "limbo", "parked", "compromised":
		return s.paint(text.FgRed, word)
	case "pending", "disabled", "expired", "waiting", "ready", "paused", "held":
		return s.paint(text.FgYellow, word)
	}
	return word
}

// row is a line of a table, and what there is to say below it.
type row struct {
	cells []string
	below string
}

// table prints rows under headings, aligned and without frames. The last column and what stands below a row
// may wrap; a column that is empty in every row is left out.
func (s screen) table(headings []string, rows []row) {
	widths := make([]int, len(headings))
	for _, r := range rows {
		for i, cell := range r.cells {
			widths[i] = max(widths[i], text.StringWidthWithoutEscSequences(cell))
		}
	}
	var columns []int
	used, last := 0, 0
	for i, w := range widths {
		if w > 0 {
			widths[i] = max(w, len(headings[i]))
			columns = append(columns, i)
			last = used
			used += widths[i] + len(gap)
		}
	}
	line := func(cell func(column int) string) {
		var b strings.Builder
		for i, column := range columns {
			if i < len(columns)-1 {
				b.WriteString(text.Pad(cell(column), widths[column], ' ') + gap)
				continue
			}
			wrapped := wrap(cell(column), s.width-last)
			b.WriteString(strings.Join(wrapped, "\n"+strings.Repeat(" ", last)))
		}
		for l := range strings.Lines(b.String()) {
			fmt.Fprintln(s, strings.TrimRight(l, " \n"))
		}
	}
	line(func(column int) string { return s.paint(text.Bold, headings[column]) })
	for _, r := range rows {
		line(func(column int) string { return r.cells[column] })
		if r.below != "" {
			for _, l := range wrap(r.below, s.width-len(indent)) {
				fmt.Fprintln(s, indent+l)
			}
		}
	}
}

const (
	gap    = "  "
	indent = "    "
)

// wrap breaks text into lines of at most width cells, between words where it can. Lines that are there stay.
func wrap(words string, width int) (lines []string) {
	for line := range strings.SplitSeq(words, "\n") {
		for l := range strings.SplitSeq(text.WrapSoft(line, max(20, width)), "\n") {
			lines = append(lines, strings.TrimRight(l, " "))
		}
	}
	return lines
}

// fields prints names and values, one a line.
func (s screen) fields(rows [][2]string) {
	width := 0
	for _, r := range rows {
		width = max(width, len(r[0]))
	}
	for _, r := range rows {
		lines := wrap(r[1], s.width-width-len(gap))
		s.printf("%s%s%s\n", s.paint(text.Bold, fmt.Sprintf("%-*s", width, r[0])), gap, lines[0])
		for _, more := range lines[1:] {
			s.printf("%*s%s%s\n", width, "", gap, more)
		}
	}
}

func (s screen) done(format string, args ...any) { s.mark(text.FgGreen, "✓", format, args...) }

func (s screen) wait(format string, args ...any) { s.mark(text.FgYellow, "…", format, args...) }

// mark prints a line of progress, and goes on below its words if they are too long.
func (s screen) mark(c text.Color, sign, format string, args ...any) {
	lines := wrap(fmt.Sprintf(format, args...), s.width-2)
	s.printf("%s %s\n", s.paint(c, sign), strings.Join(lines, "\n  "))
}

// say prints words of any length.
func (s screen) say(format string, args ...any) {
	s.printf("%s\n", strings.Join(wrap(fmt.Sprintf(format, args...), s.width), "\n"))
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
	words := wrap(fmt.Sprintf(format, args...)+". Go on? [y/N]", screenOn(c.App.ErrWriter).width-1)
	answer, err := ask(c, "%s ", strings.Join(words, "\n"))
	if a := strings.ToLower(answer); err == nil && a != "y" && a != "yes" {
		err = api.Errorf(api.Refused, "nothing was changed")
	}
	return err
}

// ask reads a line that somebody types. Ctrl-C ends it at once.
func ask(c *cli.Context, format string, args ...any) (string, error) {
	fmt.Fprintf(c.App.ErrWriter, format, args...)
	read := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(c.App.Reader).ReadString('\n')
		read <- strings.TrimSpace(line)
	}()
	select {
	case line := <-read:
		return line, nil
	case <-c.Context.Done():
		fmt.Fprintln(c.App.ErrWriter)
		return "", api.Errorf(api.Refused, "interrupted; nothing was changed")
	}
}
