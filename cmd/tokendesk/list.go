package main

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

func listCommand() *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "show the inventory", ArgsUsage: "[TEXT]", Category: "Look", Action: list,
		Description: "TEXT is what a token's name, serial number, owner or a word of its description begins with.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "owner", Usage: "only tokens of `USER`"},
			&cli.StringFlag{Name: "status", Usage: "only tokens that are `STATUS`: " + strings.Join(statuses, ", ")},
			&cli.StringFlag{Name: "device", Usage: "only tokens of `DEVICE`"},
			&cli.Uint64Flag{Name: "serial", Usage: "only tokens with serial `NUMBER`"},
			&cli.StringFlag{Name: "batch", Usage: "only tokens of `BATCH`"},
			&cli.StringFlag{Name: "tenant", Usage: "only tokens of `TENANT`"},
			&cli.StringFlag{Name: "type", Usage: "only tokens of type `CODE`, such as yubikey-hotp"},
			&cli.BoolFlag{Name: "stale", Usage: "only tokens to be resynced before use, since the vault was restored"},
			&cli.StringFlag{Name: "expiring", Usage: "only tokens whose time is over within `DURATION`, such as 30d or 12h"},
			&cli.StringFlag{Name: "sort", Usage: "order by `KEY`: name, or expires, which lists only tokens whose time ends"},
			&cli.IntFlag{Name: "limit", Usage: "at most `N`", Value: 100},
			&cli.StringFlag{Name: "after", Usage: "start after `TOKEN`: the next page"},
		},
	}
}

// statuses are those of tokens, in the order of a life.
var statuses = []string{"pending", "active", "disabled", "limbo", "expired", "compromised"}

// listQuery is what the flags ask for. filtered says that there may be tokens that do not fit.
func listQuery(c *cli.Context) (q url.Values, filtered bool, err error) {
	q = url.Values{}
	for _, name := range []string{"owner", "status", "device", "batch", "tenant", "type"} {
		if v := c.String(name); v != "" {
			q.Set(name, v)
		}
	}
	if c.IsSet("serial") {
		q.Set("serial", strconv.FormatUint(c.Uint64("serial"), 10))
	}
	if c.Bool("stale") {
		q.Set("stale", "true")
	}
	if words := c.String("expiring"); words != "" {
		d, err := span(words)
		if err != nil {
			return nil, false, err
		}
		q.Set("expiring_before", time.Now().Add(d).UTC().Format(time.RFC3339))
	}
	if c.NArg() == 1 {
		q.Set("text", c.Args().First())
	}
	filtered = len(q) > 0
	for _, name := range []string{"sort", "after"} {
		if v := c.String(name); v != "" {
			q.Set(name, v)
		}
	}
	q.Set("limit", strconv.Itoa(c.Int("limit")))
	return q, filtered || c.IsSet("after"), nil
}

// span reads a time span, also in days and weeks, which time.ParseDuration does not know.
func span(words string) (time.Duration, error) {
	for unit, d := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		number, found := strings.CutSuffix(words, unit)
		if n, err := strconv.ParseUint(number, 10, 16); found && err == nil {
			return time.Duration(n) * d, nil
		}
	}
	if d, err := time.ParseDuration(words); err == nil && d >= 0 {
		return d, nil
	}
	return 0, usage("%q is not a time span, such as 30d, 2w or 12h", words)
}

func list(c *cli.Context) error {
	if c.NArg() > 1 {
		return usage("one argument too many: tokendesk list [TEXT]")
	}
	q, filtered, err := listQuery(c)
	if err != nil {
		return err
	}
	var found api.Tokens
	if err := daemon(c).Get(c.Context, "/v1/tokens", q, &found); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(found)
	}
	if len(found.Tokens) == 0 {
		out.printf("%s\n", map[bool]string{true: "No token fits.", false: "The inventory is empty."}[filtered])
		return nil
	}
	printTokens(out, found.Tokens)
	if found.Next != "" {
		out.printf("There are more: repeat it with --after %s\n", found.Next)
	}
	return nil
}

// printTokens shows tokens, a line each.
func printTokens(out screen, tokens []api.Token) {
	headings, ownerWidth := []string{"TOKEN", "STATUS", "OWNER", "COUNTER"}, 16
	// What is left of a wide screen besides the other columns at their longest.
	description := out.width - wide
	if out.width >= wide {
		ownerWidth = 24
		headings = append(headings, "LAST USED", "EXPIRES", "DESCRIPTION")
	}
	var rows []row
	for _, t := range tokens {
		cells := []string{t.ID, out.status(t.Status), cut(ownerOf(t), ownerWidth), counterCell(t)}
		if out.width >= wide {
			expires, words := "", ""
			if t.Expires != nil {
				expires = day(*t.Expires)
			}
			if description >= 12 {
				words = cut(harmless(t.Description), description)
			}
			cells = append(cells, lastUsed(t), expires, words)
		}
		rows = append(rows, row{cells: append(cells, strings.Join(notes(out, t), ", "))})
	}
	out.table(append(headings, "NOTE"), rows)
}

// counterCell is empty for what has no counter.
func counterCell(t api.Token) string {
	if isPIV(t.ID) {
		return ""
	}
	return strconv.FormatUint(t.Counter, 10)
}

func ownerOf(t api.Token) string {
	switch {
	case t.Owner != "":
		return t.Owner
	case t.Status == "compromised": // nobody will ever have it
		return "(nobody)"
	}
	return "(stock)"
}

func lastUsed(t api.Token) string {
	if t.LastUsed == nil {
		return "never"
	}
	return moment(*t.LastUsed)
}

func day(t time.Time) string { return t.Local().Format(time.DateOnly) }

func notes(out screen, t api.Token) []string {
	var n []string
	if t.Emulated {
		n = append(n, out.paint(text.FgMagenta, "EMULATED"))
	}
	if t.Unfinished != "" {
		n = append(n, out.paint(text.FgRed, "unfinished"))
	}
	if t.Stale {
		n = append(n, out.paint(text.FgRed, "resync before use"))
	}
	if t.Waiting > 0 {
		n = append(n, out.paint(text.FgYellow, "push waits"))
	}
	if t.OutOfDate != "" {
		n = append(n, out.paint(text.FgYellow, "out of date"))
	}
	n = append(n, certificateNotes(out, t.Certificates)...)
	if t.Expires != nil && t.Status != "expired" && out.width < wide {
		n = append(n, "until "+day(*t.Expires))
	}
	return n
}

// certificateNotes say when the first of a token's certificates is over, and that some are to be revoked.
func certificateNotes(out screen, all []api.Certificate) (n []string) {
	var first time.Time
	due := 0
	for _, c := range all {
		switch {
		case c.RevokeDue != nil && c.Revoked == nil:
			due++
		case c.Revoked == nil && !c.NotAfter.IsZero() && (first.IsZero() || c.NotAfter.Before(first)):
			first = c.NotAfter
		}
	}
	if due > 0 {
		n = append(n, out.paint(text.FgRed, "revoke"))
	}
	if !first.IsZero() {
		n = append(n, "certificate until "+validity(out, first))
	}
	return n
}
