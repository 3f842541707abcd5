package main

import (
	"fmt"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
)

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
	for _, name := range []string{"active", "pending", "disabled", "limbo", "expired", "compromised"} {
		if n := s.Tokens[name]; n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, out.status(name)))
		}
	}
	tokens := "none yet"
	if len(counts) > 0 {
		tokens = fmt.Sprintf("%s; %d in stock", strings.Join(counts, ", "), s.Stock)
	}
	desk := [2]string{"Desk", fmt.Sprintf("tokendeskd %s, up since %s", s.Version, moment(s.Since))}
	var rows [][2]string
	if s.Vault.State == "open" {
		rows = [][2]string{desk, vaultState(out, s.Vault)[0], {"Protection", s.Vault.Means}, {"Backup", backupLine(out, s.Vault)}, {"Tokens", tokens}}
	} else { // nothing else matters before this
		rows = append(vaultState(out, s.Vault), [2]string{"Details", "tokendesk vault status"}, desk)
	}
	rows = append(rows, [2]string{"Devices", fmt.Sprintf("%d inserted", s.Keys)})
	for _, b := range s.Buses {
		if b.Problem != "" {
			rows = append(rows, [2]string{"Bus " + b.Name, out.paint(text.FgYellow, b.Problem)})
		}
	}
	if s.Vault.State == "open" { // else nobody knows
		rows = append(rows, [2]string{"Central", centralLine(out, s.Central)})
	}
	for _, m := range s.Central.Missing {
		rows = append(rows, [2]string{"Not read", out.paint(text.FgYellow, m)})
	}
	for _, r := range s.Central.Rollbacks {
		colour := text.FgYellow
		if r.Repaired == nil {
			colour = text.FgRed
		}
		rows = append(rows, [2]string{"Rollback", out.paint(colour, rollbackLine(r))})
	}
	if s.Overdue > 0 {
		rows = append(rows, [2]string{"Leavers", out.paint(text.FgRed,
			these(s.Overdue, "1 leaver's tokens are overdue", "%d leavers' tokens are overdue")+": tokendesk leavers list --overdue")})
	} else if s.Leavers > 0 {
		rows = append(rows, [2]string{"Leavers", these(s.Leavers, "1 leaver's tokens are", "%d leavers' tokens are") + " to come back: tokendesk leavers"})
	}
	if s.Revocations > 0 {
		rows = append(rows, [2]string{"Certificates", out.paint(text.FgYellow,
			these(s.Revocations, "1 is", "%d are")+" to be revoked at the issuer: tokendesk piv revocations")})
	}
	if line := noticesLine(out, s.Notices); line != "" {
		rows = append(rows, [2]string{"Notices", line})
	}
	for _, u := range s.Unfinished {
		rows = append(rows, [2]string{"Unfinished", out.paint(text.FgRed, u)})
	}
	out.fields(rows)
	return nil
}

func centralLine(out screen, c api.Central) string {
	switch {
	case c.Name == "" && c.Waiting == 0:
		return "no central service is configured"
	case c.Name == "":
		return out.paint(text.FgYellow, fmt.Sprintf("no central service is configured: %s in the outbox since %s", changes(c.Waiting), moment(*c.Oldest)))
	case c.Waiting == 0:
		return c.Name + ": everything is confirmed"
	}
	line := fmt.Sprintf("%s: %s in the outbox since %s", c.Name, changes(c.Waiting), moment(*c.Oldest))
	if c.CutOffs > 0 {
		line += fmt.Sprintf(", %d cut-off among them", c.CutOffs)
	}
	if c.Parked > 0 {
		line += fmt.Sprintf(", %d parked", c.Parked)
	}
	if c.Problem != "" {
		line += ": " + c.Problem
	}
	return out.paint(text.FgYellow, line)
}

// changes says how many changes wait.
func changes(n int) string {
	if n == 1 {
		return "1 change waits"
	}
	return fmt.Sprintf("%d changes wait", n)
}
