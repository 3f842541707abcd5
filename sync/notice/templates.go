package notice

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"
	"time"
	"unicode"
	"unicode/utf8"

	"tokendesk/device"
	"tokendesk/vault"
)

// Bounds of a template and of what it makes: a file and a text in bytes, a subject so that it fits into one line of a mail
// (RFC 5322 section 2.1.1).
const (
	maxTemplate = 16 << 10
	maxText     = 64 << 10
	maxSubject  = 150
)

//go:embed templates/*.txt
var builtIn embed.FS

// suffix is that of a template's file; before it stands the kind.
const suffix = ".txt"

// Kinds returns the kinds of notices that there are words for.
func Kinds() (kinds []string) {
	files, _ := fs.Glob(builtIn, "templates/*"+suffix) // the pattern is well-formed
	for _, f := range files {
		kinds = append(kinds, strings.TrimSuffix(filepath.Base(f), suffix))
	}
	return kinds
}

// Templates are the words of all kinds of notices.
type Templates struct{ kinds map[string]words }

// words are those of one kind.
type words struct{ subject, body *template.Template }

// Facts are what a template can name, as {{.User}} and so on.
type Facts struct {
	User      string // the holder's name
	Token     string // such as yk-12345678/otp2
	Device    string // such as yk-12345678
	What      string // the token in words: "token with the serial number 12345678"
	Serial    string // what is printed on the device, such as 12345678; empty if there is none to hold
	Touch     string // how it is touched; empty if it has no touch
	Successor string // reissued: who has it now; the built-in words keep that to themselves
	Reason    string // the officer's words, which are not meant for the holder; may be empty
	Date      string // of the fact, such as 2 January 2026
	Contact   string // the address to ask at
}

// factsOf collects what a template can name.
func factsOf(n vault.Notice, contact string) Facts {
	f := Facts{
		User: n.User, Token: string(n.Token), Device: string(n.Token.Device()), Successor: n.Successor, Reason: n.Reason,
		Date: n.Created.Local().Format("2 January 2006"), Contact: contact,
	}
	switch _, number, _ := strings.Cut(f.Device, "-"); n.Token.Device().Family() {
	case device.Mail:
		f.What = fmt.Sprintf("token for codes by mail (%s)", f.Device)
	case device.Phone:
		f.What = fmt.Sprintf("token for codes by phone (%s)", f.Device)
	default:
		f.Serial, f.What = number, "token with the serial number "+number
	}
	switch n.Token.Slot() {
	case 1:
		f.Touch = "briefly"
	case 2:
		f.Touch = "for three seconds"
	}
	return f
}

// LoadTemplates returns the built-in words, and in their place those of the files NAME.txt in dir, whose first line is the
// subject: "Subject: ..." Every file is tried; its error says which it is. An empty dir is none.
func LoadTemplates(dir string) (*Templates, error) {
	t := &Templates{kinds: map[string]words{}}
	for _, kind := range Kinds() {
		text, err := builtIn.ReadFile("templates/" + kind + suffix)
		if err != nil {
			return nil, err
		}
		if err := t.add(kind, string(text)); err != nil {
			return nil, fmt.Errorf("the built-in template %s: %w", kind, err)
		}
	}
	if dir == "" {
		return t, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the templates: %w", err)
	}
	for _, e := range entries {
		kind, isTemplate := strings.CutSuffix(e.Name(), suffix)
		if !isTemplate {
			continue
		}
		if err := t.load(kind, filepath.Join(dir, e.Name())); err != nil {
			return nil, fmt.Errorf("template %q: %w", filepath.Join(dir, e.Name()), err)
		}
	}
	return t, nil
}

