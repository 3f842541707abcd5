package main

import (
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
	"tokendesk/vault/secret"
)

const moveUsage = `On the new board, which has no vault yet:
   tokendesk vault move --request REQUEST
Carry REQUEST to the old board. There, compare fingerprints:
   tokendesk vault move --to REQUEST --out FILE
Carry FILE to the new board. There:
   tokendesk vault move --accept FILE
If that fails, the old board takes its vault back:
   tokendesk vault move --cancel`

func vaultMove(c *cli.Context) error {
	steps := map[string]func(*cli.Context) error{"request": moveRequest, "to": moveOut, "accept": moveIn, "cancel": moveCancel}
	var chosen func(*cli.Context) error
	for name, step := range steps {
		if !c.IsSet(name) {
			continue
		}
		if chosen != nil {
			return usage("a move is one step at a time: see tokendesk vault move --help")
		}
		chosen = step
	}
	if chosen == nil {
		return usage("say which step of the move: --request, --to, --accept or --cancel; see tokendesk vault move --help")
	}
	if !c.Bool("request") {
		if _, err := arguments(c); err != nil {
			return err
		}
	}
	return chosen(c)
}

// moveRequest shows, on the new board, what the old one needs.
func moveRequest(c *cli.Context) error {
	if c.NArg() > 1 {
		return usage("one argument too many: tokendesk vault move --request [FILE]")
	}
	file := c.Args().First()
	return vaultOutcome(c, "asking the TPM", func(out screen, o api.VaultOutcome) {
		out.printf("The fingerprint of this board's TPM:\n\n    %s\n\n", out.paint(text.Bold, grouped(digitsOf(o.Fingerprint))))
		what := file
		if file == "" {
			out.printf("%s\n", encodeRequest(moveRequested{o.Parent, o.Fingerprint}))
			what = "the lines above as a file"
		}
		out.say("Carry %s to the old board, and run there: tokendesk vault move --to REQUEST --out FILE. Keep this screen: the fingerprint is compared with it.", what)
	}, func(o *api.VaultOutcome) error {
		err := daemon(c).Post(c.Context, vaultPath+"/move", api.VaultMove{Step: "request"}, o)
		if err == nil && file != "" {
			err = newFile(file, encodeRequest(moveRequested{o.Parent, o.Fingerprint}))
		}
		return err
	})
}

// newFile writes a file that is not there yet, for this user alone.
func newFile(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return usage("%s exists: name another file", path)
	} else if err != nil {
		return usage("cannot write: %v", err)
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(api.Errorf(api.Internal, "cannot write %s: %v", path, err), os.Remove(path))
	}
	return nil
}

const (
	requestType       = "TOKENDESK MOVE REQUEST"
	fingerprintHeader = "Fingerprint"
	maxRequest        = 16 << 10
)

// moveRequested is what a new board asks for. Neither part is proven: the daemon tells whether the fingerprint is that of
// the parent, and people whether it is the one on the new board's screen.
type moveRequested struct {
	parent      []byte
	fingerprint string
}

func encodeRequest(r moveRequested) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: requestType, Headers: map[string]string{fingerprintHeader: r.fingerprint}, Bytes: r.parent})
}

func decodeRequest(b []byte) (moveRequested, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != requestType || len(block.Bytes) == 0 {
		return moveRequested{}, usage("this is not what 'tokendesk vault move --request' has written on the new board")
	}
	r := moveRequested{block.Bytes, block.Headers[fingerprintHeader]}
	if digits := digitsOf(r.fingerprint); len(digits) < 4*typedDigits || strings.Trim(digits, "0123456789abcdef") != "" {
		return moveRequested{}, usage("the request has no fingerprint: write it anew on the new board, with 'tokendesk vault move --request'")
	}
	return r, nil
}

func readRequest(path string) (moveRequested, error) {
	f, err := os.Open(path)
	if err != nil {
		return moveRequested{}, usage("cannot read the request: %v", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRequest))
	if err != nil {
		return moveRequested{}, usage("cannot read the request: %v", err)
	}
	return decodeRequest(b)
}

// typedDigits is how many digits of the fingerprint are typed: 32 bits, which nobody hits by trying.
const typedDigits = 8

