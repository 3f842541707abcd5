package device

import (
	"fmt"
	"strings"
)

// Application is a row of the table of what devices carry: how it is named here and centrally, how it is reached, and what can
// be asked of it. Everything outside this package and its drivers goes by these rows.
type Application struct {
	Family Family
	// Name is that in the names of tokens: "otp2". One that ends with a colon is followed by the name of a credential.
	Name    string
	Label   string // for messages: "slot 2"
	Noun    string // what such a thing is: "slot", "credential"
	Central string // what follows the name of the device in central services; empty: they are told nothing
	Type    string // code of the type of token, the same in all rows that make no difference to people
	HOTP    bool   // it is programmed with HOTP seeds; otherwise with PIV keys
	Faces   []Face // through which it is reached, the best one first
	// Access says what protects it from being programmed.
	Access Access
	// CounterStep and MaxCounter say which start counters it takes: multiples of the step.
	CounterStep, MaxCounter uint64
	Identifier              bool // it can type its identifier before each code
	Confirms                bool // it waits for a touch before it lets something be erased or replaced
}

// Type is what a type of token is called where the administrator says nothing.
type Type struct{ Name, Description string }

// Types are those of Applications that are programmed with seeds, by their codes.
var Types = map[string]Type{
	"yubikey-hotp":  {"YubiKey (HOTP)", "A YubiKey that types a one-time password when it is touched"},
	"yubikey-oath":  {"YubiKey (OATH)", "A YubiKey whose OATH applet calculates one-time passwords"},
	"nitrokey-hotp": {"Nitrokey (HOTP)", "A Nitrokey that calculates one-time passwords"},
}

// Face is a way to reach a device.
type Face uint8

// Faces.
const (
	Reports Face = 1 + iota // HID feature reports: a Report of a Bus
	Cards                   // APDUs: a Card of a CardBus
)

// Access is what protects an application from being programmed.
type Access uint8

// Kinds of protection.
const (
	// OwnCode is an access code that each token has for itself, drawn by the desk.
	OwnCode Access = 1 + iota
	// SharedPassword is a password or PIN that applications of the device share. It is whoever's it was before: the desk learns
	// it from an officer, and never changes it.
	SharedPassword
)

const oathCounters = 1<<32 - 1 // YKOATH: the initial moving factor is a u32

// Applications are what devices can carry. A row that ends with a colon stands for any number of tokens.
var Applications = []Application{
	{
		Family: YubiKey, Name: "otp1", Label: "slot 1", Noun: "slot", Central: "-1", Type: "yubikey-hotp", HOTP: true, Faces: []Face{Reports, Cards},
		Access: OwnCode, CounterStep: StartCounterStep, MaxCounter: MaxStartCounter, Identifier: true,
	},
	{
		Family: YubiKey, Name: "otp2", Label: "slot 2", Noun: "slot", Central: "-2", Type: "yubikey-hotp", HOTP: true, Faces: []Face{Reports, Cards},
		Access: OwnCode, CounterStep: StartCounterStep, MaxCounter: MaxStartCounter, Identifier: true,
	},
	{
		Family: YubiKey, Name: "oath:", Label: "OATH credential", Noun: "credential", Central: "-OATH-", Type: "yubikey-oath", HOTP: true, Faces: []Face{Cards},
		Access: SharedPassword, CounterStep: 1, MaxCounter: oathCounters,
	},
	{Family: YubiKey, Name: "piv", Label: "smart card", Type: "yubikey-piv", Faces: []Face{Cards}},
	nitrokeySlot("1"), nitrokeySlot("2"), nitrokeySlot("3"),
	{
		Family: Nitrokey, Name: "oath:", Label: "OATH credential", Noun: "credential", Central: "-OATH-", Type: "nitrokey-hotp", HOTP: true, Faces: []Face{Cards},
		Access: SharedPassword, CounterStep: 1, MaxCounter: oathCounters - 1, Confirms: true, // at the last counter it gives no code
	},
}

// nitrokeySlot is an HOTP slot of a Nitrokey Pro or Storage.
func nitrokeySlot(n string) Application {
	return Application{
		Family: Nitrokey, Name: "hotp" + n, Label: "HOTP slot " + n, Noun: "slot", Central: "-" + n, Type: "nitrokey-hotp", HOTP: true, Faces: []Face{Reports},
		Access: SharedPassword, CounterStep: 1, MaxCounter: 1<<63 - 1,
	}
}