func (t *Templates) load(kind, path string) error {
	if !slices.Contains(Kinds(), kind) {
		return fmt.Errorf("there is no notice of that name; there are %s", strings.Join(Kinds(), ", "))
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("it is not a file")
	case info.Size() > maxTemplate:
		return fmt.Errorf("it has %d bytes, and may have %d", info.Size(), maxTemplate)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return t.add(kind, string(text))
}

// add takes a template in if it makes a mail of any facts.
func (t *Templates) add(kind, text string) error {
	if len(text) > maxTemplate {
		return fmt.Errorf("it has more than %d bytes", maxTemplate)
	}
	if !utf8.ValidString(text) || strings.ContainsFunc(text, isForbidden) {
		return errors.New("it contains control characters or is not UTF-8")
	}
	first, body, _ := strings.Cut(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	subject, found := strings.CutPrefix(first, "Subject: ")
	if !found {
		return errors.New(`its first line must begin with "Subject: "`)
	}
	if strings.TrimSpace(body) == "" {
		return errors.New("it has no text below its subject")
	}
	var w words
	var err error
	if w.subject, err = sentence("subject", subject); err != nil {
		return err
	}
	if w.body, err = sentence("text", strings.TrimPrefix(body, "\n")); err != nil {
		return err
	}
	for _, sample := range samples() {
		if _, _, err := w.render(sample); err != nil {
			return err
		}
	}
	t.kinds[kind] = w
	return nil
}

// samples are facts that every template is tried with: with all there can be, and with as little.
func samples() []Facts {
	long := vault.Notice{User: strings.Repeat("m", 64), Token: "yk-4294967295/otp2", Successor: strings.Repeat("m", 64), Reason: strings.Repeat("m", 200), Created: time.Now()}
	bare := vault.Notice{User: "a", Token: "yk-1/otp1", Created: time.Now()}
	return []Facts{factsOf(long, "security@example.org"), factsOf(bare, "a@b")}
}

// Of the library's functions a sentence may use those that cannot run for long, nor fill the memory.
var functions = []string{"and", "or", "not", "eq", "ne"}

// sentence parses a template that can only name facts and choose between words by them: no loops, no calls of other templates.
func sentence(name, text string) (*template.Template, error) {
	tmpl, err := template.New(name).Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, plain(err)
	}
	if len(tmpl.Templates()) > 1 {
		return nil, errors.New("a template cannot define others")
	}
	if tmpl.Tree == nil { // it is empty
		return tmpl, nil
	}
	return tmpl, simple(tmpl.Root)
}

// simple refuses what is not for sentences.
func simple(node parse.Node) error {
	var below []parse.Node
	switch n := node.(type) {
	case *parse.ListNode:
		if n != nil {
			below = n.Nodes
		}
	case *parse.IfNode:
		below = []parse.Node{n.Pipe, n.List, n.ElseList}
	case *parse.WithNode:
		below = []parse.Node{n.Pipe, n.List, n.ElseList}
	case *parse.ActionNode:
		below = []parse.Node{n.Pipe}
	case *parse.PipeNode:
		for _, c := range n.Cmds {
			below = append(below, c)
		}
	case *parse.CommandNode:
		below = n.Args
	case *parse.IdentifierNode:
		if !slices.Contains(functions, n.Ident) {
			return fmt.Errorf("a template can use %s, not %s", strings.Join(functions, ", "), n.Ident)
		}
	case *parse.ChainNode:
		below = []parse.Node{n.Node}
	case *parse.TextNode, *parse.FieldNode, *parse.VariableNode, *parse.DotNode, *parse.StringNode, *parse.NumberNode, *parse.BoolNode,
		*parse.CommentNode, *parse.NilNode:
	default:
		return errors.New("a template can name facts and choose by if and with, and nothing more")
	}
	for _, b := range below {
		if err := simple(b); err != nil {
			return err
		}
	}
	return nil
}

// Render makes the subject and the text of a mail of a kind.
func (t *Templates) Render(kind string, f Facts) (subject, body string, err error) {
	w, found := t.kinds[kind]
	if !found {
		return "", "", fmt.Errorf("there are no words for a notice of kind %q", kind)
	}
	return w.render(f)
}

func (w words) render(f Facts) (subject, body string, err error) {
	if subject, err = fill(w.subject, f); err != nil {
		return "", "", err
	}
	subject = strings.TrimSpace(subject)
	if subject == "" || len(subject) > maxSubject || strings.ContainsFunc(subject, unicode.IsControl) {
		return "", "", fmt.Errorf("the subject must be one line of 1 to %d bytes", maxSubject)
	}
	if body, err = fill(w.body, f); err != nil {
		return "", "", err
	}
	if strings.ContainsFunc(body, isForbidden) {
		return "", "", errors.New("the text contains control characters")
	}
	return subject, body, nil
}

// isForbidden tells what has no place in a text.
func isForbidden(c rune) bool { return unicode.IsControl(c) && c != '\n' && c != '\t' && c != '\r' }

func fill(t *template.Template, f Facts) (string, error) {
	var out bounded
	if t.Tree == nil {
		return "", nil
	}
	if err := t.Execute(&out, f); err != nil {
		return "", plain(err)
	}
	return out.text.String(), nil
}

// plain is an error of the library's without its prefix.
func plain(err error) error { return errors.New(strings.TrimPrefix(err.Error(), "template: ")) }

// bounded takes a text in that is not too long.
type bounded struct{ text strings.Builder }

var errLong = fmt.Errorf("it makes a text of more than %d bytes", maxText)

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.text.Len()+len(p) > maxText {
		return 0, errLong
	}
	return b.text.Write(p)
}
