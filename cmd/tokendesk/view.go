package main

import (
	"fmt"
	"net/url"
	"strconv"
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
		{
			Name: "list", Usage: "show the inventory", ArgsUsage: "[TEXT]", Category: "Look", Action: list,
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "owner", Usage: "only tokens of `USER`"},
				&cli.StringFlag{Name: "status", Usage: "only tokens that are `STATUS`: pending, active, disabled, limbo"},
				&cli.StringFlag{Name: "device", Usage: "only tokens of `DEVICE`"},
				&cli.IntFlag{Name: "limit", Usage: "at most `N`", Value: 100},
				&cli.StringFlag{Name: "after", Usage: "start after `TOKEN`: the next page"},
			},
		},
		{Name: "show", Usage: "show one token", ArgsUsage: "TOKEN", Category: "Look", Action: show},
		{Name: "status", Usage: "show how the desk is", Category: "Look", Action: status},
		{Name: "doctor", Usage: "look for what is broken, and name its cure", Category: "Look", Action: doctor},
		{
			Name: "outbox", Usage: "show what the central service has not confirmed", Category: "Look", Action: outbox,
			Subcommands: []*cli.Command{{Name: "retry", Usage: "try a waiting or parked change again, now", ArgsUsage: "NUMBER", Action: retry}},
		},
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
	var rows [][]string
	for _, k := range found.Keys {
		rows = append(rows, keyRow(out, k))
	}
	if len(rows) > 0 {
		out.table([]string{"DEVICE", "MODEL", "SLOT 1", "SLOT 2", "NOTE"}, rows)
	} else {
		out.printf("No device is inserted.\n")
	}
	for _, b := range found.Buses {
		if b.Problem != "" {
			out.printf("%s %s: %s\n", out.paint(text.FgYellow, "Nothing is seen on"), b.Name, b.Problem)
		}
	}
	return nil
}

func watch(c *cli.Context, out screen) error {
	return daemon(c).Watch(c.Context, func(e api.KeyEvent) error {
		if out.json {
			return out.printJSON(e)
		}
		row := keyRow(out, e.Key)
		if e.Event == "removed" {
			row[2], row[3], row[4] = "", "", ""
		}
		line := fmt.Sprintf("%s  %-8s %-14s %-18s %s  %s  %s", e.Time.Local().Format("15:04:05"), e.Event,
			row[0], row[1], text.Pad(row[2], slotWidth, ' '), text.Pad(row[3], slotWidth, ' '), row[4])
		out.printf("%s\n", strings.TrimRight(line, " "))
		return nil
	})
}

const slotWidth = 14

func keyRow(out screen, k api.Key) []string {
	name, model := k.ID, k.Model
	if name == "" {
		name = "?"
	}
	if k.Firmware != "" {
		model += " " + k.Firmware
	}
	row := []string{name, model, "", ""}
	for i, s := range k.Slots {
		cell := "empty"
		switch {
		case s.Status != "":
			cell = out.status(s.Status)
			if s.Owner != "" {
				cell += " " + cut(s.Owner, max(4, slotWidth-1-len(s.Status)))
			}
		case s.Configured:
			cell = "in use"
		}
		row[2+i] = cell
	}
	var notes []string
	if k.Emulated {
		notes = append(notes, out.paint(text.FgMagenta, "EMULATED"))
	}
	if k.New {
		notes = append(notes, "being identified")
	}
	if k.Problem != "" {
		notes = append(notes, out.paint(text.FgRed, k.Problem))
	}
	return append(row, strings.Join(notes, " "))
}

