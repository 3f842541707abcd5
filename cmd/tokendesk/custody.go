package main

import (
	"fmt"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"

	"tokendesk/cmd/internal/api"
)

// printCustody shows to whom tokens were given, the newest first; named says which token each time.
func printCustody(out screen, links []api.Handover, named bool) {
	if len(links) == 0 {
		return
	}
	// As long as fits beside the other columns at their longest; with the token's name, the officer does not.
	names, crowded := 14, named && out.width < wide
	switch {
	case crowded:
		names = 10
	case out.width >= wide:
		names = 24
	}
	var rows []row
	for _, h := range links {
		token, by, below := "", cut(harmless(h.Officer), 12), circumstances(out, h)
		if named {
			token = h.Token
		}
		if crowded {
			by, below = "", append([]string{"by " + harmless(h.Officer)}, below...)
		}
		rows = append(rows, row{
			[]string{moment(h.Time), token, h.Kind, cut(or(h.From, "(stock)"), names), cut(h.To, names), by}, strings.Join(below, "\n"),
		})
	}
	out.printf("\n")
	out.table([]string{"WHEN", "TOKEN", "HANDOVER", "FROM", "TO", "OFFICER"}, rows)
}

// circumstances are what was proven at a handover, and what was special about it.
func circumstances(out screen, h api.Handover) (lines []string) {
	if h.Old != "" {
		line := "in place of " + h.Old
		if h.OldStatus != "" {
			line += ", which is " + h.OldStatus
		}
		lines = append(lines, line)
	}
	if h.Offline {
		lines = append(lines, out.paint(text.FgYellow, "it went on before the central service had confirmed that "+or(h.From, "whoever had it")+" is cut off"))
	}
	lines = append(lines, harmless(h.Proof.Text))
	for _, c := range h.Revoke {
		lines = append(lines, fmt.Sprintf("with it certificate number %s of %s was to be revoked", harmless(c.Serial), harmless(c.Issuer)))
	}
	if h.Reason != "" {
		lines = append(lines, "reason: "+harmless(h.Reason))
	}
	return lines
}
