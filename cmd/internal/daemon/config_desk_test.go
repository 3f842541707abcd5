package daemon

import (
	"strings"
	"testing"

	"tokendesk/cmd/internal/paper"
)

func TestDeskConfig(t *testing.T) {
	c, err := ParseConfig("desk.toml", []byte("[desk]\nname = \"Example Org\"\nreturn_to = \"Main Street 1\"\n"))
	if want := (paper.Imprint{Name: "Example Org", ReturnTo: "Main Street 1"}); err != nil || c.Desk.imprint() != want {
		t.Errorf("%+v, %v", c.Desk, err)
	}
	for text, want := range map[string]string{
		"desk.name = \"hunter2\\n\"":                                   "desk.toml: desk.name must be one line of up to 60 bytes",
		"desk.name = '" + strings.Repeat("hunter2", 9) + "'":           "desk.toml: desk.name must be one line of up to 60 bytes",
		"desk.return_to = '" + strings.Repeat("hunter2", 20) + "'":     "desk.toml: desk.return_to must be one line of up to 120 bytes",
		"[desk]\nlogo = 'hunter2'":                                     "desk.toml:2: unknown key desk.logo",
		"desk.name = \"\\u001bhunter2\"\ndesk.return_to = \"\\u0007\"": "desk.toml: desk.name must be one line of up to 60 bytes\ndesk.toml: desk.return_to must be one line of up to 120 bytes",
	} {
		if _, err := ParseConfig("desk.toml", []byte(text)); err == nil || err.Error() != want {
			t.Errorf("%s\n got %v\nwant %s", text, err, want)
		}
	}
}
