package main

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

const pivHelp = `The PIV application of a key holds login certificates: it is the token DEVICE/piv.
provision gives it a random PIN, PUK and management key, generates keys on the
card, has the card prove that, and writes a request for each, which your
certificate authority answers; import-cert stores the certificate. The PIN is
given to its holder once: shown, printed as a letter, or typed by the holder.
PUK and management key stay in the vault; unblock makes a new PIN by them.
wipe erases the application. What was certified has to be revoked by whoever
has issued it, whatever becomes of the card: revocations lists that.`

func pivCommand() *cli.Command {
	yes := &cli.BoolFlag{Name: "yes", Usage: "do not ask for confirmation"}
	reason := &cli.StringFlag{Name: "reason", Usage: "why, in `WORDS` for the audit trail"}
	slot := &cli.StringFlag{Name: "slot", Usage: "of the key in `SLOT`: 9a, 9c, 9d, 9e, or 82 to 95", Value: "9a"}
	return &cli.Command{
		Name: "piv", Usage: "look after certificates and PINs of smart cards", Category: "Work", Description: pivHelp, Action: group,
		Subcommands: []*cli.Command{
			{Name: "show", Usage: "show what a card holds, and what the desk knows of it", ArgsUsage: "DEVICE", Action: showPIV},
			{
				Name: "provision", Usage: "give a card secrets and keys of its own, and request certificates", ArgsUsage: "DEVICE", Action: provisionPIV,
				Flags: append([]cli.Flag{
					&cli.StringFlag{Name: "user", Usage: "give it to `USER`; without it the card becomes stock"}, tenantFlag(),
					&cli.StringSliceFlag{Name: "key", Usage: "generate a key, `SLOT[:ALGORITHM[:PIN[:TOUCH]]]`, such as 9c:eccp384:always:cached; may be repeated; without it 9a:eccp256:once:never"},
					&cli.StringFlag{Name: "subject", Usage: "request the certificates for `NAME`, such as CN=alice,O=Example; without it CN= and the user"},
					&cli.BoolFlag{Name: "overwrite", Usage: "erase what the card holds now"},
					&cli.PathFlag{Name: "csr-dir", Usage: "write the certificate requests into `DIR`, a file each, and not to the standard output"},
					reason, yes,
				}, pinFlags()...),
			},
			{
				Name: "csr", Usage: "request a certificate for a key that is there", ArgsUsage: "DEVICE", Action: requestPIV,
				Flags: []cli.Flag{
					slot, &cli.StringFlag{Name: "subject", Usage: "for `NAME`, such as CN=alice,O=Example; without it CN= and the owner"},
					&cli.BoolFlag{Name: "pin-stdin", Usage: "read the holder's PIN from standard input, a line"}, outputFlag, forceFlag,
				},
			},
			{
				Name: "import-cert", Usage: "check a certificate against a card's key, and store it on the card", ArgsUsage: "DEVICE FILE|-", Action: importCertificate,
				Flags: []cli.Flag{&cli.StringFlag{Name: "slot", Usage: "of the key in `SLOT`; without it, of the key that the certificate is for"}},
			},
			{Name: "unblock", Usage: "give a card a new PIN, by the vault's PUK", ArgsUsage: "DEVICE", Action: unblockPIV, Flags: pinFlags()},
			{Name: "pin", Usage: "give the PIN to its holder, once", ArgsUsage: "DEVICE", Action: pivPIN, Flags: pinFlags()},
			{Name: "wipe", Usage: "erase all keys and certificates of a card, and take it out of the inventory", ArgsUsage: "DEVICE", Action: wipePIV, Flags: []cli.Flag{reason, yes}},
			{
				Name: "revocations", Usage: "show which certificates are to be revoked at their issuers", Action: revocations,
				Flags: []cli.Flag{&cli.StringFlag{Name: "done", Usage: "say that the certificate with fingerprint `SHA256` was revoked; its beginning will do"}},
			},
		},
	}
}

