package main

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

// wide is from where on tables show more columns.
const wide = 120

func viewCommands() []*cli.Command {
	return []*cli.Command{
		{
			Name: "devices", Usage: "show the inserted devices", Category: "Look", Action: devices,
			Flags: []cli.Flag{&cli.BoolFlag{Name: "watch", Usage: "go on, and show them as they come and go"}},
		},
		listCommand(),
		{Name: "show", Usage: "show one token, what was done with it, and what can be done now", ArgsUsage: "TOKEN", Category: "Look", Action: show},
		{Name: "types", Usage: "show the types of tokens, as the administrator has named them", Category: "Look", Action: types},
		{Name: "status", Usage: "show how the desk is", Category: "Look", Action: status},
		{Name: "doctor", Usage: "look for what is broken, and name its cure", Category: "Look", Action: doctor},
		outboxCommand(),
		noticesCommand(),
	}
}

func devices(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	out := output(c)
	if c.Bool("watch") {
		return watch(c, out)
	}
	var found api.Keys
	if err := daemon(c).Get(c.Context, "/v1/devices", nil, &found); err != nil {
		return err
	}
	if out.json {
		return out.printJSON(found)
	}
	var rows []row
	for _, k := range found.Keys {
		rows = append(rows, row{cells: keyRow(out, k), below: remarks(out, k)})
	}
	if len(rows) > 0 {
		out.table([]string{"DEVICE", "MODEL", "SLOT 1", "SLOT 2", "PIV", "NOTE"}, rows)
	} else {
		out.printf("No device is inserted.\n")
	}
	for _, b := range found.Buses {
		if b.Problem != "" {
			out.say("%s %s: %s", out.paint(text.FgYellow, "Nothing is seen on the bus"), b.Name, b.Problem)
		}
	}
	return nil
}

func watch(c *cli.Context, out screen) error {
	return daemon(c).Watch(c.Context, func(e api.KeyEvent) error {
		if out.json {
			return out.printJSON(e)
		}
		printEvent(out, e)
		return nil
	})
}

// printEvent prints a line whose columns do not depend on other lines: the next ones are not known yet.
func printEvent(out screen, e api.KeyEvent) {
	cells := keyRow(out, e.Key)
	widths := []int{len("yk-4294967295"), 0, slotWidth, slotWidth, 0, 0}
	if out.width >= wide {
		widths[1] = len("YubiKey 5.10.10")
	} else {
		cells[1] = ""
	}
	if e.Event == "removed" {
		clear(cells[2:])
	}
	line := fmt.Sprintf("%s  %-7s", e.Time.Local().Format("15:04:05"), e.Event)
	for i, cell := range cells {
		if widths[i] > 0 || cell != "" {
			line += gap + text.Pad(cell, widths[i], ' ')
		}
	}
	out.printf("%s\n", strings.TrimRight(line, " "))
	if below := remarks(out, e.Key); below != "" && e.Event != "removed" {
		for _, l := range wrap(below, out.width-len(indent)) {
			out.printf("%s%s\n", indent, l)
		}
	}
}

// remarks are why a key cannot be used and what to do about it, and what is due with its tokens.
func remarks(out screen, k api.Key) string {
	var lines []string
	switch {
	case k.Problem != "" && k.Cure != "":
		lines = append(lines, out.paint(text.FgRed, k.Problem+": "+k.Cure))
	case k.Problem != "":
		lines = append(lines, out.paint(text.FgRed, k.Problem))
	}
	if k.Card != nil && k.Card.Problem != "" {
		lines = append(lines, out.paint(text.FgRed, "its smart card: "+problem(harmless(k.Card.Problem), harmless(k.Card.Cure))))
	}
	if k.Unknown {
		lines = append(lines, fmt.Sprintf("%s is unknown to this desk: tokendesk enroll --device %s%s makes a token of it", k.ID, k.ID, firstApp(k)))
	}
	tokens := k.Slots
	for _, a := range k.Applets {
		tokens = append(slices.Clip(tokens), a.Tokens...)
		for _, t := range a.Tokens {
			if t.Due == "" {
				lines = append(lines, t.Token+" is "+t.Status+belonging(t.Owner))
			}
		}
	}
	for _, s := range tokens {
		if s.Due != "" {
			lines = append(lines, s.Token+" "+s.Due)
		}
	}
	if k.Card != nil && k.Card.PIV != nil && k.Card.PIV.Due != "" {
		lines = append(lines, k.Card.PIV.Token+" "+k.Card.PIV.Due)
	}
	return strings.Join(lines, "\n")
}