// MaxCredentialName is how long the name of a credential can be, in bytes.
const MaxCredentialName = 32

// credentialLetters are what the name of a credential is made of; the first and the last one are no punctuation.
const credentialLetters, credentialMarks = "abcdefghijklmnopqrstuvwxyz0123456789", "._-"

func isCredentialName(s string) bool {
	if s == "" || len(s) > MaxCredentialName || strings.Trim(s, credentialLetters+credentialMarks) != "" {
		return false
	}
	return strings.IndexByte(credentialLetters, s[0]) >= 0 && strings.IndexByte(credentialLetters, s[len(s)-1]) >= 0
}

// named tells whether a row is that of an application, and which credential that is.
func (a Application) named(app string) (credential string, ok bool) {
	if !strings.HasSuffix(a.Name, ":") {
		return "", app == a.Name
	}
	credential, ok = strings.CutPrefix(app, a.Name)
	return credential, ok && isCredentialName(credential)
}

// ApplicationOf returns the row of a token, and the name of the credential that it is, if it is one. The row is zero if the
// token is a whole device, or has no valid name.
func ApplicationOf(t TokenID) (row Application, credential string) {
	_, app, _ := strings.Cut(string(t), "/")
	for _, a := range Applications {
		if credential, ok := a.named(app); ok && a.Family == t.Device().Family() {
			return a, credential
		}
	}
	return Application{}, ""
}

// Choices are the applications of a family of devices that are programmed with seeds, in words: "otp1, otp2 or oath:NAME". They
// are empty if it has none.
func (f Family) Choices() string {
	var names []string
	for _, a := range Applications {
		if a.Family == f && a.HOTP && strings.HasSuffix(a.Name, ":") {
			names = append(names, a.Name+"NAME")
		} else if a.Family == f && a.HOTP {
			names = append(names, a.Name)
		}
	}
	if n := len(names); n > 1 {
		return strings.Join(names[:n-1], ", ") + " or " + names[n-1]
	}
	return strings.Join(names, "")
}

// Programmable tells whether the desk can give a token another seed.
func (t TokenID) Programmable() bool { a, _ := ApplicationOf(t); return a.HOTP }

// Place says in words where on its device a token is: "slot 2", "OATH credential alice".
func (t TokenID) Place() string {
	a, credential := ApplicationOf(t)
	if credential != "" {
		return a.Label + " " + credential
	}
	return a.Label
}

// Noun is what a token is on its device, in words: "slot", "credential".
func (t TokenID) Noun() string { a, _ := ApplicationOf(t); return a.Noun }

// Keeper names what has the secret that protects a token from being programmed: the token itself, or what shares its password
// with others: "nk-00005d19/hotp", "yk-12345678/oath".
func (t TokenID) Keeper() TokenID {
	a, _ := ApplicationOf(t)
	if a.Access != SharedPassword {
		return t
	}
	return AppToken(t.Device(), a.keeper())
}

// IsKeeper tells whether a name is one that Keeper gives to what has a shared password.
func (t TokenID) IsKeeper() bool {
	_, app, _ := strings.Cut(string(t), "/")
	for _, a := range Applications {
		if _, ok := t.Device().Serial(); ok && a.Access == SharedPassword && a.Family == t.Device().Family() && app == a.keeper() {
			return true
		}
	}
	return false
}

// keeper is what the applications that share a password are called together: "hotp", "oath".
func (a Application) keeper() string { return strings.TrimRight(a.Name, ":123") }

// Check refuses a configuration that the application does not take.
func (a Application) Check(c HOTPConfig) error {
	switch {
	case !a.HOTP:
		return fmt.Errorf("%s takes no HOTP seed", a.Label)
	case c.StartCounter > a.MaxCounter || c.StartCounter%a.CounterStep != 0:
		if a.CounterStep == 1 {
			return fmt.Errorf("a start counter is at most %d, not %d", a.MaxCounter, c.StartCounter)
		}
		return fmt.Errorf("a start counter is a multiple of %d up to %d, not %d", a.CounterStep, a.MaxCounter, c.StartCounter)
	case c.TokenIdentifier && !a.Identifier:
		return fmt.Errorf("%s types no token identifier", a.Label)
	}
	return c.Validate()
}
