package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
	"tokendesk/vault/secret"
)

func requestPIV(c *cli.Context) error {
	_, path, err := pivPath(c)
	if err != nil {
		return err
	}
	slot, err := slotAsked(c)
	if err != nil {
		return err
	}
	var card api.PIV
	if err := daemon(c).Get(c.Context, path, nil, &card); err != nil {
		return err
	}
	pin, err := holdersPIN(c, card, slot)
	if err != nil {
		return err
	}
	defer pin.Wipe()
	announceTouch(c, card, slot)
	var r api.PIVRequest
	if err := daemon(c).PostSecret(c.Context, path+"/csr", api.CSR{Slot: slot, Subject: c.String("subject")}, &r, pin); err != nil {
		return err
	}
	out := output(c)
	switch file := c.String("output"); {
	case file != "" && file != "-":
		if err := writeText(file, r.PEM, c.Bool("force")); err != nil {
			return err
		}
		if !out.json {
			out.done("certificate request of slot %s: %s", r.Slot, file)
		}
	case !out.json:
		_, err := io.WriteString(c.App.Writer, r.PEM)
		return err
	}
	if out.json {
		return out.printJSON(r)
	}
	return nil
}

func writeText(file, words string, force bool) error {
	return writeFile(file, force, func(w io.Writer) error { _, err := io.WriteString(w, words); return err })
}

func slotAsked(c *cli.Context) (string, error) {
	slot := strings.ToLower(c.String("slot"))
	if !slotName.MatchString(slot) {
		return "", usage(wrongSlot, slot)
	}
	return slot, nil
}

// holdersPIN asks the holder for the PIN, unless the vault has it still, or the key asks for none.
func holdersPIN(c *cli.Context, card api.PIV, slot string) (pin secret.Secret, err error) {
	key, known := keyIn(card, slot)
	if card.PINWaits || card.Token == nil || !known || key.PINPolicy == "never" {
		return pin, nil // the daemon says what is wrong, if anything is
	}
	if c.Bool("pin-stdin") {
		return readLine(c.App.Reader)
	}
	pin, err = typedPIN(c, "The holder's PIN of "+card.Device)
	if err != nil {
		return pin, err
	}
	if pin.IsZero() {
		return pin, usage("the PIN is empty; nothing was tried")
	}
	return pin, nil
}

func keyIn(card api.PIV, slot string) (key api.PIVSlot, known bool) {
	at := slices.IndexFunc(card.Slots, func(s api.PIVSlot) bool { return s.Slot == slot })
	if at < 0 {
		return key, false
	}
	return card.Slots[at], true
}

// announceTouch says that the key is about to wait for a touch. A request is answered in one piece, which comes after it.
func announceTouch(c *cli.Context, card api.PIV, slot string) {
	key, _ := keyIn(card, slot)
	if key.TouchPolicy == "" || key.TouchPolicy == "never" || c.Bool("json") {
		return
	}
	out := screenOn(c.App.ErrWriter) // the request takes the standard output
	out.mark(text.FgCyan, "●", "%s", out.paint(text.Bold, "touch the key when it blinks"))
}

// maxCertificate is how large a file with a certificate may be, in bytes.
const maxCertificate = 64 << 10

func importCertificate(c *cli.Context) error {
	args, err := arguments(c, "device", "file")
	if err != nil {
		return err
	}
	device, path, err := pivPathOf(args[0])
	if err != nil {
		return err
	}
	der, err := certificateFile(c, args[1])
	if err != nil {
		return err
	}
	slot, err := slotFor(c, path, der)
	if err != nil {
		return err
	}
	in := api.ImportCertificate{Slot: slot, PEM: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
	var stored api.Certificate
	if err := daemon(c).Post(c.Context, path+"/certificate", in, &stored); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(stored)
	}
	out.done("it is for the key in slot %s of %s, and valid now", slot, device)
	out.done("it is stored on the card, and was read back from there")
	for _, l := range certificateLines(out, stored) {
		out.say("%s", l)
	}
	return nil
}

