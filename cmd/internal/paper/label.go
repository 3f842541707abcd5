package paper

import (
	"bytes"
	"fmt"

	"tokendesk/vault/audit"
)

// Label is what sticks to a token: which one it is, and where it belongs. It names no holder: whoever finds a key must not learn
// whose it is.
type Label struct {
	Desk     Imprint
	Token    string
	Serial   string
	Emulated bool
}

// Render prints a label of 62 by 29 millimetres.
func (l Label) Render() ([]byte, error) {
	for _, t := range []*string{&l.Desk.Name, &l.Desk.ReturnTo, &l.Token, &l.Serial} {
		*t = audit.Plain(*t, maxReason)
	}
	qr, err := code(l.Token, "qr", "QR code: "+l.Token)
	if err != nil {
		return nil, err
	}
	var page bytes.Buffer
	if err := templates.ExecuteTemplate(&page, "label.html", map[string]any{"L": l, "Desk": l.Desk.name(), "QR": qr}); err != nil {
		return nil, fmt.Errorf("cannot print a label: %w", err)
	}
	return page.Bytes(), nil
}
