package device

import (
	"fmt"
	"strconv"
	"strings"
)

// Serial is the serial number of a YubiKey, printed on it in decimal, or of a Nitrokey, which its own programs show in
// hexadecimal.
type Serial uint32

func (s Serial) String() string { return strconv.FormatUint(uint64(s), 10) }

// ID names one physical device, by its family and its number there: "yk-12345678".
type ID string

// Family is what a device's name begins with.
type Family string

// Families. All but the first two are devices that are one token themselves.
const (
	YubiKey  Family = "yk"
	Nitrokey Family = "nk"
	Fob      Family = "fob"   // it has come with its seed, which cannot be replaced
	Mail     Family = "mail"  // a mailbox, to which codes are sent
	Phone    Family = "phone" // a telephone, to which codes are sent
)

// MaxFobSerial is how long the serial of a fob can be, in bytes.
const MaxFobSerial = 20

// YubiKeyID names the YubiKey with serial s.
func YubiKeyID(s Serial) ID { return ID("yk-" + s.String()) }

// NitrokeyID names the Nitrokey with serial s, with the eight hexadecimal digits by which Nitrokey's programs show it.
func NitrokeyID(s Serial) ID { return ID(fmt.Sprintf("nk-%08x", uint32(s))) }

// Family returns the family of a device.
func (id ID) Family() Family {
	family, _, _ := strings.Cut(string(id), "-")
	return Family(family)
}

// Serial returns the serial number of a YubiKey or a Nitrokey; false if the ID is of another family, or not as they are named.
func (id ID) Serial() (Serial, bool) {
	family, number, _ := strings.Cut(string(id), "-")
	switch Family(family) {
	case YubiKey:
		n, err := strconv.ParseUint(number, 10, 32)
		return Serial(n), err == nil && YubiKeyID(Serial(n)) == id
	case Nitrokey:
		n, err := strconv.ParseUint(number, 16, 32)
		return Serial(n), err == nil && NitrokeyID(Serial(n)) == id
	}
	return 0, false
}

// TokenID names one authenticator on one device: "yk-12345678/otp2". A device that is one token itself has its name:
// "fob-2308001".
type TokenID string

// AppToken names an application of a device: "otp2", "oath:alice".
func AppToken(id ID, app string) TokenID { return TokenID(string(id) + "/" + app) }

// SlotToken names the OTP slot (1 or 2) of a YubiKey.
func SlotToken(id ID, slot int) TokenID { return TokenID(string(id) + "/otp" + strconv.Itoa(slot)) }

// PIVToken names the PIV application of a device.
func PIVToken(id ID) TokenID { return TokenID(string(id) + "/piv") }

// MayHavePIV tells whether devices of that family can have a PIV application.
func (id ID) MayHavePIV() bool { row, _ := ApplicationOf(PIVToken(id)); return row.Family != "" }

// FobToken names the fob with a serial, in which the case of letters does not matter.
func FobToken(serial string) (TokenID, error) {
	return ParseTokenID("fob-" + strings.ToLower(serial))
}

// ParseTokenID checks the form of a token's name.
func ParseTokenID(s string) (TokenID, error) {
	id, number := TokenID(s), s[strings.IndexByte(s, '-')+1:]
	ok := false
	switch id.Device().Family() {
	case YubiKey, Nitrokey:
		_, ok = id.Device().Serial()
		row, _ := ApplicationOf(id)
		ok = ok && row.Family != ""
	case Fob:
		ok = number != "" && len(number) <= MaxFobSerial && strings.Trim(number, "0123456789abcdefghijklmnopqrstuvwxyz") == ""
	case Mail, Phone:
		n, err := strconv.ParseUint(number, 10, 32)
		ok = err == nil && strconv.FormatUint(n, 10) == number
	}
	if !ok {
		return "", fmt.Errorf("%q is not a token: tokens are named DEVICE/APPLICATION, for example yk-12345678/otp2, or as the device, for example fob-2308001", s)
	}
	return id, nil
}

// Device returns the device that carries the token.
func (t TokenID) Device() ID {
	d, _, _ := strings.Cut(string(t), "/")
	return ID(d)
}

// Slot returns the OTP slot of the token, or 0 if it is not an OTP slot.
func (t TokenID) Slot() int {
	_, app, _ := strings.Cut(string(t), "/")
	switch app {
	case "otp1":
		return 1
	case "otp2":
		return 2
	}
	return 0
}

// PIV tells whether the token is a PIV application.
func (t TokenID) PIV() bool { _, app, _ := strings.Cut(string(t), "/"); return app == "piv" }

// Central is the token's name in central services, which do not take slashes: "YK12345678-2", "FOB2308001". It is empty for
// tokens that those are not told of: nobody but them sends codes.
func (t TokenID) Central() string {
	family, number, _ := strings.Cut(string(t.Device()), "-")
	switch Family(family) {
	case YubiKey, Nitrokey:
		row, credential := ApplicationOf(t)
		if row.Central == "" {
			return "" // certificates are their issuer's
		}
		return strings.ToUpper(family+number) + row.Central + strings.ToUpper(credential)
	case Fob:
		return "FOB" + strings.ToUpper(number)
	}
	return ""
}

// ParseCentral returns the token with a name in central services, in any case of letters, as directories compare names.
func ParseCentral(name string) (TokenID, bool) {
	var id TokenID
	var err error
	lower := strings.ToLower(name)
	if number, ok := strings.CutPrefix(lower, string(Fob)); ok {
		id, err = FobToken(number)
		return id, err == nil && strings.EqualFold(id.Central(), name)
	}
	for _, a := range Applications {
		number, ok := strings.CutPrefix(lower, string(a.Family))
		number, rest, _ := strings.Cut(number, "-")
		app, fits := strings.CutPrefix("-"+rest, strings.ToLower(a.Central))
		if !ok || a.Central == "" || !fits || (app != "") != strings.HasSuffix(a.Name, ":") {
			continue
		}
		if id, err := ParseTokenID(string(a.Family) + "-" + number + "/" + a.Name + app); err == nil {
			return id, strings.EqualFold(id.Central(), name)
		}
	}
	return "", false
}
