package pivcard

import (
	"context"
	"fmt"

	"tokendesk/device"
	"tokendesk/device/apdu"
)

// Instructions of SP 800-73-4 part 2, and those that Yubico adds (developers.yubico.com, PIV: Yubico extensions).
const (
	insVerify          = 0x20
	insChangeReference = 0x24
	insResetRetry      = 0x2C
	insGenerate        = 0x47
	insAuthenticate    = 0x87
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

// do sends a command that is no secret. The error says what could not be done.
func (c *Card) do(ctx context.Context, what string, ins, p1, p2 byte, data []byte) ([]byte, error) {
	answer, err := apdu.Send(ctx, c.card, apdu.Command{Ins: ins, P1: p1, P2: p2}, data)
	return answer, failed(what, err)
}

// doSecretly sends a command whose data is a secret of size bytes, which fill appends to what it is given.
func (c *Card) doSecretly(ctx context.Context, what string, ins, p1, p2 byte, size int, fill func(b []byte) []byte) error {
	_, err := apdu.SendSecret(ctx, c.card, apdu.Command{Ins: ins, P1: p1, P2: p2}, size, fill)
	return failed(what, err)
}

func failed(what string, err error) error {
	if err != nil {
		return fmt.Errorf("cannot %s: %w", what, err)
	}
	return nil
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