// slotFor is the slot that was asked for, or else that of the key which a certificate is for.
func slotFor(c *cli.Context, path string, der []byte) (string, error) {
	if c.IsSet("slot") {
		return slotAsked(c)
	}
	x, err := x509.ParseCertificate(der)
	if err != nil {
		return "", usage("cannot read the certificate: %v", err)
	}
	var card api.PIV
	if err := daemon(c).Get(c.Context, path, nil, &card); err != nil {
		return "", err
	}
	sum := sha256.Sum256(x.RawSubjectPublicKeyInfo)
	public := hex.EncodeToString(sum[:])
	for _, s := range card.Slots {
		if s.Public == public {
			return s.Slot, nil
		}
	}
	switch len(card.Slots) { // what is wrong with the only one that can be meant is said by the daemon
	case 0:
		return "9a", nil
	case 1:
		return card.Slots[0].Slot, nil
	}
	return "", api.Errorf(api.Refused, "the certificate of %s is for none of the keys of %s: see what it has: tokendesk piv show %s", cut(harmless(x.Subject.String()), 100), card.Device, card.Device)
}

// certificateFile reads the one certificate of a file, PEM or DER.
func certificateFile(c *cli.Context, file string) ([]byte, error) {
	in := c.App.Reader
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, usage("cannot read the certificate: %v", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxCertificate+1))
	if err != nil {
		return nil, usage("cannot read the certificate: %v", err)
	}
	if len(data) > maxCertificate {
		return nil, usage("%s has more than %d bytes: give the card's certificate alone", file, maxCertificate)
	}
	der, err := oneCertificate(data)
	if err != nil {
		return nil, usage("%s: %v", file, err)
	}
	return der, nil
}

// oneCertificate is the DER of the only certificate in data. What else there is in PEM is told: a private key there would be
// one that was not generated on the card.
func oneCertificate(data []byte) ([]byte, error) {
	var found [][]byte
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch {
		case block.Type == "CERTIFICATE":
			found = append(found, block.Bytes)
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return nil, fmt.Errorf("it holds a private key: the card has one of its own, and no other goes into it")
		case block.Type == "CERTIFICATE REQUEST":
			return nil, fmt.Errorf("it is the request, not the certificate: that comes from the certificate authority")
		}
	}
	if len(found) == 0 && !bytes.Contains(data, []byte("-----BEGIN")) {
		found = [][]byte{data}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("it holds %d certificates: give the card's certificate alone", len(found))
	}
	if _, err := x509.ParseCertificate(found[0]); err != nil {
		return nil, fmt.Errorf("it is not a certificate, in PEM or DER")
	}
	return found[0], nil
}

func revocations(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	var due api.Certificates
	if err := daemon(c).Get(c.Context, "/v1/piv/revocations", nil, &due); err != nil {
		return err
	}
	if c.IsSet("done") {
		return revoked(c, due.Certificates, c.String("done"))
	}
	out := output(c)
	if out.json {
		return out.printJSON(due)
	}
	if len(due.Certificates) == 0 {
		out.printf("No certificate is to be revoked.\n")
		return nil
	}
	var rows []row
	for _, r := range due.Certificates {
		below := []string{harmless(r.Subject) + ", number " + r.Serial, "issued by " + harmless(r.Issuer)}
		if r.Why != "" {
			below = append(below, harmless(r.Why))
		}
		since := ""
		if r.RevokeDue != nil {
			since = moment(*r.RevokeDue)
		}
		rows = append(rows, row{[]string{cut(r.SHA256, 17), or(r.Token, "not on record"), r.Slot, cut(harmless(r.Owner), 16), since}, strings.Join(below, "\n")})
	}
	out.table([]string{"SHA256", "TOKEN", "SLOT", "OWNER", "SINCE"}, rows)
	out.say("Have each revoked by its issuer, and say so: tokendesk piv revocations --done SHA256")
	return nil
}

// revoked says that a certificate was revoked.
func revoked(c *cli.Context, due []api.Certificate, fingerprint string) error {
	fingerprint = strings.ToLower(strings.ReplaceAll(fingerprint, ":", ""))
	var which []api.Certificate
	for _, r := range due {
		known := slices.ContainsFunc(which, func(w api.Certificate) bool { return w.SHA256 == r.SHA256 }) // on another card
		if len(fingerprint) >= 8 && strings.HasPrefix(r.SHA256, fingerprint) && !known {
			which = append(which, r)
		}
	}
	if len(which) != 1 {
		return usage("%q is the fingerprint of %d certificates that are to be revoked: give at least 8 digits of one that tokendesk piv revocations shows", harmless(fingerprint), len(which))
	}
	var after api.Certificate
	if err := daemon(c).Post(c.Context, "/v1/piv/revocations/"+which[0].SHA256+"/done", nil, &after); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(after)
	}
	out.done("number %s of %s is recorded as revoked", which[0].Serial, harmless(which[0].Issuer))
	return nil
}