// firstApp is the flag by which the first token of a key is enrolled; none for what is meant without one.
func firstApp(k api.Key) string {
	app := "oath:NAME"
	if len(k.Slots) > 0 {
		_, app, _ = strings.Cut(k.Slots[0].Token, "/")
	}
	if strings.HasPrefix(app, "otp") {
		return ""
	}
	return " --app " + app
}

// Slots have a column each, as many as YubiKeys have; of a third one a note tells.
const slotWidth, slotColumns = 14, 2

// appletNote says how full an applet is; nothing if it is empty.
func appletNote(a api.Applet) string {
	name := strings.ToUpper(a.Name)
	switch {
	case a.Locked:
		return name + " locked"
	case a.Used > 0 && a.Capacity > 0:
		return fmt.Sprintf("%s %d of %d", name, a.Used, a.Capacity)
	case a.Used > 0:
		return fmt.Sprintf("%s %d", name, a.Used)
	}
	return ""
}

func keyRow(out screen, k api.Key) []string {
	name, model := k.ID, k.Model
	if name == "" {
		name = "?"
	}
	if k.Firmware != "" {
		model += " " + k.Firmware
	}
	cells := []string{name, model, "", "", cardCell(out, k.Card)}
	var notes []string
	if k.Emulated {
		notes = append(notes, out.paint(text.FgMagenta, "EMULATED"))
	}
	for i, s := range k.Slots {
		cell := "empty"
		switch {
		case s.Status != "":
			cell = statusCell(out, s.Status, s.Owner)
		case s.Configured:
			cell = "in use"
		}
		if i < slotColumns {
			cells[2+i] = cell
		} else if cell != "empty" {
			notes = append(notes, fmt.Sprintf("slot %d %s", i+1, cell))
		}
	}
	for _, a := range k.Applets {
		if note := appletNote(a); note != "" {
			notes = append(notes, note)
		}
	}
	if k.New {
		notes = append(notes, "being identified")
	}
	return append(cells, strings.Join(notes, ", "))
}

func statusCell(out screen, status, owner string) string {
	cell := out.status(status)
	if owner != "" {
		cell += " " + cut(owner, max(4, slotWidth-1-len(status)))
	}
	return cell
}

// cardCell says how a key's PIV application is; nothing if the desk sees no smart card.
func cardCell(out screen, card *api.Card) string {
	switch {
	case card == nil || card.PIV == nil && card.Problem == "":
		return ""
	case card.Problem != "":
		return out.paint(text.FgRed, "?")
	case card.PIV.Status != "":
		return statusCell(out, card.PIV.Status, card.PIV.Owner)
	}
	return "present"
}

func doctor(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	var found api.Findings
	if err := daemon(c).Get(c.Context, "/v1/doctor", nil, &found); err != nil {
		return err
	}
	out := output(c)
	broken := 0
	var rows []row
	for _, f := range found.Findings {
		mark, line := out.paint(text.FgGreen, "good"), f.Text
		if !f.OK {
			broken++
			mark = out.paint(text.FgRed, "BAD")
			if f.Cure != "" {
				line += "\nCure: " + f.Cure
			}
		}
		rows = append(rows, row{cells: []string{mark, f.Area, line}})
	}
	if out.json {
		if err := out.printJSON(found); err != nil {
			return err
		}
	} else {
		out.table([]string{"STATE", "AREA", "FINDING"}, rows)
	}
	if broken > 0 {
		return exitCode(1)
	}
	return nil
}

// tokenPath is the API's path of the token that the only argument names.
func tokenPath(c *cli.Context) (string, error) {
	args, err := arguments(c, "token")
	if err != nil {
		return "", err
	}
	return pathOf(args[0])
}

// tokenName is the name of a token; where it has no application, the device is one itself.
var tokenName = regexp.MustCompile(`^([a-z]{2,8}-[0-9a-f]{1,10})/([a-z0-9]+(?::[a-z0-9._-]+)?)$|^(fob-[0-9a-z]{1,20}|(?:mail|phone)-[0-9]{1,10})$`)

func pathOf(token string) (string, error) {
	m := tokenName.FindStringSubmatch(token)
	if m == nil {
		return "", usage("%q is not a token: tokens are named DEVICE/APPLICATION, for example yk-12345678/otp2, or as the device, for example fob-2308001", token)
	}
	return "/v1/tokens/" + url.PathEscape(m[1]+m[3]) + "/" + or(m[2], "token"), nil
}
