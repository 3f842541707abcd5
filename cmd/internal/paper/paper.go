// Package paper makes what the desk prints, and proves it afterwards: custody receipts, labels and reports.
//
// Everything is one file that needs no other: HTML with its style inside, no script, nothing from elsewhere, legible in black and
// white; reports are CSV and JSON as well. It knows neither the vault nor the daemon, and reads no clock: who prints says what is
// true, and signs. What it prints has no room for a seed, a code or a PIN.
//
// It promises of a receipt: with one character changed, added or removed it does not verify. Its QR code holds the facts with a
// signature of their own, so that the paper proves itself when the file is gone. Hostile input of any size is read in bounded
// memory and never panics.
//
// It does not promise that the facts are true, that the holder has the token, or that the desk told the same to everybody.
package paper

import (
	"embed"
	"fmt"
	"html/template"
	"strconv"
	"time"

	"tokendesk/vault/audit"
)

// Imprint is whose desk it is.
type Imprint struct {
	Name     string // of the organization or desk; empty: "Token desk"
	ReturnTo string // where a token that was found is to be brought; may be empty
}

const nameless = "Token desk"

func (i Imprint) name() string {
	if i.Name == "" {
		return nameless
	}
	return i.Name
}

// Signer signs a text of a kind, as the vault does.
type Signer func(kind audit.Kind, text []byte) (audit.Signature, error)

//go:embed *.css *.html
var files embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{"style": style}).ParseFS(files, "*.html"))

// style is the inside of a style element, from a file that is compiled in.
func style(name string) (template.CSS, error) {
	text, err := files.ReadFile(name)
	return template.CSS(text), err
}

// moment is a time with its zone, as people and programs read it.
func moment(t time.Time) string { return t.Format("2006-01-02 15:04:05 MST (-07:00)") }

// these counts things: in words while that reads better.
func these(n int, one, many string) string {
	words := []string{"no", "one", "two", "three", "four", "five", "six"}
	number := strconv.Itoa(n)
	if n >= 0 && n < len(words) {
		number = words[n]
	}
	if n == 1 {
		return number + " " + one
	}
	return fmt.Sprintf("%s %s", number, many)
}
