package main

import (
	"errors"
	"io"
	"net/url"
	"os"
	"strconv"

	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
	"tokendesk/vault/audit"
)

const auditHelp = `The audit trail tells who did what. Its entries are chained, and the vault
signs where the chain ends. export writes it to a file; verify proves such a
file on any machine, without a desk, with the vault's audit key alone. What
proves most is what was kept elsewhere before: that key, and signed heads, as
the system's journal has them.`

func auditCommands() []*cli.Command {
	from := &cli.Uint64Flag{Name: "from", Usage: "begin with entry `N`"}
	return []*cli.Command{{
		Name: "audit", Usage: "show, export and verify who did what", Category: vaultCategory, Description: auditHelp, Action: group,
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "show the newest entries", Action: auditList,
				Flags: []cli.Flag{from, &cli.Uint64Flag{Name: "limit", Usage: "at most `N`", Value: 50}},
			},
			{Name: "export", Usage: "write the trail, to be verified anywhere", ArgsUsage: "[FILE|-]", Action: auditExport, Flags: []cli.Flag{from}},
			{
				Name: "verify", Usage: "prove that an export is what the desk wrote; needs no daemon", ArgsUsage: "FILE|-", Action: auditVerify,
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "key", Usage: "the vault's audit `KEY`, or a file that holds it"},
					&cli.StringSliceFlag{Name: "head", Usage: "a `FILE` with heads that were shipped before, such as lines of the journal; may be repeated"},
				},
			},
		},
	}}
}

const auditPath = "/v1/audit"

func auditList(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	limit := max(1, c.Uint64("limit"))
	from := c.Uint64("from")
	if !c.IsSet("from") {
		end, err := acts(c, 1, 1)
		if err != nil {
			return err
		}
		from = 1
		if end.Last > limit {
			from = end.Last - limit + 1
		}
	}
	page, err := acts(c, max(1, from), limit)
	if err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(page)
	}
	if len(page.Acts) == 0 {
		out.say("There is no entry from %d on: the last one is %d.", from, page.Last)
		return nil
	}
	printActs(out, page)
	return nil
}

func acts(c *cli.Context, from, limit uint64) (page api.Acts, err error) {
	q := url.Values{"from": {strconv.FormatUint(from, 10)}, "limit": {strconv.FormatUint(limit, 10)}}
	return page, daemon(c).Get(c.Context, auditPath, q, &page)
}

// printActs gives every column its width; what does not fit goes below.
func printActs(out screen, page api.Acts) {
	var officer, action, outcome = 10, 14, 10
	if out.width >= wide {
		officer, action, outcome = 20, 20, 20
	}
	number := len(strconv.FormatUint(page.Acts[len(page.Acts)-1].Seq, 10))
	object := max(12, out.width-max(2, number)-len("2006-01-02 15:04")-officer-action-outcome-5*len(gap))
	var rows []row
	for _, a := range page.Acts {
		below := a.Reason
		if short := cut(a.Object, object); short != a.Object {
			below = a.Object
			if a.Reason != "" {
				below += ": " + a.Reason
			}
		}
		mark := cut(harmless(a.Outcome), outcome)
		if a.Outcome != "done" {
			mark = out.paint(colourOfTrouble, mark)
		}
		rows = append(rows, row{[]string{
			strconv.FormatUint(a.Seq, 10), moment(a.Time), cut(harmless(a.Officer), officer), cut(harmless(a.Action), action), cut(harmless(a.Object), object), mark,
		}, harmless(below)})
	}
	out.table([]string{"NO", "TIME", "OFFICER", "ACTION", "OBJECT", "OUTCOME"}, rows)
	if page.Next > 0 {
		out.printf("There are more: tokendesk audit list --from %d\n", page.Next)
	}
}

func auditExport(c *cli.Context) error {
	if c.NArg() > 1 {
		return usage("one argument too many: tokendesk audit export [FILE|-]")
	}
	end, err := acts(c, 1, 1)
	if err != nil {
		return err
	}
	key, err := audit.ParseKey(end.Key)
	if err != nil {
		return api.Errorf(api.Internal, "tokendeskd gives no audit key: %v", err)
	}
	path := c.Args().First()
	if path == "" || path == "-" {
		_, err := export(c, key, c.App.Writer)
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return usage("%s exists: name another file", path)
	} else if err != nil {
		return usage("cannot write the export: %v", err)
	}
	s, err := export(c, key, f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(path)
		known := (*api.Error)(nil)
		if !errors.As(err, &known) {
			err = api.Errorf(api.Internal, "cannot write the export: %v", err)
		}
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(verified(s, nil, true))
	}
	out.done("%s: %s, up to entry %s", path, entries(s), thousands(s.To))
	out.say("Whoever is to verify it needs this key, on a way of its own:\n%s", key)
	out.say("tokendesk audit verify %s --key KEY", path)
	return nil
}

// export writes what the daemon sends, and proves it on the way: half an export is none.
func export(c *cli.Context, key audit.Key, w io.Writer) (s audit.Summary, err error) {
	q := url.Values{}
	if c.IsSet("from") {
		q.Set("from", strconv.FormatUint(max(1, c.Uint64("from")), 10))
	}
	body, err := daemon(c).Stream(c.Context, auditPath+"/export", q)
	if err != nil {
		return s, err
	}
	defer body.Close()
	stop := func() {}
	if w != c.App.Writer {
		stop = working(c, "exporting and verifying the audit trail")
	}
	copied := &copying{r: body, w: w}
	s, err = audit.Verify(copied, key, nil)
	stop()
	switch {
	case c.Context.Err() != nil:
		err = api.Errorf(api.Unreachable, "interrupted: the export is not whole")
	case copied.err != nil:
		err = api.Errorf(api.Internal, "cannot write the export: %v", copied.err)
	case err != nil:
		err = api.Errorf(api.Internal, "what tokendeskd sends is not a whole export: %v; repeat, and see its log", err)
	}
	return s, err
}

// copying writes what is read through it, and remembers why it could not.
type copying struct {
	r   io.Reader
	w   io.Writer
	err error
}

func (c *copying) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if _, c.err = c.w.Write(p[:n]); c.err != nil {
		return n, c.err
	}
	return n, err
}

// entries says how many entries a part of the trail has.
func entries(s audit.Summary) string {
	return these(int(s.To-s.Before()), "1 entry", "%d entries")
}
