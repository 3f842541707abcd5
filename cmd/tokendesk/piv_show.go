package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

func showPIV(c *cli.Context) error {
	_, path, err := pivPath(c)
	if err != nil {
		return err
	}
	var card api.PIV
	if err := daemon(c).Get(c.Context, path, nil, &card); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(card)
	}
	printPIV(out, card)
	return nil
}

func printPIV(out screen, card api.PIV) {
	device := card.Device
	if card.Firmware != "" {
		device += ", firmware " + card.Firmware
	}
	if card.Emulated {
		device += ", " + out.paint(text.FgMagenta, "EMULATED")
	}
	rows := [][2]string{{"Device", device}}
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, [2]string{name, value})
		}
	}
	add("Token", pivToken(out, card))
	if card.Problem != "" {
		add("Card", out.paint(text.FgRed, problem(card.Problem, card.Cure)))
	} else if !card.Inserted {
		add("Card", out.paint(text.FgYellow, "not inserted: what follows is from the record"))
	}
	add("PIN", pinLine(out, card))
	if card.PUKRetries != nil {
		add("PUK", tries(out, *card.PUKRetries))
	}
	if len(card.Defaults) > 0 {
		add("As from the factory", out.paint(text.FgYellow, strings.Join(card.Defaults, ", ")))
	} else if card.NotTold && card.Token == nil {
		add("As from the factory", "the card is too old to tell")
	}
	if card.Token != nil && card.Token.Unfinished != "" {
		add("Unfinished", out.paint(text.FgRed, card.Token.Unfinished)+"; settle it: tokendesk resolve "+card.Token.ID)
	}
	out.fields(rows)
	printSlots(out, card)
}

func problem(what, cure string) string {
	if cure == "" {
		return what
	}
	return what + ": " + cure
}

func pivToken(out screen, card api.PIV) string {
	switch {
	case card.Token != nil:
		return card.Token.ID + ", " + standing(out, card.Token.Status, harmless(card.Token.Owner))
	case card.Fresh:
		return "none: the card is as it left the factory; tokendesk piv provision " + card.Device + " makes one"
	}
	return out.paint(text.FgYellow, "none: the desk has not provisioned this card")
}

func pinLine(out screen, card api.PIV) string {
	var parts []string
	if card.PINRetries != nil {
		parts = append(parts, tries(out, *card.PINRetries))
		if *card.PINRetries == 0 && card.Token != nil {
			parts = append(parts, "tokendesk piv unblock "+card.Device+" makes a new one")
		}
	}
	if card.PINWaits {
		parts = append(parts, "in the vault, for its holder: tokendesk piv pin "+card.Device)
	}
	return strings.Join(parts, "; ")
}

func tries(out screen, left int) string {
	switch left {
	case 0:
		return out.paint(text.FgRed, "BLOCKED")
	case 1:
		return out.paint(text.FgYellow, "1 try left")
	}
	return fmt.Sprintf("%d tries left", left)
}

// printSlots shows a line for each key, and below it its certificate.
func printSlots(out screen, card api.PIV) {
	if len(card.Slots) == 0 {
		out.say("It holds no keys and no certificates.")
		return
	}
	var rows []row
	for _, s := range card.Slots {
		proof := "not proven"
		if s.Attested {
			proof = out.paint(text.FgGreen, "attested")
			if card.Emulated {
				proof = out.paint(text.FgMagenta, "attested (EMULATED)")
			}
		}
		if s.Algorithm == "" {
			proof = ""
		}
		rows = append(rows, row{[]string{s.Slot, or(s.Algorithm, "unknown"), or(s.PINPolicy, "?"), or(s.TouchPolicy, "?"), proof}, slotBelow(out, s)})
	}
	out.printf("\n")
	out.table([]string{"SLOT", "KEY", "PIN", "TOUCH", "GENERATED ON THE CARD"}, rows)
}

func slotBelow(out screen, s api.PIVSlot) string {
	var lines []string
	if s.Certificate != nil {
		lines = append(lines, certificateLines(out, *s.Certificate)...)
	} else if s.Waits {
		lines = append(lines, out.paint(text.FgYellow, "it waits for its certificate"))
	}
	if s.Problem != "" {
		lines = append(lines, out.paint(text.FgRed, harmless(s.Problem)))
	}
	return strings.Join(lines, "\n")
}

// certificateLines say what a certificate is, and what is due with it. Its names are whatever its issuer has written.
func certificateLines(out screen, c api.Certificate) []string {
	lines := []string{fmt.Sprintf("%s, until %s", harmless(c.Subject), validity(out, c.NotAfter)), fmt.Sprintf("issued by %s, number %s", harmless(c.Issuer), c.Serial)}
	switch {
	case c.Revoked != nil:
		lines = append(lines, fmt.Sprintf("revoked, says %s, %s", harmless(or(c.RevokedBy, "the desk")), moment(*c.Revoked)))
	case c.RevokeDue != nil:
		lines = append(lines, out.paint(text.FgRed, "to be revoked since "+moment(*c.RevokeDue)+because(c)))
	}
	return lines
}

func because(c api.Certificate) string {
	if c.Why == "" {
		return ""
	}
	return ": " + harmless(c.Why)
}

func validity(out screen, end time.Time) string {
	if time.Now().After(end) {
		return out.paint(text.FgRed, day(end)+", which is over")
	}
	return day(end)
}

// printRevoke says which certificates are to be revoked at their issuers: the desk cannot do that.
func printRevoke(out screen, due []api.Certificate) {
	for _, c := range due {
		out.wait("REVOKE at %s: number %s, %s, until %s", harmless(c.Issuer), c.Serial, harmless(c.Subject), day(c.NotAfter))
	}
	if len(due) > 0 {
		out.say("Until then whoever has a copy of such a certificate's key is let in by it. Say when it is done: tokendesk piv revocations --done SHA256")
	}
}

// certificatesOf are a token's certificates, a few lines each.
func certificatesOf(out screen, t api.Token) (lines []string) {
	for _, c := range t.Certificates {
		of := certificateLines(out, c)
		lines = append(lines, c.Slot+": "+of[0])
		lines = append(lines, of[1:]...)
	}
	if len(lines) == 0 {
		return []string{"none; tokendesk piv show " + t.Device + " shows its keys"}
	}
	return lines
}
