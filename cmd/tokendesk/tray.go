package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/paper"
)

func (s screen) touch(format string, args ...any) { s.mark(text.FgCyan, "●", format, args...) }

func (s screen) warn(format string, args ...any) { s.mark(text.FgRed, "!", format, args...) }

// trayView shows a tray while its keys are touched: as a table that is drawn anew at a terminal, line by line elsewhere.
type trayView struct {
	out    screen
	live   bool
	drawn  int // lines of the table that stand on the screen
	tokens []api.TrayToken
	keys   map[string]api.CapturedKey
	notes  []string
}

// resyncTray resyncs all inserted keys by what they type.
func resyncTray(c *cli.Context) error {
	out := output(c)
	format := c.String("format")
	view := &trayView{out: out, live: out.terminal && format != "csv" && os.Getenv("TERM") != "dumb", keys: map[string]api.CapturedKey{}}
	if format == "csv" {
		view.out = screenOn(c.App.ErrWriter)
	}
	last, err := capturing(c, "/v1/resync/capture", func(e api.CaptureEvent) {
		if out.json {
			out.printJSON(e)
			return
		}
		view.take(e)
	})
	if err != nil {
		return err
	}
	view.clear()
	result := *last.Resynced
	switch {
	case out.json:
		err = out.printJSON(last)
	case format == "csv":
		err = writeTray(c, result)
	default:
		printTray(out, result)
	}
	return errors.Join(err, unresynced(result))
}

// unresynced is an error if somebody has to look at a token again.
func unresynced(r api.Tray) error {
	bad := 0
	for _, t := range r.Tokens {
		if t.State == "failed" || t.State == "untouched" && r.Ended != "" {
			bad++
		}
	}
	done := slices.ContainsFunc(r.Tokens, func(t api.TrayToken) bool { return t.State == "resynced" })
	switch {
	case bad > 0:
		return api.Errorf(api.NotVerified, "%d of %s not resynced", bad, these(len(r.Tokens), "1 token was", "%d tokens were"))
	case !done:
		return api.Errorf(api.NotVerified, "nothing was resynced")
	}
	return stillOpen(r.Changes)
}

func (v *trayView) take(e api.CaptureEvent) {
	switch {
	case e.Capture != "":
		v.tokens = e.Tokens
		if !v.live {
			v.out.say("%s; Ctrl-C ends it early, and what is done stays done.",
				these(len(v.tokens), "Touch the token twice", "Touch each of %d tokens twice, in any order"))
		}
	case e.Note != "":
		v.notes = append(v.notes, harmless(e.Note))
	case e.Key != nil:
		v.keys[e.Key.Device] = *e.Key
	case e.Token != nil:
		for i := range v.tokens {
			if v.tokens[i].Token == e.Token.Token {
				v.tokens[i] = *e.Token
			}
		}
	}
	if v.live {
		v.draw()
		return
	}
	v.line(e)
}

// line tells an event in a line of its own.
func (v *trayView) line(e api.CaptureEvent) {
	switch {
	case e.Note != "":
		v.out.wait("%s", harmless(e.Note))
	case e.Key != nil && e.Key.State == "ready":
		if how := v.touches(e.Key.Device); how != "" {
			v.out.touch("touch %s twice%s", e.Key.Device, how)
		}
	case e.Key != nil:
		v.out.wait("%s: %s", e.Key.Device, keyTrouble(*e.Key))
	case e.Token == nil:
	case e.Token.State == "resynced":
		v.out.done("%s", resyncedWords(*e.Token))
	case e.Token.State == "failed":
		v.out.warn("%s", harmless(problemOf(*e.Token)))
	default:
		device, _, _ := strings.Cut(e.Token.Token, "/")
		if open := v.open(device); e.Token.Codes >= 2*len(open) && open[len(open)-1] == e.Token.Token {
			v.out.touch("touch %s again: of %d codes no two fit yet", device, e.Token.Codes)
		}
	}
}

// open are the tokens of a key that wait for codes.
func (v *trayView) open(device string) (tokens []string) {
	for _, t := range v.tokens {
		if strings.HasPrefix(t.Token, device+"/") && (t.State == "waiting" || t.State == "touched") {
			tokens = append(tokens, t.Token)
		}
	}
	return tokens
}

// touches says how to touch a key for what still waits on it; empty if nothing does.
func (v *trayView) touches(device string) string {
	open := v.open(device)
	switch {
	case len(open) == 0:
		return ""
	case len(open) == 2:
		return " shortly, and twice for three seconds"
	case strings.HasSuffix(open[0], "/otp2"):
		return " for three seconds"
	}
	return " shortly"
}

func keyTrouble(k api.CapturedKey) string {
	if k.State == "no code" {
		return "that was not a code of it"
	}
	return harmless(k.Text)
}

func resyncedWords(t api.TrayToken) string {
	words := fmt.Sprintf("%s, %s: %d → %d", t.Token, or(t.Owner, "stock"), t.From, t.To)
	if t.Surplus > 0 {
		words += ", touched on " + these(t.Surplus, "once", "%d times")
	}
	return words
}

