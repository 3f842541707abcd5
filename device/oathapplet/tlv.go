package oathapplet

import (
	"fmt"

	"tokendesk/device"
)

// Tags (YKOATH protocol; those from 0x80 on are the Nitrokey 3's, oath.rs: Tag).
const (
	tagName      = 0x71 // in SELECT's answer: the salt
	tagListed    = 0x72
	tagKey       = 0x73
	tagChallenge = 0x74
	tagResponse  = 0x75
	tagTruncated = 0x76
	tagProperty  = 0x78
	tagVersion   = 0x79
	tagCounter   = 0x7A
	tagPIN       = 0x80
	tagPINTries  = 0x82
	tagSerial    = 0x8F
)

// field is a tag with its value. Lengths have one byte: a Nitrokey 3 uses all of it, and a YubiKey less than half.
type field struct {
	tag   byte
	value []byte
}

// fields divides an answer.
func fields(b []byte) ([]field, error) {
	var all []field
	for len(b) > 0 {
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return nil, fmt.Errorf("%w: a field ends in the middle", device.ErrCorrupt)
		}
		n := 2 + int(b[1])
		all = append(all, field{b[0], b[2:n:n]})
		b = b[n:]
	}
	return all, nil
}

// only reads an answer of one field.
func only(b []byte, tag byte) ([]byte, error) {
	all, err := fields(b)
	if err != nil {
		return nil, err
	}
	if len(all) != 1 || all[0].tag != tag {
		return nil, fmt.Errorf("%w: it is not the one field %02x", device.ErrCorrupt, tag)
	}
	return all[0].value, nil
}

// appendField adds a field with a value of up to 255 bytes.
func appendField(b []byte, tag byte, value []byte) []byte {
	return append(append(b, tag, byte(len(value))), value...)
}
