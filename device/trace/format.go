package trace

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"tokendesk/device"
)

// A file is lines of text, one a call:
//
//	tokendesk trace 1
//	token yk-12345678/otp2
//	reports 1050:0407 emulated
//	note a slot is programmed
//
//	do open
//	is ok
//	do program seed=rfc4226 digits=8 counter=16 new=code-a
//	get 000504030000000000 x2
//	set 00313233343536378230 ! gone
//	is fails gone
//
// The third line is "card" instead if the device is a smart card; then calls are "apdu COMMAND STATUS ANSWER". "key" is a
// keyboard report, or "-" where none came, and "draw" what the host has chosen at random. Bytes are hexadecimal. An exclamation
// mark is followed by the name of an error. Empty lines, and those that begin with #, say nothing.
const (
	magic   = "tokendesk trace "
	version = "1"

	// MaxSize is how long a file can be, in bytes.
	MaxSize  = 4 << 20
	maxTimes = 1_000_000
	maxKeys  = 64
)

// Bytes returns the file.
func (t *Trace) Bytes() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s%s\ntoken %s\n", magic, version, t.Token)
	if t.card() {
		b.WriteString("card")
	} else {
		fmt.Fprintf(&b, "reports %04x:%04x", t.Vendor, t.Product)
	}
	if t.Emulated {
		b.WriteString(" emulated")
	}
	if t.Note != "" {
		fmt.Fprintf(&b, "\nnote %s", t.Note)
	}
	b.WriteString("\n")
	for _, s := range t.Steps {
		fmt.Fprintf(&b, "\ndo %s\n", s.Operation)
		for _, c := range s.Calls {
			fmt.Fprintln(&b, c)
		}
		fmt.Fprintf(&b, "is %s\n", s.Outcome)
	}
	return b.Bytes()
}

func (c Call) String() string {
	words := []string{string(c.Kind)}
	switch c.Kind {
	case Set:
		words = append(words, hex.EncodeToString(c.Sent))
	case APDU:
		words = append(words, hex.EncodeToString(c.Sent))
		if c.Err == "" {
			words = append(words, fmt.Sprintf("%04x", c.Status))
		}
	}
	switch {
	case c.Err != "":
		words = append(words, "!", c.Err)
	case len(c.Got) > 0:
		words = append(words, hex.EncodeToString(c.Got))
	case c.Kind == Key:
		words = append(words, "-")
	}
	if c.Times > 1 {
		words = append(words, "x"+strconv.Itoa(c.Times))
	}
	return strings.Join(words, " ")
}

// Parse reads a file.
func Parse(file []byte) (*Trace, error) {
	if len(file) > MaxSize {
		return nil, fmt.Errorf("a trace has at most %d bytes, this one has %d", MaxSize, len(file))
	}
	if !utf8.Valid(file) {
		return nil, errors.New("this is no trace: it is not text")
	}
	p := parser{expect: (*parser).begin}
	for line := range strings.SplitSeq(string(file), "\n") {
		p.line++
		line = strings.TrimSuffix(line, "\r")
		if line == "" || line[0] == '#' {
			continue
		}
		if err := p.expect(&p, line); err != nil {
			return nil, fmt.Errorf("line %d of the trace: %w", p.line, err)
		}
	}
	switch {
	case p.step != nil:
		return nil, fmt.Errorf("line %d of the trace: it ends in the middle of a step", p.line)
	case len(p.trace.Steps) == 0:
		return nil, fmt.Errorf("line %d of the trace: it ends before anything was done", p.line)
	}
	return &p.trace, nil
}

// parser reads line after line.
type parser struct {
	trace  Trace
	step   *Step // under way
	line   int
	expect func(p *parser, line string) error
}

func (p *parser) begin(line string) error {
	v, ok := strings.CutPrefix(line, magic)
	if !ok {
		return fmt.Errorf("this is no trace: it does not begin with %q", magic)
	}
	if v != version {
		return fmt.Errorf("this is version %.20q of the format, and version %s is known here", v, version)
	}
	p.expect = (*parser).token
	return nil
}

func (p *parser) token(line string) error {
	name, ok := strings.CutPrefix(line, "token ")
	id, err := device.ParseTokenID(name)
	if !ok || err != nil {
		return errors.New("the second line says whose it is: token yk-12345678/otp2")
	}
	if !id.Programmable() {
		return fmt.Errorf("%s is not programmed with a seed", id)
	}
	p.trace.Token, p.expect = id, (*parser).face
	return nil
}

