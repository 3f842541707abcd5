package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/paper"
)

// resyncLine is one line of a list of tokens and codes, and what became of it.
type resyncLine struct {
	api.ResyncResult

	codes []string
}

// parseResyncs reads a list of tokens and their codes: CSV with commas or semicolons. A line that makes no sense has a Problem, which
// repeats nothing of it, and stops no other one. An error is about the list as a whole.
func parseResyncs(list []byte) ([]*resyncLine, error) {
	if len(list) > maxLeaverList {
		return nil, usage("the list is longer than %d KiB: resync it in parts", maxLeaverList>>10)
	}
	list = bytes.TrimPrefix(list, []byte("\ufeff"))
	var lines []*resyncLine
	comma, first, number := ',', true, 0
	for line := range strings.SplitSeq(string(list), "\n") {
		number++
		if plain := strings.TrimSpace(line); plain == "" || plain[0] == '#' {
			continue
		}
		if first && strings.Contains(line, ";") {
			comma = ';'
		}
		values, err := cells(line, comma)
		if first && err == nil && strings.EqualFold(values[0], "token") {
			first = false
			continue
		}
		first = false
		if len(lines) == api.MaxResyncLines {
			return nil, usage("the list has more than %d tokens: resync it in parts", api.MaxResyncLines)
		}
		l := &resyncLine{ResyncResult: api.ResyncResult{Line: number}}
		if err == nil {
			err = l.read(values)
		} else {
			err = errors.New("its quotation marks do not match")
		}
		if err != nil {
			l.Problem = api.Errorf(api.Invalid, "%v", err)
		}
		lines = append(lines, l)
	}
	return lines, nil
}

func (l *resyncLine) read(values []string) error {
	if _, err := pathOf(values[0]); err != nil {
		return errors.New("it begins with no token: tokens are named like yk-12345678/otp2")
	}
	l.Token = values[0]
	for len(values) > 1 && values[len(values)-1] == "" { // as spreadsheets fill rows up
		values = values[:len(values)-1]
	}
	if l.codes = plainCodes(values[1:]); len(l.codes) < 2 || len(l.codes) > 3 {
		return errors.New("it needs two or three consecutive codes after the token, oldest first")
	}
	for _, code := range l.codes {
		if len(code) < 6 || len(code) > 8 || strings.Trim(code, "0123456789") != "" {
			return errors.New("a code has 6 to 8 digits, and here is something else")
		}
	}
	return nil
}

// shown is the result in a word or two.
func (l *resyncLine) shown(out screen) string {
	if l.Problem != nil {
		return out.paint(text.FgRed, "NOT RESYNCED")
	}
	return out.paint(text.FgGreen, "resynced") + " " + strconv.FormatUint(l.From, 10) + " → " + strconv.FormatUint(l.To, 10)
}

func writeResynced(to io.Writer, lines []*resyncLine) error {
	w := csv.NewWriter(to)
	w.Write([]string{"line", "token", "owner", "result", "from", "to", "problem", "kind"})
	for _, l := range lines {
		cells := []string{strconv.Itoa(l.Line), l.Token, paper.NoFormula(l.Owner), "resynced", strconv.FormatUint(l.From, 10), strconv.FormatUint(l.To, 10), "", ""}
		if p := l.Problem; p != nil {
			cells = append(cells[:3], "failed", "", "", harmless(p.Message), string(p.Code))
			if p.Miss != nil {
				cells[7] = p.Miss.Kind
			}
		}
		w.Write(cells)
	}
	w.Flush()
	return w.Error()
}
