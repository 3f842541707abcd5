package main

import (
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

var reportNames = []string{"stock", "assignments", "exceptions", "events"}

func reportCommand() *cli.Command {
	return &cli.Command{
		Name: "report", Usage: "write stock, assignments, exceptions or events as a table", ArgsUsage: strings.Join(reportNames, "|"), Category: paperCategory, Action: writeReport,
		Description: "Reports are CSV, HTML to print (--html), or JSON, one object a line (--json). exceptions is what somebody has to look at;\n" +
			"events is the audit trail. A DATE is a day, such as 2031-12-31, or a moment, such as 2031-12-31T18:00.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "csv", Usage: "comma-separated values, which is what you get anyway, unless FILE ends in .html"},
			&cli.BoolFlag{Name: "html", Usage: "a page to print"},
			&cli.StringFlag{Name: "since", Usage: "events, assignments: from `DATE` on"},
			&cli.StringFlag{Name: "until", Usage: "events, assignments: up to `DATE`; a day counts whole"},
			outputFlag, forceFlag,
		},
	}
}

func writeReport(c *cli.Context) error {
	args, err := arguments(c, "report")
	if err != nil {
		return err
	}
	if !slices.Contains(reportNames, args[0]) {
		return usage("there is no report %q: there are %s", args[0], strings.Join(reportNames, ", "))
	}
	format, err := reportFormat(c)
	if err != nil {
		return err
	}
	q := url.Values{"format": {format}}
	for _, name := range []string{"since", "until"} {
		if c.IsSet(name) {
			t, err := bound(name, c.String(name))
			if err != nil {
				return err
			}
			q.Set(name, t.Format(time.RFC3339))
		}
	}
	body, err := daemon(c).Stream(c.Context, "/v1/reports/"+args[0], q)
	if err != nil {
		return err
	}
	defer body.Close()
	file := c.String("output")
	if file == "" || file == "-" {
		return copyReport(c.App.Writer, body)
	}
	stop := working(c, "writing the report")
	err = writeFile(file, c.Bool("force"), func(w io.Writer) error { return copyReport(w, body) })
	stop()
	if err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(struct {
			File   string `json:"file"`
			Report string `json:"report"`
		}{file, args[0]})
	}
	out.done("%s: the report of %s", file, args[0])
	return nil
}

// reportFormat is what was asked for, or what the file's name says.
func reportFormat(c *cli.Context) (string, error) {
	var asked []string
	for _, f := range []string{"csv", "html", "json"} {
		if c.Bool(f) {
			asked = append(asked, f)
		}
	}
	switch ending := strings.ToLower(filepath.Ext(c.String("output"))); {
	case len(asked) > 1:
		return "", usage("a report is of one kind: --%s", strings.Join(asked, " or --"))
	case len(asked) == 1:
		return asked[0], nil
	case ending == ".html" || ending == ".htm":
		return "html", nil
	}
	return "csv", nil
}

// bound reads one end of a time span, in this machine's zone. The end of a day is the begin of the next one.
func bound(name, words string) (time.Time, error) {
	if t, err := time.ParseInLocation(time.DateOnly, words, time.Local); err == nil {
		if name == "until" {
			t = t.AddDate(0, 0, 1)
		}
		return t, nil
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02 15:04", time.RFC3339} {
		if t, err := time.ParseInLocation(layout, words, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usage("--%s is a date, such as 2031-12-31 or 2031-12-31T18:00; not %q", name, words)
}

// copyReport writes what the daemon sends. The daemon says beforehand how much that is: less is an error.
func copyReport(w io.Writer, body io.Reader) error {
	if _, err := io.Copy(w, body); err != nil {
		return api.Errorf(api.Internal, "the report broke off and is not whole: %v", err)
	}
	return nil
}
