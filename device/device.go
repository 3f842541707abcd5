// Package device says what a hardware token is and how the desk talks to one: names, the model table,
// the transports, and the seam that provisioning programs against.
//
// It is a leaf: facts and contracts only. Behaviour lives below it, in one package per protocol
// (otpslot, keyboard) and one per way of reaching a device (usbhid, bussocket). A Bus lists and opens
// devices, a Report moves bytes, a HOTPToken is one authenticator on one device. Nothing in here, and
// nothing that returns from here, ever holds a seed outside the secret.Secret type.
package device

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Serial is the decimal serial number printed on a YubiKey.
type Serial uint32

func (s Serial) String() string { return strconv.FormatUint(uint64(s), 10) }

// ID names one physical device: "yk-12345678".
type ID string

// YubiKeyID names the YubiKey with serial s.
func YubiKeyID(s Serial) ID { return ID("yk-" + s.String()) }

// Serial returns the number inside a YubiKey's ID; false if the ID is of another family.
func (id ID) Serial() (Serial, bool) {
	n, ok := strings.CutPrefix(string(id), "yk-")
	if !ok {
		return 0, false
	}
	v, err := strconv.ParseUint(n, 10, 32)
	return Serial(v), err == nil
}

// TokenID names one authenticator on one device: "yk-12345678/otp2".
type TokenID string

// SlotToken names the OTP slot (1 or 2) of a YubiKey.
func SlotToken(id ID, slot int) TokenID { return TokenID(string(id) + "/otp" + strconv.Itoa(slot)) }

// ParseTokenID checks the form of a token's name.
func ParseTokenID(s string) (TokenID, error) {
	id := TokenID(s)
	if n, ok := id.Device().Serial(); ok && id.Slot() != 0 && id == SlotToken(YubiKeyID(n), id.Slot()) {
		return id, nil
	}
	return "", fmt.Errorf("%q is not a token: tokens are named DEVICE/APPLICATION, for example yk-12345678/otp2", s)
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

// Central is the token's name in central services, which do not take slashes: "YK12345678-2".
func (t TokenID) Central() string {
	s, _ := t.Device().Serial()
	return fmt.Sprintf("YK%s-%d", s, t.Slot())
}

// Version is a firmware version.
type Version struct {
	Major uint8 `json:"major"`
	Minor uint8 `json:"minor"`
	Build uint8 `json:"build"`
}

func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Build) }

// Less reports whether v is older than w.
func (v Version) Less(w Version) bool {
	return cmp.Or(cmp.Compare(v.Major, w.Major), cmp.Compare(v.Minor, w.Minor), cmp.Compare(v.Build, w.Build)) < 0
}

// ParseVersion reads "5.4.3".
func ParseVersion(s string) (Version, error) {
	var v Version
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return v, fmt.Errorf("%q is not a firmware version such as 5.4.3", s)
	}
	for i, p := range []*uint8{&v.Major, &v.Minor, &v.Build} {
		n, err := strconv.ParseUint(parts[i], 10, 8)
		if err != nil {
			return Version{}, fmt.Errorf("%q is not a firmware version such as 5.4.3", s)
		}
		*p = uint8(n)
	}
	return v, nil
}