func problemOf(t api.TrayToken) string {
	if t.Problem == nil {
		return t.Token + " was not resynced"
	}
	if strings.HasPrefix(t.Problem.Message, t.Token) {
		return t.Problem.Message
	}
	return t.Token + ": " + t.Problem.Message
}

// draw puts the table in the place of the one before. Where it would not fit, a summary stands for the rows.
func (v *trayView) draw() {
	var b bytes.Buffer
	s := v.out
	s.Writer = &b
	done := 0
	var rows []row
	for _, t := range v.tokens {
		if t.State == "resynced" || t.State == "failed" {
			done++
		}
		rows = append(rows, row{cells: []string{t.Token, cut(or(t.Owner, "stock"), 24), codesOf(t), v.state(t)}})
	}
	s.say("%s", s.paint(text.Bold, "Touch each key twice, in any order. Enter ends it; what is done stays done."))
	for _, note := range v.notes {
		s.wait("%s", note)
	}
	if len(rows)+4+len(v.notes) <= height(v.out) {
		s.table([]string{"TOKEN", "OWNER", "CODES", "RESULT"}, rows)
	}
	s.printf("%d of %d done\n", done, len(v.tokens))
	v.clear()
	v.drawn = strings.Count(b.String(), "\n")
	v.out.Write(b.Bytes())
}

// clear takes the table off the screen.
func (v *trayView) clear() {
	if v.drawn > 0 {
		v.out.printf("\x1b[%dA\x1b[J", v.drawn)
		v.drawn = 0
	}
}

// height is how many lines a terminal has.
func height(s screen) int {
	if f, ok := s.Writer.(*os.File); ok {
		if _, lines, err := term.GetSize(int(f.Fd())); err == nil && lines > 0 {
			return lines
		}
	}
	return 24
}

func codesOf(t api.TrayToken) string {
	if t.Codes == 0 {
		return ""
	}
	return strconv.Itoa(t.Codes)
}

// state says in a few words how a token is.
func (v *trayView) state(t api.TrayToken) string {
	device, _, _ := strings.Cut(t.Token, "/")
	k := v.keys[device]
	switch {
	case t.State == "resynced", t.State == "failed", t.State == "untouched":
		return trayState(v.out, t)
	case k.State == "":
		return "being opened"
	case k.State == "away":
		return v.out.paint(text.FgYellow, "out: insert it again")
	case t.Codes > 1 && t.Codes >= 2*len(v.open(device)):
		return v.out.paint(text.FgYellow, "no two fit yet: touch it again")
	case t.Codes > 0:
		return "touch it again"
	}
	return v.out.paint(text.FgCyan, "touch it") + v.touches(device)
}

func trayState(out screen, t api.TrayToken) string {
	switch t.State {
	case "resynced":
		words := fmt.Sprintf("%d → %d", t.From, t.To)
		if t.Surplus > 0 {
			words += fmt.Sprintf(" (+%d)", t.Surplus)
		}
		return out.paint(text.FgGreen, "resynced") + " " + words
	case "failed":
		return out.paint(text.FgRed, "NOT RESYNCED")
	}
	return out.paint(text.FgYellow, "not touched")
}

func printTray(out screen, r api.Tray) {
	var rows []row
	for _, t := range r.Tokens {
		line := row{cells: []string{t.Token, cut(or(t.Owner, "stock"), 24), trayState(out, t)}}
		if t.Problem != nil {
			line.below = harmless(strings.TrimPrefix(t.Problem.Message, t.Token+": "))
		}
		rows = append(rows, line)
	}
	out.table([]string{"TOKEN", "OWNER", "RESULT"}, rows)
	if r.Ended != "" {
		out.wait("%s", harmless(r.Ended))
	}
	confirmed := 0
	var open []api.Change
	for _, ch := range r.Changes {
		if ch.State == "confirmed" {
			confirmed++
		} else {
			open = append(open, ch)
		}
	}
	if confirmed > 0 {
		out.done("push: %s confirmed", these(confirmed, "1 counter", "%d counters"))
	}
	printChanges(out, open, true)
}

// writeTray writes the result as comma-separated values, as that of a file is written, and how often each token was touched on.
func writeTray(c *cli.Context, r api.Tray) error {
	w := csv.NewWriter(c.App.Writer)
	w.Write([]string{"token", "owner", "result", "from", "to", "problem", "kind", "surplus"})
	for _, t := range r.Tokens {
		from, to, problem, kind := "", "", "", ""
		if t.State == "resynced" {
			from, to = strconv.FormatUint(t.From, 10), strconv.FormatUint(t.To, 10)
		}
		if p := t.Problem; p != nil {
			problem, kind = harmless(p.Message), string(p.Code)
			if p.Miss != nil {
				kind = p.Miss.Kind
			}
		}
		w.Write([]string{t.Token, paper.NoFormula(t.Owner), t.State, from, to, problem, kind, strconv.Itoa(t.Surplus)})
	}
	w.Flush()
	return w.Error()
}
