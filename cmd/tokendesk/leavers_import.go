package main

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

// Bounds of a list of leavers, and of what can be said of one, in bytes.
const (
	maxLeaverList = 1 << 20
	maxLeavers    = 5000
	maxSaid       = 200
	perRequest    = 100 // which the API takes at a time
)

// leaverColumns are those that a list may have, in any order; it needs the first.
var leaverColumns = []string{"user", "successor", "deadline", "words"}

// leaverLine is one line of a list of leavers, and what became of it.
type leaverLine struct {
	Line    int        `json:"line"`
	User    string     `json:"user"`
	Added   *api.Added `json:"added,omitempty"`
	Problem *api.Error `json:"problem,omitempty"`

	leaver api.NewLeaver
}

// parseLeavers reads a list of leavers as spreadsheets write them: CSV with commas or semicolons, whose first line names the
// columns. A line that makes no sense has a Problem, and stops no other one. An error is about the list as a whole.
func parseLeavers(list []byte) ([]*leaverLine, error) {
	if len(list) > maxLeaverList {
		return nil, usage("the list is longer than %d KiB: import it in parts", maxLeaverList>>10)
	}
	list = bytes.TrimPrefix(list, []byte("\ufeff"))
	head, rest, _ := strings.Cut(string(list), "\n")
	comma := ','
	if strings.Contains(head, ";") {
		comma = ';'
	}
	columns, err := cells(head, comma)
	if err != nil || !slices.Contains(columns, leaverColumns[0]) {
		return nil, usage("the first line names the columns, of which user is needed: %s", strings.Join(leaverColumns, ","))
	}
	for i, name := range columns {
		if !slices.Contains(leaverColumns, name) || slices.Contains(columns[:i], name) {
			return nil, usage("column %d is none of %s, or is there twice", i+1, strings.Join(leaverColumns, ", "))
		}
	}
	var lines []*leaverLine
	seen := map[string]int{}
	number := 1
	for line := range strings.SplitSeq(rest, "\n") {
		number++
		if strings.TrimSpace(line) == "" {
			continue
		}
		if len(lines) == maxLeavers {
			return nil, usage("the list has more than %d leavers: import it in parts", maxLeavers)
		}
		l := &leaverLine{Line: number}
		if err := l.read(line, comma, columns); err != nil {
			l.refuse("%v", err)
		} else if first, twice := seen[strings.ToLower(l.User)]; twice {
			l.refuse("%s stands in line %d already", l.User, first)
		} else {
			seen[strings.ToLower(l.User)] = number
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// cells takes one line apart.
func cells(line string, comma rune) ([]string, error) {
	r := csv.NewReader(strings.NewReader(strings.TrimSuffix(line, "\r")))
	r.Comma = comma
	all, err := r.Read()
	for i := range all {
		all[i] = strings.TrimSpace(all[i])
	}
	return all, err
}

func (l *leaverLine) refuse(format string, args ...any) {
	l.Problem = api.Errorf(api.Invalid, format, args...)
}

func (l *leaverLine) read(line string, comma rune, columns []string) error {
	values, err := cells(line, comma)
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("there is nothing in it")
	case err != nil:
		return errors.New("its quotation marks do not match")
	case len(values) != len(columns):
		return fmt.Errorf("it has %d columns, and the first line names %d", len(values), len(columns))
	}
	deadline := ""
	for i, name := range columns {
		switch name {
		case "user":
			l.leaver.User = values[i]
		case "successor":
			l.leaver.Successor = values[i]
		case "deadline":
			deadline = values[i]
		case "words":
			l.leaver.Words = values[i]
		}
	}
	if userName.MatchString(l.leaver.User) {
		l.User = l.leaver.User
	}
	return sensibleLeaver(&l.leaver, deadline)
}

// sensibleLeaver says in an officer's words what the daemon would refuse in a programmer's, and reads the deadline.
func sensibleLeaver(l *api.NewLeaver, deadline string) error {
	if l.User == "" {
		return usage("it names no user")
	}
	for _, name := range []string{l.User, l.Successor} {
		if err := sensibleUser(name); err != nil {
			return err
		}
	}
	switch {
	case strings.EqualFold(l.User, l.Successor):
		return usage("%s cannot be their own successor", l.User)
	case len(l.Words) > maxSaid:
		return usage("the words have %d bytes, and may have %d", len(l.Words), maxSaid)
	case !utf8.ValidString(l.Words), strings.ContainsFunc(l.Words, unicode.IsControl):
		return usage("the words contain control characters, or are not UTF-8")
	case deadline == "":
		return nil
	}
	end, err := endOf(deadline)
	if err != nil {
		return err
	}
	l.Deadline = &end
	return nil
}

// endOf reads a deadline. A date means its last second.
func endOf(words string) (time.Time, error) {
	if day, err := time.ParseInLocation(time.DateOnly, words, time.Local); err == nil && sensibleYear(day) {
		return day.AddDate(0, 0, 1).Add(-time.Second), nil
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02 15:04", time.RFC3339} {
		if t, err := time.ParseInLocation(layout, words, time.Local); err == nil && sensibleYear(t) {
			return t, nil
		}
	}
	return time.Time{}, usage("a deadline is a date, such as 2031-12-31 or 2031-12-31T18:00; not %q", cut(harmless(words), 24))
}

// sensibleYear keeps to what JSON can tell (RFC 3339).
func sensibleYear(t time.Time) bool { return t.Year() > 1900 && t.Year() < 9000 }

func importLeavers(c *cli.Context) error {
	args, err := arguments(c, "file")
	if err != nil {
		return err
	}
	list, err := readList(c, args[0])
	if err != nil {
		return err
	}
	lines, err := parseLeavers(list)
	if err != nil {
		return err
	}
	var good []*leaverLine
	for _, l := range lines {
		if l.Problem == nil {
			good = append(good, l)
		}
	}
	var failed error
	for i := 0; i < len(good); i += perRequest {
		part := good[i:min(i+perRequest, len(good))]
		if failed == nil {
			failed = addAll(c, part)
		}
		switch {
		case failed == nil:
			continue
		case i == 0: // nobody was taken
			return failed
		}
		for _, l := range part {
			l.refuse("it was not tried: %v", failed)
		}
	}
	return cmp.Or(failed, printImported(output(c), lines))
}

func readList(c *cli.Context, name string) ([]byte, error) {
	in := c.App.Reader
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, usage("cannot read the list: %v", err)
		}
		defer f.Close()
		in = f
	}
	list, err := io.ReadAll(io.LimitReader(in, maxLeaverList+1))
	if err != nil {
		return nil, usage("cannot read the list: %v", err)
	}
	return list, nil
}

