package pivcard

import (
	"context"
	"errors"
	"fmt"

	"tokendesk/device"
	"tokendesk/vault/secret"
)

// Instructions of SP 800-73-4 part 2, and those that Yubico adds (developers.yubico.com, PIV: Yubico extensions).
const (
	insVerify          = 0x20
	insChangeReference = 0x24
	insResetRetry      = 0x2C
	insGenerate        = 0x47
	insAuthenticate    = 0x87
	insSelect          = 0xA4
	insGetData         = 0xCB
	insPutData         = 0xDB
	insMetadata        = 0xF7 // from firmware 5.3 on
	insAttest          = 0xF9 // from firmware 4.3 on
	insReset           = 0xFB
	insVersion         = 0xFD
	insSetManagement   = 0xFF
)

// Key references.
const (
	refPIN         = 0x80
	refPUK         = 0x81
	refManagement  = 0x9B
	refAttestation = 0xF9
)

// status is a status word other than success.
type status uint16

const (
	statusOK         = 0x9000
	statusDenied     = 0x6982 // security status not satisfied
	statusBlocked    = 0x6983
	statusCondition  = 0x6985
	statusWrongData  = 0x6A80
	statusNotFound   = 0x6A82
	statusFull       = 0x6A84
	statusNoKey      = 0x6A88
	statusNoCommand  = 0x6D00
	statusTooLong    = 0x6700
	statusWrongP1P2  = 0x6A86
	statusRetries    = 0x63C0 // and their number
	statusOldRetries = 0x6300 // likewise, of old firmware (go-piv/piv-go#60)
)

var statusText = map[status]string{
	statusDenied:    "not allowed without PIN, management key or touch",
	statusBlocked:   "blocked",
	statusCondition: "not in this state",
	statusWrongData: "wrong data, or not supported",
	statusNotFound:  "nothing there",
	statusFull:      "no room",
	statusNoKey:     "no key there",
	statusNoCommand: "it does not know the command",
	statusTooLong:   "wrong length",
	statusWrongP1P2: "wrong parameters, or not supported",
}

func (s status) Error() string {
	text := statusText[s]
	if text == "" {
		text = "for a reason of its own"
	}
	return fmt.Sprintf("the card refuses: %s (status %04x)", text, uint16(s))
}

func isStatus(err error, codes ...status) bool {
	s, ok := errors.AsType[status](err)
	for _, code := range codes {
		if ok && s == code {
			return true
		}
	}
	return false
}

// encode makes a command APDU without Le; the answer is collected all the same.
func encode(apdu []byte, ins, p1, p2 byte, size int) []byte {
	apdu = append(apdu, 0, ins, p1, p2)
	if size > 0xFF {
		return append(apdu, 0, byte(size>>8), byte(size))
	}
	return append(apdu, byte(size))
}

// do sends a command that is no secret. The error says what could not be done.
func (c *Card) do(ctx context.Context, what string, ins, p1, p2 byte, data []byte) ([]byte, error) {
	return c.send(ctx, what, append(encode(nil, ins, p1, p2, len(data)), data...))
}

// doSecretly sends a command whose data, of up to 255 bytes, is a secret made by fill.
func (c *Card) doSecretly(ctx context.Context, what string, ins, p1, p2 byte, size int, fill func([]byte)) error {
	const header = 5
	apdu, err := secret.Make(header+size, func(b []byte) error {
		encode(b[:0], ins, p1, p2, size)
		fill(b[header:])
		return nil
	})
	if err != nil {
		return err
	}
	defer apdu.Wipe()
	_, err = c.send(ctx, what, apdu.Reveal())
	return err
}

func (c *Card) send(ctx context.Context, what string, apdu []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	answer, code, err := c.card.Transmit(apdu)
	if err == nil && code != statusOK {
		err = status(code)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot %s: %w", what, err)
	}
	return answer, nil
}

// needs fails if the firmware is older than a feature.
func (c *Card) needs(feature string, major, minor, build uint8) error {
	need := device.Version{Major: major, Minor: minor, Build: build}
	if c.info.Firmware.Less(need) {
		return &device.FirmwareError{Feature: feature, Need: need, Have: c.info.Firmware}
	}
	return nil
}

// hasMetadata tells whether the card has GET METADATA.
func (c *Card) hasMetadata() bool { return c.needs("", 5, 3, 0) == nil }