var cardName = regexp.MustCompile(`^(yk-[0-9]{1,10})(/piv)?$`)

// pivPath is the device that the only argument names, and the API's path of its PIV application.
func pivPath(c *cli.Context) (device, path string, err error) {
	args, err := arguments(c, "device")
	if err != nil {
		return "", "", err
	}
	return pivPathOf(args[0])
}

func pivPathOf(name string) (device, path string, err error) {
	m := cardName.FindStringSubmatch(name)
	if m == nil {
		return "", "", usage("%q is not a device: devices are named like yk-12345678; tokendesk devices shows them", name)
	}
	return m[1], "/v1/piv/" + url.PathEscape(m[1]), nil
}

// isPIV tells whether a token is a PIV application, which has certificates and neither seed nor counter.
func isPIV(token string) bool { return strings.HasSuffix(token, "/piv") }

func provisionPIV(c *cli.Context) error {
	device, path, err := pivPath(c)
	if err != nil {
		return err
	}
	p, err := provisionAsked(c)
	if err != nil {
		return err
	}
	how, err := handingAsked(c)
	if err != nil {
		return err
	}
	dir, err := requestDir(c, how)
	if err != nil {
		return err
	}
	if p.Overwrite {
		if err := erasing(c, device, path, "provision"); err != nil {
			return err
		}
	}
	out := output(c)
	if how == handLetter { // which takes the standard output
		out = screenOn(c.App.ErrWriter)
	}
	outcome, err := follow(c, out, path+"/provision", p)
	if err != nil {
		return err
	}
	if err := concluded(out, outcome); err != nil {
		return err
	}
	return withPIN(writeRequests(out, device, dir, outcome.Requests), handPIN(c, device, path, how))
}

// withPIN returns what went wrong with the requests, and with the PIN, which is handed over all the same.
func withPIN(requests, pin error) error {
	if requests != nil {
		return requests
	}
	return pin
}

func provisionAsked(c *cli.Context) (p api.ProvisionPIV, err error) {
	p = api.ProvisionPIV{User: c.String("user"), Tenant: c.String("tenant"), Reason: c.String("reason"), Subject: c.String("subject"), Overwrite: c.Bool("overwrite")}
	if err := sensibleUser(p.User); err != nil {
		return p, err
	}
	for _, words := range c.StringSlice("key") {
		w, err := keyWish(words)
		if err != nil {
			return p, err
		}
		if slices.ContainsFunc(p.Keys, func(k api.PIVWish) bool { return k.Slot == w.Slot }) {
			return p, usage("slot %s takes one key, and two are asked for", w.Slot)
		}
		p.Keys = append(p.Keys, w)
	}
	return p, nil
}

var (
	slotName    = regexp.MustCompile(`^(9[acde]|8[2-9a-f]|9[0-5])$`)
	algorithms  = []string{"eccp256", "eccp384", "rsa2048", "rsa3072", "rsa4096", "ed25519"}
	pinRules    = []string{"never", "once", "always"}
	touchRules  = []string{"never", "always", "cached"}
	wrongSlot   = "%q is no slot for keys: they are 9a, 9c, 9d, 9e, and 82 to 95"
	keyFields   = []string{"the algorithm", "when it asks for the PIN", "when it asks for a touch"}
	keyChoices  = [][]string{algorithms, pinRules, touchRules}
	keyPossible = "in --key %s, %s is one of %s, not %q"
)

// keyWish reads "9c:eccp384:always:cached". What is left out is left to the desk.
func keyWish(words string) (w api.PIVWish, err error) {
	parts := strings.Split(strings.ToLower(words), ":")
	if !slotName.MatchString(parts[0]) {
		return w, usage(wrongSlot, parts[0])
	}
	if len(parts) > 1+len(keyChoices) {
		return w, usage("--key is SLOT[:ALGORITHM[:PIN[:TOUCH]]], such as 9c:eccp384:always:cached, not %q", words)
	}
	for i, word := range parts[1:] {
		if word != "" && !slices.Contains(keyChoices[i], word) {
			return w, usage(keyPossible, words, keyFields[i], strings.Join(keyChoices[i], ", "), word)
		}
	}
	parts = append(parts, "", "", "")
	return api.PIVWish{Slot: parts[0], Algorithm: parts[1], PINPolicy: parts[2], TouchPolicy: parts[3]}, nil
}