// addAll puts some lines into the queue.
func addAll(c *cli.Context, lines []*leaverLine) error {
	var in api.LeaverLines
	for _, l := range lines {
		in.Leavers = append(in.Leavers, l.leaver)
	}
	var out api.LeaverResults
	if err := daemon(c).Post(c.Context, leaversPath+"/import", in, &out); err != nil {
		return err
	}
	if len(out.Results) != len(lines) {
		return api.Errorf(api.Internal, "tokendeskd answered %d of %d lines: look at tokendesk leavers list before repeating", len(out.Results), len(lines))
	}
	for i, r := range out.Results {
		lines[i].Added, lines[i].Problem = r.Added, r.Problem
	}
	return nil
}

func printImported(out screen, lines []*leaverLine) error {
	bad := slices.DeleteFunc(slices.Clone(lines), func(l *leaverLine) bool { return l.Problem == nil })
	var failed error
	if n := len(bad); n > 0 {
		failed = api.Errorf(api.Refused, "%d of %s taken: correct %s, and import them again", n,
			these(len(lines), "1 line was not", "%d lines were not"), these(n, "that line", "those %d"))
	}
	if out.json {
		return errors.Join(out.printJSON(struct {
			Lines []*leaverLine `json:"lines"`
		}{append([]*leaverLine{}, lines...)}), failed)
	}
	if len(lines) == 0 {
		out.printf("The list names nobody.\n")
		return nil
	}
	var rows []row
	for _, l := range lines {
		state, what := out.paint(text.FgGreen, "in the queue"), ""
		if l.Problem != nil {
			state, what = out.paint(text.FgRed, "NOT TAKEN"), harmless(l.Problem.Message)
		} else if l.Added != nil {
			what = strings.Join(harmlessEach(l.Added.Notes), "; ")
			var tokens []string
			for _, t := range l.Added.Leaver.Tokens {
				tokens = append(tokens, t.Token)
			}
			what = strings.Trim(strings.Join(tokens, ", ")+"; "+what, "; ")
		}
		rows = append(rows, row{cells: []string{fmt.Sprint(l.Line), cut(or(l.User, "?"), 24), state, what}})
	}
	out.table([]string{"LINE", "LEAVER", "RESULT", ""}, rows)
	return failed
}
