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