func list(c *cli.Context) error {
	if c.NArg() > 1 {
		return usage("one argument too many: tokendesk list [TEXT]")
	}
	q := url.Values{}
	for _, name := range []string{"owner", "status", "device", "after"} {
		if v := c.String(name); v != "" {
			q.Set(name, v)
		}
	}
	if c.NArg() == 1 {
		q.Set("text", c.Args().First())
	}
	q.Set("limit", strconv.Itoa(c.Int("limit")))
	var found api.Tokens
	if err := daemon(c).Get(c.Context, "/v1/tokens", q, &found); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(found)
	}
	if len(found.Tokens) == 0 {
		out.printf("No token fits.\n")
		return nil
	}
	headings := []string{"TOKEN", "STATUS", "OWNER", "COUNTER", "DIGITS"}
	if out.width >= wide {
		headings = append(headings, "SEED", "FIRMWARE", "LAST USED", "UPDATED")
	}
	var rows [][]string
	for _, t := range found.Tokens {
		owner := t.Owner
		if owner == "" {
			owner = "(stock)"
		}
		row := []string{t.ID, out.status(t.Status), cut(owner, 24), strconv.FormatUint(t.Counter, 10), strconv.Itoa(t.Digits)}
		if out.width >= wide {
			used := "never"
			if t.LastUsed != nil {
				used = moment(*t.LastUsed)
			}
			row = append(row, strconv.Itoa(t.Generation), t.Firmware, used, moment(t.Updated))
		}
		rows = append(rows, append(row, strings.Join(notes(out, t), ", ")))
	}
	out.table(append(headings, "NOTE"), rows)
	if found.Next != "" {
		out.printf("There are more: tokendesk list --after %s\n", found.Next)
	}
	return nil
}

func notes(out screen, t api.Token) []string {
	var n []string
	if t.Emulated {
		n = append(n, out.paint(text.FgMagenta, "EMULATED"))
	}
	if t.Unfinished != "" {
		n = append(n, out.paint(text.FgRed, "unfinished"))
	}
	if t.Waiting > 0 {
		n = append(n, out.paint(text.FgYellow, "push waits"))
	}
	return n
}

func show(c *cli.Context) error {
	path, err := tokenPath(c)
	if err != nil {
		return err
	}
	var t api.Token
	if err := daemon(c).Get(c.Context, path, nil, &t); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(t)
	}
	printToken(out, t)
	return nil
}

func printToken(out screen, t api.Token) {
	owner := t.Owner
	if owner == "" {
		owner = "nobody (stock)"
	}
	kind := fmt.Sprintf("HOTP, %d digits", t.Digits)
	if t.Identifier {
		kind += ", types its token identifier first"
	}
	device := fmt.Sprintf("%s, firmware %s", t.Device, t.Firmware)
	if t.Emulated {
		device += ", " + out.paint(text.FgMagenta, "EMULATED")
	}
	used := "never seen by the desk"
	if t.LastUsed != nil {
		used = moment(*t.LastUsed)
	}
	push := "confirmed by the central service, or nothing to push"
	if t.Waiting > 0 {
		push = out.paint(text.FgYellow, fmt.Sprintf("%d waiting: see tokendesk outbox", t.Waiting))
	}
	rows := [][2]string{
		{"Token", t.ID},
		{"Status", out.status(t.Status)},
		{"Owner", owner},
		{"Type", kind},
		{"Device", device},
		{"Central name", t.Central},
		{"Next counter", strconv.FormatUint(t.Counter, 10)},
		{"Seed", fmt.Sprintf("generation %d, sealed in the vault", t.Generation)},
		{"Last used", used},
		{"Updated", moment(t.Updated)},
		{"Created", moment(t.Created)},
		{"Push", push},
	}
	if t.Generation == 0 {
		rows[7][1] = "not verified yet, sealed in the vault"
	}
	if t.Unfinished != "" {
		rows = append(rows, [2]string{"Unfinished", out.paint(text.FgRed, t.Unfinished) + "; settle it: tokendesk resolve " + t.ID})
	}
	out.fields(rows)
}

