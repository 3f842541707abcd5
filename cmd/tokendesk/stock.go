package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
	"tokendesk/vault/secret"
)

func stockCommands() []*cli.Command {
	return []*cli.Command{
		{
			Name: "import", Usage: "take fobs into the stock, which come with their seeds", ArgsUsage: "FILE|-", Category: "Work", Action: importFobs,
			Description: "FILE holds comma-separated values. Its first line names the columns: serial; seed, in hexadecimal, or secret, in base32; and,\n" +
				"where wanted, counter, digits and description. Every line has a result. The seeds stand in it for everybody to read: destroy it afterwards.",
			Flags: []cli.Flag{&cli.StringFlag{Name: "batch", Usage: "the delivery they came with, a `NAME`"}, tenantFlag()},
		},
		{
			Name: "register", Usage: "add a token whose codes are sent by mail or to a telephone", ArgsUsage: "mail|phone --address ADDRESS", Category: "Work", Action: register,
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "address", Usage: "where its codes are sent, an `ADDRESS`: name@example.org, or +4915112345678", Required: true},
				&cli.StringFlag{Name: "user", Usage: "give it to `USER`; without it the token becomes stock"},
				&cli.StringFlag{Name: "description", Usage: "`WORDS` about it"},
				tenantFlag(),
			},
		},
	}
}

func tenantFlag() cli.Flag {
	return &cli.StringFlag{Name: "tenant", Usage: "whose it is, a `TENANT`; without it that in which you are an officer"}
}

func register(c *cli.Context) error {
	args, err := arguments(c, "type")
	if err != nil {
		return err
	}
	if args[0] != "mail" && args[0] != "phone" {
		return usage("codes are sent by mail or to a phone, not to a %q; a YubiKey is enrolled, and a fob imported", args[0])
	}
	g := api.Registration{Type: args[0], User: c.String("user"), Address: c.String("address"), Description: c.String("description"), Tenant: c.String("tenant")}
	if err := sensibleUser(g.User); err != nil {
		return err
	}
	var done api.Outcome
	if err := daemon(c).Post(c.Context, "/v1/register", g, &done); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(done)
	}
	if done.Token != nil {
		printStanding(out, *done.Token)
	}
	return nil
}

// importSize is how much of a table is sent at a time, in bytes: what a frame takes, with the names of the columns before it.
const importSize = api.FrameSize - 1024

func importFobs(c *cli.Context) error {
	args, err := arguments(c, "file")
	if err != nil {
		return err
	}
	in := io.NopCloser(c.App.Reader)
	if args[0] != "-" {
		if in, err = os.Open(args[0]); err != nil {
			return usage("cannot read the table: %v", err)
		}
	}
	defer in.Close()
	out := output(c)
	all := api.Imported{Lines: []api.ImportedLine{}}
	stop := working(c, "taking them in")
	err = tables(in, func(table secret.Secret, before int) error {
		var part api.Imported
		if err := daemon(c).PostSecret(c.Context, "/v1/import", api.Import{Batch: c.String("batch"), Tenant: c.String("tenant")}, &part, table); err != nil {
			return err
		}
		for _, line := range part.Lines {
			line.Line += before
			all.Lines = append(all.Lines, line)
		}
		return nil
	})
	stop()
	refused := 0
	for _, line := range all.Lines {
		if line.Error != "" {
			refused++
		}
	}
	if out.json {
		err = errors.Join(err, out.printJSON(all))
	} else {
		printFobs(out, all, refused)
		switch {
		case args[0] == "-" || len(all.Lines) == 0:
		case err != nil || refused > 0:
			out.say("%s holds the seeds for everybody to read, also those of the fobs that were not taken in: keep it safe until they are, and destroy it then.", args[0])
		default:
			out.say("%s holds the seeds for everybody to read: destroy it, with shred -u or as your disk wants it.", args[0])
		}
	}
	if err == nil && refused > 0 {
		err = api.Errorf(api.Refused, "%s", ofLines(refused, len(all.Lines))+" not taken in")
	}
	return err
}

// tables calls fn for a table in parts: each begins with the first line, which names the columns. Before is how many lines of the
// table stand before the part's, beside that one. Only fn's part and one buffer hold what is read.
func tables(in io.Reader, fn func(part secret.Secret, before int) error) error {
	buffer, err := secret.Make(importSize, func([]byte) error { return nil })
	if err != nil {
		return err
	}
	defer buffer.Wipe()
	var columns []byte
	defer func() { clear(columns) }() // it is a line with a seed where the names are missing
	b, held, before, sent := buffer.Reveal(), 0, 0, false
	for ended := false; !ended; {
		n, err := io.ReadFull(in, b[held:])
		held += n
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			ended = true
		case err != nil:
			return usage("cannot read the table: %v", err)
		}
		end := held
		if !ended {
			if end = bytes.LastIndexByte(b[:held], '\n') + 1; end == 0 {
				return usage("a line of the table is longer than %d bytes", importSize)
			}
		}
		lines := b[:end]
		if columns == nil {
			first := bytes.IndexByte(lines, '\n') + 1
			if first == 0 || first > 512 {
				return usage("the first line of the table names the columns, such as serial,seed, and others follow it; this one is none, or too long")
			}
			columns, lines = bytes.Clone(lines[:first]), lines[first:]
		}
		if len(bytes.TrimSpace(lines)) > 0 {
			count := bytes.Count(lines, []byte{'\n'})
			part, err := secret.Make(len(columns)+len(lines), func(p []byte) error { copy(p[copy(p, columns):], lines); return nil })
			if err == nil {
				err = fn(part, before)
				part.Wipe()
			}
			if err != nil {
				return err
			}
			before, sent = before+count, true
		}
		held = copy(b, b[end:held])
	}
	if !sent {
		return usage("the table has no line beside the one that names the columns")
	}
	return nil
}

func printFobs(out screen, all api.Imported, refused int) {
	var rows []row
	for _, line := range all.Lines {
		if line.Error != "" {
			rows = append(rows, row{cells: []string{strconv.Itoa(line.Line), line.Token, out.paint(text.FgRed, harmless(line.Error))}})
		}
	}
	if len(rows) > 0 {
		out.table([]string{"LINE", "TOKEN", "NOT TAKEN IN"}, rows)
	}
	if taken := len(all.Lines) - refused; taken > 0 {
		out.done("%s taken into the stock", ofLines(taken, len(all.Lines)))
	}
}

func ofLines(n, all int) string {
	verb := "are"
	if n == 1 {
		verb = "is"
	}
	return fmt.Sprintf("%d of %d fobs %s", n, all, verb)
}
