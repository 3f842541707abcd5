package pcsc

import (
	"bytes"

	"tokendesk/device/apdu"
)

// The OATH application of YubiKeys gives the rest of a long answer to an instruction of its own, SEND REMAINING (YKOATH protocol).
// On a Nitrokey 3, which has an application of that name, it is what is between that and the reader that divides answers, and
// knows GET RESPONSE.
const (
	insSelect     = 0xA4
	byName        = 0x04 // P1 of SELECT
	sendRemaining = 0xA5
	tagSerial     = 0x8F // in the Nitrokey 3's answer to SELECT
)

// isSelect tells whether a command asks for another application.
func isSelect(apdu []byte) bool { return len(apdu) > 4 && apdu[1] == insSelect && apdu[2] == byName }

// hasRemaining tells whether an application that was selected, with this answer, has SEND REMAINING.
func hasRemaining(selected, answer []byte) bool {
	c, err := parse(selected)
	if err != nil || !bytes.Equal(c.data, apdu.OATH) {
		return false
	}
	for rest := answer; len(rest) >= 2 && len(rest) >= 2+int(rest[1]); rest = rest[2+int(rest[1]):] {
		if rest[0] == tagSerial {
			return false
		}
	}
	return true
}

// oathExchange asks by SEND REMAINING where others are asked by GET RESPONSE.
func oathExchange(exchange func([]byte) ([]byte, error)) func([]byte) ([]byte, error) {
	return func(apdu []byte) ([]byte, error) {
		if apdu[1] == getResponse {
			apdu = []byte{apdu[0], sendRemaining, 0, 0, 0}
		}
		return exchange(apdu)
	}
}