func status(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	var s api.Status
	if err := daemon(c).Get(c.Context, "/v1/status", nil, &s); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(s)
	}
	var counts []string
	for _, name := range []string{"active", "pending", "disabled", "limbo"} {
		if n := s.Tokens[name]; n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, out.status(name)))
		}
	}
	if len(counts) == 0 {
		counts = []string{"none yet"}
	}
	rows := [][2]string{
		{"Desk", fmt.Sprintf("tokendeskd %s, up since %s", s.Version, moment(s.Since))},
		{"Vault", fmt.Sprintf("%s at %s", s.Vault.State, s.Vault.Path)},
		{"Protection", s.Vault.Means},
		{"Tokens", fmt.Sprintf("%s; %d in stock", strings.Join(counts, ", "), s.Stock)},
		{"Devices", fmt.Sprintf("%d inserted", s.Keys)},
	}
	for _, b := range s.Buses {
		if b.Problem != "" {
			rows = append(rows, [2]string{"Bus " + b.Name, out.paint(text.FgYellow, b.Problem)})
		}
	}
	rows = append(rows, [2]string{"Central", centralLine(out, s.Central)})
	for _, u := range s.Unfinished {
		rows = append(rows, [2]string{"Unfinished", out.paint(text.FgRed, u)})
	}
	out.fields(rows)
	return nil
}

func centralLine(out screen, c api.Central) string {
	name := c.Name
	if name == "" {
		name = "no central service is configured"
	}
	if c.Waiting == 0 {
		return name + ": everything is confirmed"
	}
	line := fmt.Sprintf("%s: %d waiting since %s", name, c.Waiting, moment(*c.Oldest))
	if c.CutOffs > 0 {
		line += fmt.Sprintf(", %d of them cut-offs", c.CutOffs)
	}
	if c.Parked > 0 {
		line += fmt.Sprintf(", %d parked", c.Parked)
	}
	if c.Problem != "" {
		line += ": " + c.Problem
	}
	return out.paint(text.FgYellow, line)
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
	var rows [][]string
	for _, f := range found.Findings {
		mark, line := out.paint(text.FgGreen, "good"), f.Text
		if !f.OK {
			broken++
			mark, line = out.paint(text.FgRed, "BAD"), f.Text+"\nCure: "+f.Cure
		}
		rows = append(rows, []string{mark, f.Area, line})
	}
	if out.json {
		if err := out.printJSON(found); err != nil {
			return err
		}
	} else {
		out.table([]string{"", "AREA", "FINDING"}, rows)
	}
	if broken > 0 {
		return exitCode(1)
	}
	return nil
}

func outbox(c *cli.Context) error {
	if c.NArg() > 0 {
		return usage("there is no tokendesk outbox %s: see tokendesk outbox --help", c.Args().First())
	}
	var found api.Changes
	if err := daemon(c).Get(c.Context, "/v1/outbox", nil, &found); err != nil {
		return err
	}
	return printOutbox(output(c), found)
}

func retry(c *cli.Context) error {
	args, err := arguments(c, "number of the change")
	if err != nil {
		return err
	}
	seq, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return usage("%q is not the number of a change: tokendesk outbox shows them", args[0])
	}
	var left api.Changes
	if err := daemon(c).Post(c.Context, fmt.Sprintf("/v1/outbox/%d/retry", seq), nil, &left); err != nil {
		return err
	}
	return printOutbox(output(c), left)
}

func printOutbox(out screen, found api.Changes) error {
	if out.json {
		return out.printJSON(found)
	}
	if len(found.Changes) == 0 {
		out.printf("The outbox is empty: the central service has confirmed everything.\n")
		return nil
	}
	var rows [][]string
	for _, ch := range found.Changes {
		rows = append(rows, []string{
			strconv.FormatUint(ch.Seq, 10), out.status(ch.State), ch.Kind, ch.Token, cut(ch.User, 16), strconv.Itoa(ch.Attempts), ch.Problem,
		})
	}
	out.table([]string{"NO", "STATE", "CHANGE", "TOKEN", "USER", "TRIES", "PROBLEM"}, rows)
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

func pathOf(token string) (string, error) {
	device, application, ok := strings.Cut(token, "/")
	if !ok || device == "" || application == "" {
		return "", usage("%q is not a token: tokens are named DEVICE/APPLICATION, for example yk-12345678/otp2", token)
	}
	return "/v1/tokens/" + url.PathEscape(device) + "/" + url.PathEscape(application), nil
}
