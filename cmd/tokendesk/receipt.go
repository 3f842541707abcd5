package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/paper"
	"tokendesk/vault/audit"
)

const receiptHelp = `A receipt is one page to print: who got which token when, from whom and from
which officer, and what proved its seed. It is signed by the vault. With one
character of the file changed it does not verify; its QR code holds the facts
with a signature of their own, so that the paper proves itself. verify needs no
desk, only the receipt (FILE, or - for standard input: the page, or the text of
its QR code) and the vault's audit key.`

const paperCategory = "Paper"

var (
	outputFlag = &cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE`; - is the standard output"}
	forceFlag  = &cli.BoolFlag{Name: "force", Usage: "replace the file if it is there"}
)

func paperCommands() []*cli.Command {
	return []*cli.Command{
		{
			Name: "receipt", Usage: "print what a token's holder signs for, or prove such a receipt", ArgsUsage: "TOKEN | verify FILE|-", Category: paperCategory,
			Description: receiptHelp, Action: receipt,
			Flags: []cli.Flag{
				&cli.Uint64Flag{Name: "handover", Usage: "of handover `N`, instead of the token's latest one"}, outputFlag, forceFlag,
				&cli.StringFlag{Name: "key", Usage: "verify: the vault's audit `KEY`, or a file that holds it"},
			},
		},
		{
			Name: "label", Usage: "print what sticks to a token: 62 by 29 mm, without its holder", ArgsUsage: "TOKEN", Category: paperCategory, Action: label,
			Flags: []cli.Flag{outputFlag, forceFlag},
		},
		reportCommand(),
	}
}

// receipt prints one, or verifies one. "verify" is no command of its own, for then no argument could stand in its place.
func receipt(c *cli.Context) error {
	if c.Args().First() == "verify" {
		return verifyReceipt(c)
	}
	if c.IsSet("key") {
		return usage("--key is for tokendesk receipt verify FILE")
	}
	if !c.IsSet("handover") {
		path, err := tokenPath(c)
		if err != nil {
			return err
		}
		return printDocument(c, path+"/receipt")
	}
	if c.Args().Present() {
		return usage("name a token, or a handover, but not both")
	}
	if c.Uint64("handover") == 0 {
		return usage("handovers are numbered from 1 on")
	}
	return printDocument(c, fmt.Sprintf("/v1/handovers/%d/receipt", c.Uint64("handover")))
}

func label(c *cli.Context) error {
	path, err := tokenPath(c)
	if err != nil {
		return err
	}
	return printDocument(c, path+"/label")
}

// printed is a document that was written, for programs.
type printed struct {
	File     string `json:"file"`
	Kind     string `json:"kind"`
	Token    string `json:"token"`
	Handover uint64 `json:"handover,omitempty"`
}

// printDocument gets a document and writes it where it was wanted.
func printDocument(c *cli.Context, path string) error {
	if c.String("output") == "-" && c.Bool("json") {
		return usage("--json tells of the file that was written; with --output - there is none")
	}
	var d api.Document
	if err := daemon(c).Get(c.Context, path, nil, &d); err != nil {
		return err
	}
	file := c.String("output")
	if file == "-" {
		_, err := io.WriteString(c.App.Writer, d.Text)
		return err
	}
	file = or(file, filepath.Base(d.Name)) // whatever the daemon says, it goes into this directory
	if err := writeFile(file, c.Bool("force"), func(w io.Writer) error { _, err := io.WriteString(w, d.Text); return err }); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(printed{file, d.Kind, d.Token, d.Handover})
	}
	out.done("%s: print it with any browser", file)
	if d.Kind == "receipt" {
		out.say("Whoever is to verify it needs the vault's audit key, on a way of its own (tokendesk vault status shows it):\ntokendesk receipt verify %s --key KEY", file)
	}
	return nil
}

// writeFile writes a file that was not there, or, by force, one in the place of another. Either it is whole or it is not there.
func writeFile(path string, force bool, write func(io.Writer) error) (err error) {
	if info, err := os.Lstat(path); force && err == nil && !info.Mode().IsRegular() {
		return usage("%s is no file that could be replaced", path)
	}
	create := func() (*os.File, error) { return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) }
	if force {
		create = func() (*os.File, error) { return os.CreateTemp(filepath.Dir(path), ".tokendesk-*") }
	}
	f, err := create()
	if errors.Is(err, os.ErrExist) {
		return usage("%s exists: name another file (--output FILE), or replace it (--force)", path)
	} else if err != nil {
		return usage("cannot write %s: %v", path, err)
	}
	err = errors.Join(write(f), f.Sync(), f.Close())
	if err == nil && force {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		if known := (*api.Error)(nil); !errors.As(err, &known) {
			err = api.Errorf(api.Internal, "cannot write %s: %v", path, err)
		}
	}
	return err
}

// receiptProof is what a receipt proves, for programs.
type receiptProof struct {
	Verified    bool            `json:"verified"` // with a key that the caller knows
	Page        bool            `json:"page"`     // the whole page, and not only its QR code
	Fingerprint string          `json:"fingerprint"`
	Receipt     paper.Statement `json:"receipt"`
}

func verifyReceipt(c *cli.Context) error {
	if c.NArg() != 2 {
		return usage("name the receipt: tokendesk receipt verify FILE|- [--key KEY]")
	}
	if c.IsSet("handover") || c.IsSet("output") || c.Bool("force") {
		return usage("verify writes nothing: --handover, --output and --force have no use with it")
	}
	file, in := c.Args().Get(1), c.App.Reader
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return usage("cannot read the receipt: %v", err)
		}
		defer f.Close()
		in = f
	}
	var key *audit.Key
	if c.IsSet("key") {
		known, err := knownKey(c.String("key"))
		if err != nil {
			return err
		}
		key = &known
	}
	p, err := paper.Verify(in, key)
	if err != nil {
		return api.Errorf(api.NotVerified, "%s does not verify: %v", file, err)
	}
	out := output(c)
	if out.json {
		err = out.printJSON(receiptProof{key != nil, p.Page, p.Key.Fingerprint(), p.Statement})
	} else {
		printProof(out, p, key != nil)
	}
	if err == nil && key == nil {
		return exitCode(api.NotVerified.ExitCode())
	}
	return err
}

func printProof(out screen, p paper.Proven, proven bool) {
	what := fmt.Sprintf("receipt %d: no character was changed, added or removed since the desk wrote it", p.Number)
	if !p.Page {
		what = fmt.Sprintf("the QR code of receipt %d: what it says is what the desk signed", p.Number)
	}
	if proven {
		out.done("%s", what)
		out.done("signed by key %s, of vault %s", p.Key.Fingerprint(), harmless(p.Vault))
	} else {
		out.wait("NOT PROVEN WHOSE: without --key, the key that the receipt itself names was used. Whoever made it may have made its key, too.")
		out.wait("%s, by key %s", what, p.Key.Fingerprint())
		out.say("Compare that fingerprint with the one in tokendesk vault status on the desk, or give the key that you were given: --key KEY")
	}
	if !p.Page {
		out.wait("the paper around it is not proven: compare it with this")
	}
	out.printf("\n")
	out.fields(receiptFields(p.Statement))
}

// receiptFields are the facts of a receipt. The desk has made them safe to print, but somebody else may have signed them.
func receiptFields(s paper.Statement) (rows [][2]string) {
	add := func(name, format string, args ...any) {
		rows = append(rows, [2]string{name, harmless(fmt.Sprintf(format, args...))})
	}
	with := func(serial string) string {
		if serial == "" {
			return ""
		}
		return ", serial number " + serial
	}
	add("Token", "%s%s", s.Token, with(s.Serial))
	add("Handover", "%s", s.Kind)
	add("From", "%s", or(s.From, "nobody (stock)"))
	add("To", "%s", s.To)
	if s.Old != "" {
		add("In the place of", "%s%s, then %s", s.Old, with(s.OldSerial), or(s.OldStatus, "unknown"))
	}
	add("Officer", "%s (user ID %d)", s.Officer, s.UID)
	add("Time", "%s", s.Time.Local().Format("2006-01-02 15:04:05 MST"))
	if s.Reason != "" {
		add("Reason", "%s", s.Reason)
	}
	add("Proof", "%s", s.ProofWords())
	if s.Offline {
		add("Cut-off", "NOT CONFIRMED by the central service when this was done")
	}
	if s.Emulated {
		add("EMULATED", "not a hardware token: it protects nothing")
	}
	add("Audit trail", "entry %d, %s", s.Seq, s.Hash)
	return rows
}
