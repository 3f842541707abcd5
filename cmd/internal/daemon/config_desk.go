package daemon

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"tokendesk/cmd/internal/paper"
)

// DeskConfig is what stands on receipts, labels and reports.
type DeskConfig struct {
	Name     string `toml:"name"`      // of the organization or desk
	ReturnTo string `toml:"return_to"` // where a token that was found is to be brought
}

// What fits on a label, in bytes.
const (
	maxDeskName = 60
	maxReturnTo = 120
)

func (c DeskConfig) check() (problems []string) {
	for _, e := range []struct {
		key, text string
		most      int
	}{{"desk.name", c.Name, maxDeskName}, {"desk.return_to", c.ReturnTo, maxReturnTo}} {
		if len(e.text) > e.most || strings.ContainsFunc(e.text, unicode.IsControl) || !utf8.ValidString(e.text) {
			problems = append(problems, fmt.Sprintf("%s must be one line of up to %d bytes", e.key, e.most))
		}
	}
	return problems
}

func (c DeskConfig) imprint() paper.Imprint { return paper.Imprint(c) }