// digitsOf is a fingerprint without what stands between its digits.
func digitsOf(fingerprint string) string {
	return strings.ToLower(strings.NewReplacer(" ", "", "-", "", ":", "").Replace(fingerprint))
}

func moveOut(c *cli.Context) error {
	if c.Path("out") == "" {
		return usage("name the file that is to carry the vault: --out FILE")
	}
	file, err := filepath.Abs(c.Path("out"))
	if err != nil {
		return usage("cannot tell where %s is: %v", c.Path("out"), err)
	}
	request, err := readRequest(c.Path("to"))
	if err != nil {
		return err
	}
	if err := compareFingerprint(c, request.fingerprint); err != nil {
		return err
	}
	v, err := getVault(c)
	if err != nil {
		return err
	}
	var p secret.Secret
	if v.State == "moved" { // the file was lost, and is written once more
		if p, err = presentPIN(c, v); err != nil {
			return err
		}
	}
	in := api.VaultMove{Step: "out", Parent: request.parent, Fingerprint: request.fingerprint, File: file}
	return guessed(c, tellVault(c, "move", "wrapping the vault for the other board", in, func(out screen, _ api.VaultOutcome) {
		out.done("the vault is on its way to the other board, and closed here")
		out.say("Carry %s there, and run: tokendesk vault move --accept FILE. If that fails, take the vault back here: tokendesk vault move --cancel", file)
	}, p))
}

// compareFingerprint has somebody look at the new board's screen. What they are to type from there is not shown here.
func compareFingerprint(c *cli.Context, fingerprint string) error {
	want := digitsOf(fingerprint)
	given := digitsOf(c.String("fingerprint"))
	if c.IsSet("fingerprint") {
		if given != want {
			return usage("the request is for the TPM %s, and not for the one given: it was made on another board, or exchanged on the way; nothing was changed", grouped(want))
		}
		return nil
	}
	if in, ok := c.App.Reader.(*os.File); !ok || !screenOn(in).terminal {
		return usage("nobody is at a terminal to compare the fingerprint: give it with --fingerprint, as the new board shows it")
	}
	errs := screenOn(c.App.ErrWriter)
	errs.printf("The vault goes to the board with this TPM:\n\n    %s\n\n", errs.paint(text.Bold, grouped(strings.Repeat(".", typedDigits)+want[typedDigits:])))
	errs.say("Compare it with the new board's screen. If all of it is the same there, type the %d characters that it begins with there.", typedDigits)
	typed, err := ask(c, "They are: ")
	if err != nil {
		return err
	}
	if digitsOf(typed) != want[:typedDigits] {
		return api.Errorf(api.Refused, "the request is not from the board that shows this: it was made on another one, or exchanged on the way; nothing was changed")
	}
	return nil
}

// grouped sets digits as the new board shows them.
func grouped(digits string) string {
	var b strings.Builder
	for i, r := range strings.ToUpper(digits) {
		if i > 0 && i%4 == 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return b.String()
}

func moveIn(c *cli.Context) error {
	file, err := filepath.Abs(c.Path("accept"))
	if err != nil {
		return usage("cannot tell where %s is: %v", c.Path("accept"), err)
	}
	p, err := firstPIN(c)
	if err != nil {
		return err
	}
	return tellVault(c, "move", "taking the vault", api.VaultMove{Step: "in", File: file}, func(out screen, o api.VaultOutcome) {
		out.done("the vault is here, at %s, and is %s", o.Vault.Path, o.Vault.State)
		out.say("Nothing was lost: counters and outbox are as they were. Delete %s, and make a backup here: tokendesk vault backup", file)
	}, p)
}

func moveCancel(c *cli.Context) error {
	v, err := getVault(c)
	if err != nil {
		return err
	}
	if err := confirm(c, "The vault is used here again. It must not have been accepted on the other board, and the file that carries it is to be destroyed, or there are two"); err != nil {
		return err
	}
	p, err := presentPIN(c, v)
	if err != nil {
		return err
	}
	return guessed(c, tellVault(c, "move", "taking the vault back", api.VaultMove{Step: "cancel"}, func(out screen, o api.VaultOutcome) {
		out.done("the move is taken back; the vault is %s", o.Vault.State)
	}, p))
}
