package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
	"tokendesk/vault/secret"
)

func requestPIV(c *cli.Context) error {
	device, path, err := pivPath(c)
	if err != nil {
		return err
	}
	slot, err := slotAsked(c)
	if err != nil {
		return err
	}
	pin, err := holdersPIN(c, device, path, slot)
	if err != nil {
		return err
	}
	defer pin.Wipe()
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

func writeText(file, text string, force bool) error {
	return writeFile(file, force, func(w io.Writer) error { _, err := io.WriteString(w, text); return err })
}

func slotAsked(c *cli.Context) (string, error) {
	slot := strings.ToLower(c.String("slot"))
	if !slotName.MatchString(slot) {
		return "", usage(wrongSlot, slot)
	}
	return slot, nil
}

// holdersPIN asks the holder for the PIN, unless the vault has it still, or the key asks for none.
func holdersPIN(c *cli.Context, device, path, slot string) (pin secret.Secret, err error) {
	var card api.PIV
	if err := daemon(c).Get(c.Context, path, nil, &card); err != nil {
		return pin, err
	}
	at := slices.IndexFunc(card.Slots, func(s api.PIVSlot) bool { return s.Slot == slot })
	if card.PINWaits || card.Token == nil || at < 0 || card.Slots[at].PINPolicy == "never" {
		return pin, nil // the daemon says what is wrong, if anything is
	}
	if c.Bool("pin-stdin") {
		return readLine(c.App.Reader)
	}
	pin, err = typedPIN(c, "The holder's PIN of "+device)
	if err != nil {
		return pin, err
	}
	if pin.IsZero() {
		return pin, usage("the PIN is empty; nothing was tried")
	}
	return pin, nil
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
	slot, err := slotAsked(c)
	if err != nil {
		return err
	}
	der, err := certificateFile(c, args[1])
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
		if len(fingerprint) >= 8 && strings.HasPrefix(r.SHA256, fingerprint) {
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
