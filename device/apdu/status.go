package apdu

import (
	"errors"
	"fmt"
	"slices"
)

// Status is a status word other than success (ISO/IEC 7816-4, section 5.1.3). It is the error of a command that was refused.
type Status uint16

const success = 0x9000

// Status words. Applications give some of them meanings of their own.
const (
	Warning     Status = 0x6300 // of PINs: wrong
	Retries     Status = 0x63C0 // and how many are left
	CannotStore Status = 0x6581
	WrongLength Status = 0x6700
	Denied      Status = 0x6982
	Blocked     Status = 0x6983
	NotUsable   Status = 0x6984
	Conditions  Status = 0x6985
	WrongData   Status = 0x6A80
	Unsupported Status = 0x6A81
	NotFound    Status = 0x6A82
	Full        Status = 0x6A84
	WrongP1P2   Status = 0x6A86
	NoReference Status = 0x6A88
	OtherP1P2   Status = 0x6B00
	NoCommand   Status = 0x6D00
	NoClass     Status = 0x6E00
	GaveUp      Status = 0x6F00
)

var words = map[Status]string{
	Warning:     "wrong PIN or password",
	0x6500:      "it cannot store, or a counter is at its end",
	CannotStore: "it cannot store",
	WrongLength: "wrong length",
	Denied:      "not allowed without PIN, password, key or touch",
	Blocked:     "blocked",
	NotUsable:   "nothing of that name",
	Conditions:  "not in this state",
	WrongData:   "wrong data, or not supported",
	Unsupported: "not supported",
	NotFound:    "nothing there",
	Full:        "no room",
	WrongP1P2:   "wrong parameters, or not supported",
	NoReference: "no key there",
	OtherP1P2:   "wrong parameters, or not supported",
	NoCommand:   "it does not know the command",
	NoClass:     "it does not know such commands",
	GaveUp:      "it gave up, perhaps for lack of room",
}

func (s Status) Error() string {
	text := words[s]
	if text == "" {
		text = "for a reason of its own"
	}
	return fmt.Sprintf("the card refuses: %s (status %04x)", text, uint16(s))
}

// Is tells whether err is, or wraps, one of these refusals.
func Is(err error, refusals ...Status) bool {
	s, ok := errors.AsType[Status](err)
	return ok && slices.Contains(refusals, s)
}

// IsUnknown tells whether a card that refuses so to select an application has none of that identifier (yubikit, core/smartcard:
// select).
func IsUnknown(err error) bool {
	return Is(err, NotFound, Unsupported, NoCommand, NoClass, WrongP1P2, OtherP1P2)
}
