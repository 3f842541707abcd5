package trace

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"tokendesk/device"
)

// Verb is what can be asked of a driver.
type Verb string

// Verbs. Open makes a session and finds the token in it, and comes first; the others are those of device.HOTPToken.
const (
	Open     Verb = "open"
	Describe Verb = "describe"
	Unlock   Verb = "unlock"
	Program  Verb = "program"
	Code     Verb = "code"
	Delete   Verb = "delete"
)

// Operation is one thing asked of a driver. Seeds and passwords are named as in the tables Seeds and Passwords.
type Operation struct {
	Verb       Verb
	Seed       string // from here: Program
	Digits     int
	Counter    uint64
	Identifier bool
	Enter      bool
	New        string
	Current    string        // Program, Delete and Unlock; empty: none
	Within     time.Duration // Code: how long it waits; 0 is codeTime
}

// codeTime is how long a code is waited for.
const codeTime = 30 * time.Second

func (o Operation) String() string {
	words := []string{string(o.Verb)}
	add := func(key, value string) {
		if value != "" {
			words = append(words, key+"="+value)
		}
	}
	if o.Verb == Program {
		add("seed", o.Seed)
		add("digits", strconv.Itoa(o.Digits))
		add("counter", strconv.FormatUint(o.Counter, 10))
		if o.Identifier {
			words = append(words, "identifier")
		}
		if o.Enter {
			words = append(words, "enter")
		}
		add("new", o.New)
	}
	add("current", o.Current)
	if o.Within != 0 {
		add("within", o.Within.String())
	}
	return strings.Join(words, " ")
}

// takes says which words can follow each verb.
var takes = map[Verb]string{
	Open: "", Describe: "", Unlock: "current", Delete: "current", Code: "within",
	Program: "seed digits counter identifier enter new current",
}

// parseOperation reads what String has written.
func parseOperation(s string) (o Operation, err error) {
	words := strings.Fields(s)
	if len(words) == 0 {
		return o, fmt.Errorf("nothing is asked")
	}
	o.Verb = Verb(words[0])
	possible, ok := takes[o.Verb]
	if !ok {
		return o, fmt.Errorf("%.20q is nothing that can be asked", words[0])
	}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		if !strings.Contains(" "+possible+" ", " "+key+" ") {
			return o, fmt.Errorf("%s takes no %.20q", o.Verb, key)
		}
		if err := o.set(key, value); err != nil {
			return o, err
		}
	}
	return o, o.check()
}

func (o *Operation) set(key, value string) (err error) {
	switch key {
	case "seed":
		o.Seed = value
	case "digits":
		o.Digits, err = strconv.Atoi(value)
	case "counter":
		o.Counter, err = strconv.ParseUint(value, 10, 64)
	case "identifier":
		o.Identifier = true
	case "enter":
		o.Enter = true
	case "new":
		o.New = value
	case "current":
		o.Current = value
	case "within":
		o.Within, err = time.ParseDuration(value)
	}
	if err != nil {
		return fmt.Errorf("%.20q is no value of %s", value, key)
	}
	return nil
}

// check refuses what is not published.
func (o Operation) check() error {
	if _, ok := takes[o.Verb]; !ok {
		return fmt.Errorf("%.20q is nothing that can be asked", o.Verb)
	}
	if _, ok := published(Seeds, o.Seed); !ok && o.Verb == Program {
		return fmt.Errorf("%.40q is no published seed: those are %s", o.Seed, names(Seeds))
	}
	for _, name := range []string{o.New, o.Current} {
		if _, ok := published(Passwords, name); !ok && name != "" {
			return fmt.Errorf("%.40q is no published password: those are %s", name, names(Passwords))
		}
	}
	if o.Within < 0 || o.Within > time.Hour {
		return fmt.Errorf("%s is no time to wait for a code", o.Within)
	}
	return nil
}

func names(table []Published) string {
	var all []string
	for _, p := range table {
		all = append(all, p.Name)
	}
	return strings.Join(all, ", ")
}

// Result is what came of an Operation.
type Result struct {
	State device.State // Describe
	Code  string       // Code
}

// on asks a token, and says what came of it, also in the words of a trace.
func (o Operation) on(ctx context.Context, t device.HOTPToken) (r Result, outcome string, err error) {
	current := secretOf(Passwords, o.Current)
	defer current.Wipe()
	outcome = "ok"
	switch o.Verb {
	case Describe:
		r.State, err = t.Describe(ctx)
		outcome = fmt.Sprintf("state serial=%s firmware=%s", r.State.Serial, r.State.Firmware)
		if r.State.Configured {
			outcome += " configured"
		}
	case Unlock:
		err = t.Unlock(ctx, current)
	case Program:
		c := device.HOTPConfig{
			Seed: secretOf(Seeds, o.Seed), Digits: o.Digits, StartCounter: o.Counter, TokenIdentifier: o.Identifier, Enter: o.Enter,
			NewAccessCode: secretOf(Passwords, o.New), CurrentAccessCode: current,
		}
		err = t.Program(ctx, c)
		c.Seed.Wipe()
		c.NewAccessCode.Wipe()
	case Code:
		within := o.Within
		if within == 0 {
			within = codeTime
		}
		limited, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		r.Code, err = t.Code(limited)
		outcome = "code " + r.Code
	case Delete:
		err = t.Delete(ctx, current)
	default:
		err = fmt.Errorf("cannot do %s with a token", o.Verb)
	}
	if err != nil {
		return Result{}, "fails " + failure(err), err
	}
	return r, outcome, nil
}

// ahead is how far a token may have counted since it was programmed with a published seed.
const ahead = 50

// gives tells whether a code is one that follows this Program.
func (o Operation) gives(code string) bool {
	p, _ := published(Seeds, o.Seed)
	for n := range uint64(ahead) {
		if hotp([]byte(p.value), o.Counter+n, o.Digits) == code {
			return true
		}
	}
	return false
}

// hotp is RFC 4226, section 5.3.
func hotp(seed []byte, counter uint64, digits int) string {
	mac := hmac.New(sha1.New, seed)
	mac.Write(binary.BigEndian.AppendUint64(nil, counter))
	sum := mac.Sum(nil)
	at := sum[len(sum)-1] & 0xF
	n := binary.BigEndian.Uint32(sum[at:]) & 0x7FFFFFFF
	text := fmt.Sprintf("%010d", n)
	return text[len(text)-min(max(digits, 0), len(text)):]
}