// requestDir is where requests are written to, which must be possible before there are any; "" is the standard output.
func requestDir(c *cli.Context, how handing) (string, error) {
	dir := c.Path("csr-dir")
	if dir == "" {
		if how == handLetter {
			return "", usage("--letter takes the standard output: have the certificate requests written to files, with --csr-dir DIR")
		}
		return "", nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", usage("cannot write certificate requests: %v", err)
	}
	return dir, nil
}

// writeRequests writes requests to files of a folder, or shows them. In JSON they are told already.
func writeRequests(out screen, device, dir string, requests []api.PIVRequest) error {
	for _, r := range requests {
		switch {
		case dir != "":
			file := filepath.Join(dir, fmt.Sprintf("%s-%s.csr", device, r.Slot))
			if err := writeText(file, r.PEM, true); err != nil {
				return err
			}
			if !out.json {
				out.done("certificate request of slot %s: %s", r.Slot, file)
			}
		case !out.json:
			out.say("Certificate request of slot %s:", r.Slot)
			out.printf("%s", r.PEM)
		}
	}
	if len(requests) > 0 && !out.json {
		out.say("Have your certificate authority sign it, and store the answer: tokendesk piv import-cert %s FILE", device)
	}
	return nil
}

// erasing shows what is lost when a card is erased, and asks.
func erasing(c *cli.Context, device, path, action string) error {
	var card api.PIV
	if err := daemon(c).Get(c.Context, path, nil, &card); err != nil {
		return err
	}
	switch {
	case action == "wipe" && card.Token == nil:
		return api.Errorf(api.NotFound, "%s is not in the inventory: nothing on its card is the desk's; to erase it and begin anew: tokendesk piv provision %s --overwrite", device, device)
	case c.Bool("yes"):
		return nil
	}
	if out := output(c); !out.json {
		printPIV(out, card)
	}
	return confirm(c, "%s", erasingQuestion(card, action))
}

func erasingQuestion(card api.PIV, action string) string {
	q := fmt.Sprintf("all keys and certificates of %s are erased on the card, for good", card.Device)
	if action == "provision" {
		q += ", and new ones are generated"
	}
	if card.Token != nil && card.Token.Owner != "" {
		q += fmt.Sprintf(": %s can no longer log in with them", harmless(card.Token.Owner))
	}
	certified := 0
	for _, s := range card.Slots {
		if s.Certificate != nil {
			certified++
		}
	}
	if certified > 0 {
		q += "; " + these(certified, "1 certificate is", "%d certificates are") + " then to be revoked at the issuer"
	}
	return q
}

func unblockPIV(c *cli.Context) error {
	device, path, err := pivPath(c)
	if err != nil {
		return err
	}
	how, err := handingAsked(c)
	if err != nil {
		return err
	}
	out := output(c)
	if how == handLetter {
		out = screenOn(c.App.ErrWriter)
	}
	outcome, err := follow(c, out, path+"/unblock", nil)
	if err != nil {
		return err
	}
	if err := concluded(out, outcome); err != nil {
		return err
	}
	return handPIN(c, device, path, how)
}

func wipePIV(c *cli.Context) error {
	device, path, err := pivPath(c)
	if err != nil {
		return err
	}
	if err := erasing(c, device, path, "wipe"); err != nil {
		return err
	}
	return work(c, "/v1/tokens/"+url.PathEscape(device)+"/piv/wipe", api.OptionalReason{Reason: c.String("reason")})
}