func (p *parser) face(line string) error {
	line, p.trace.Emulated = strings.CutSuffix(line, " emulated")
	p.expect = (*parser).note
	if line == "card" {
		return nil
	}
	model, _ := strings.CutPrefix(line, "reports ")
	v, n, _ := strings.Cut(model, ":")
	vendor, bad := strconv.ParseUint(v, 16, 16)
	product, worse := strconv.ParseUint(n, 16, 16)
	p.trace.Vendor, p.trace.Product = uint16(vendor), uint16(product)
	if bad != nil || worse != nil || line != fmt.Sprintf("reports %04x:%04x", vendor, product) || p.trace.reportSize() == 0 {
		return errors.New("the third line says what it went over: card, or reports and the USB identity of a known model that has them")
	}
	return nil
}

func (p *parser) note(line string) error {
	p.expect = (*parser).do
	if note, ok := strings.CutPrefix(line, "note "); ok {
		p.trace.Note = strings.TrimSpace(note)
		return nil
	}
	return p.do(line)
}

func (p *parser) do(line string) error {
	words, ok := strings.CutPrefix(line, "do ")
	if !ok {
		return errors.New("a step begins with what is asked: do describe")
	}
	o, err := parseOperation(words)
	if err != nil {
		return err
	}
	if first := len(p.trace.Steps) == 0; first != (o.Verb == Open) {
		return errors.New("the first step, and no other, opens the device")
	}
	p.step, p.expect = &Step{Operation: o}, (*parser).call
	return nil
}

func (p *parser) call(line string) error {
	if outcome, ok := strings.CutPrefix(line, "is "); ok {
		if outcome = strings.TrimSpace(outcome); outcome == "" {
			return errors.New("it does not say what the step came to")
		}
		p.step.Outcome, p.step.line = outcome, p.line
		p.trace.Steps = append(p.trace.Steps, *p.step)
		p.step, p.expect = nil, (*parser).do
		return nil
	}
	c, err := parseCall(line)
	if err != nil {
		return err
	}
	if (c.Kind == APDU) != p.trace.card() && c.Kind != Draw {
		return fmt.Errorf("there is no %s on this kind of device", c.Kind)
	}
	size := p.trace.reportSize()
	if c.Kind == Set && len(c.Sent) != size || c.Kind == Get && c.Err == "" && len(c.Got) != size {
		return fmt.Errorf("feature reports of this device have %d bytes", size)
	}
	c.line = p.line
	p.step.Calls = append(p.step.Calls, c)
	return nil
}

// parseCall reads what Call.String has written.
func parseCall(line string) (c Call, err error) {
	words := strings.Split(line, " ")
	c.Kind, words = Kind(words[0]), words[1:]
	take := func() (word string) {
		if len(words) > 0 {
			word, words = words[0], words[1:]
		}
		return word
	}
	var bad, none error
	switch c.Kind {
	case Set, APDU:
		c.Sent, bad = bytesOf(take())
	case Get, Key, Draw:
	default:
		return c, fmt.Errorf("%.20q is no call", c.Kind)
	}
	switch {
	case len(words) > 0 && words[0] == "!":
		_ = take()
		c.Err = take()
		if _, known := called(c.Err); !known {
			none = fmt.Errorf("%.20q is no name of an error", c.Err)
		}
	case c.Kind == APDU:
		var status uint64
		s := take()
		status, none = strconv.ParseUint(s, 16, 16)
		if c.Status = uint16(status); none == nil && s != fmt.Sprintf("%04x", status) {
			none = errors.New("a status has four digits")
		}
		if len(words) > 0 {
			var worse error
			c.Got, worse = bytesOf(take())
			bad = errors.Join(bad, worse)
		}
	case c.Kind == Key && len(words) == 1 && words[0] == "-":
		_ = take()
	case c.Kind != Set:
		c.Got, bad = bytesOf(take())
	}
	if c.Kind == Get && c.Err == "" {
		if c.Times = 1; len(words) > 0 {
			s := take()
			c.Times, err = strconv.Atoi(strings.TrimPrefix(s, "x"))
			if err != nil || c.Times < 2 || c.Times > maxTimes || s != "x"+strconv.Itoa(c.Times) {
				return c, fmt.Errorf("%.20q is not how often it was looked: x2", s)
			}
		}
	}
	switch {
	case bad != nil || none != nil:
		return c, errors.Join(bad, none)
	case len(words) > 0:
		return c, fmt.Errorf("%.20q is too much", words[0])
	case c.Kind == Key && len(c.Got) > maxKeys:
		return c, errors.New("a keyboard report is not so long")
	}
	return c, nil
}

// bytesOf reads lower-case hexadecimal of one byte or more.
func bytesOf(s string) ([]byte, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) == 0 || strings.ToLower(s) != s {
		return nil, fmt.Errorf("%.40q is not bytes in hexadecimal", s)
	}
	return b, nil
}
