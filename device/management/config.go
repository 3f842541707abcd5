package management

import (
	"encoding/binary"
	"fmt"
	"regexp"

	"tokendesk/device"
)

// Tags of a configuration (yubikit, management.py: TAG).
const (
	tagSupported  = 0x01 // applications over USB
	tagSerial     = 0x02
	tagEnabled    = 0x03
	tagFormFactor = 0x04
	tagVersion    = 0x05
)

const capabilityPIV = 0x10

// formFactors are the names of what a key can look like (yubikit, management.py: FORM_FACTOR).
var formFactors = map[byte]string{
	1: "USB-A Keychain", 2: "USB-A Nano", 3: "USB-C Keychain", 4: "USB-C Nano", 5: "USB-C Lightning", 6: "USB-A Bio", 7: "USB-C Bio",
}

const fips = 0x80 // beside the form factor

// read takes over what a configuration says: a length, and as many bytes of tags, lengths and values, each of one byte but
// the values. What it does not say stays as it is.
func (info *Info) read(config []byte) error {
	if len(config) == 0 || int(config[0]) != len(config)-1 {
		return fmt.Errorf("%w: the configuration of the key has another length than it says", device.ErrCorrupt)
	}
	supported, enabled, limited := 0, 0, false
	for rest := config[1:]; len(rest) > 0; {
		if len(rest) < 2 || len(rest) < 2+int(rest[1]) {
			return fmt.Errorf("%w: the configuration of the key ends in the middle", device.ErrCorrupt)
		}
		tag, value := rest[0], rest[2:2+int(rest[1])]
		rest = rest[2+len(value):]
		switch tag {
		case tagSupported:
			supported = number(value)
		case tagEnabled:
			enabled, limited = number(value), true
		case tagSerial:
			if serial, ok := parseSerial(value); ok {
				info.Serial = serial
			}
		case tagFormFactor:
			if len(value) > 0 {
				info.FormFactor = formFactors[value[0]&0x0F]
				if value[0]&fips != 0 && info.FormFactor != "" {
					info.FormFactor += " FIPS"
				}
			}
		case tagVersion:
			if len(value) == 3 {
				info.Firmware = device.Version{Major: value[0], Minor: value[1], Build: value[2]}
			}
		}
	}
	info.PIV = supported&capabilityPIV != 0 && (!limited || enabled&capabilityPIV != 0)
	return nil
}

// number reads up to 4 bytes, the first of which counts most.
func number(b []byte) (n int) {
	for _, c := range b[:min(len(b), 4)] {
		n = n<<8 | int(c)
	}
	return n
}

func parseSerial(b []byte) (device.Serial, bool) {
	if len(b) != 4 {
		return 0, false
	}
	return device.Serial(binary.BigEndian.Uint32(b)), true
}

var versionText = regexp.MustCompile(`[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}`)

// parseVersion reads what the management application says when it is selected: "Virtual mgr - FW version 5.4.3".
func parseVersion(text string) (device.Version, bool) {
	v, err := device.ParseVersion(versionText.FindString(text))
	return v, err == nil
}
