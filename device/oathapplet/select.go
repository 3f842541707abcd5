package oathapplet

import (
	"encoding/binary"
	"fmt"

	"tokendesk/device"
)

// about is what the application tells when it is selected.
type about struct {
	version   device.Version // of a YubiKey; of the application of a Nitrokey 3
	salt      []byte
	challenge []byte // to be answered with the password's key; nil: there is no password
	nitrokey  bool
	serial    device.Serial // of a Nitrokey 3; a YubiKey does not tell it here
	pin       bool          // a Nitrokey 3 with a PIN
	tries     int           // of that PIN; device.Unlimited if it does not tell
}

// needNitrokey is the application that tells its serial number (trussed-secrets-app 0.11.0, as part of which it calls itself 4.11).
var needNitrokey = device.Version{Major: 4, Minor: 11}

// parseSelect reads SELECT's answer. It fails with a *device.FirmwareError for a Nitrokey 3 that does not tell who it is.
func parseSelect(answer []byte) (about, error) {
	all, err := fields(answer)
	if err != nil {
		return about{}, err
	}
	a := about{tries: device.Unlimited}
	damaged := func(f field) (about, error) {
		return about{}, fmt.Errorf("%w: field %02x of %d bytes", device.ErrCorrupt, f.tag, len(f.value))
	}
	for _, f := range all {
		switch f.tag {
		case tagVersion:
			if len(f.value) != 3 {
				return damaged(f)
			}
			a.version = device.Version{Major: f.value[0], Minor: f.value[1], Build: f.value[2]}
		case tagName:
			if len(f.value) == 0 {
				return damaged(f)
			}
			a.salt = f.value
		case tagChallenge:
			if len(f.value) == 0 {
				return damaged(f)
			}
			a.challenge = f.value
		case tagSerial:
			if len(f.value) != 4 {
				return damaged(f)
			}
			a.nitrokey, a.serial = true, device.Serial(binary.BigEndian.Uint32(f.value))
		case tagPINTries:
			if len(f.value) > 1 {
				return damaged(f)
			}
			if a.pin = true; len(f.value) == 1 {
				a.tries = int(f.value[0])
			}
		}
	}
	switch {
	case a.version == device.Version{}:
		return about{}, fmt.Errorf("%w: it does not tell its version", device.ErrCorrupt)
	case a.nitrokey:
		a.pin = a.pin || a.salt == nil // who has a PIN tells no salt
	case a.pin || a.salt == nil:
		return about{}, &device.CureError{
			Err:  &device.FirmwareError{Feature: "the secrets application of a Nitrokey 3", Need: needNitrokey, Have: a.version},
			Cure: "update the key: nitropy nk3 update",
		}
	}
	return a, nil
}
