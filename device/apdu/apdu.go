// Package apdu sends command APDUs (ISO/IEC 7816-4, section 5.1) to the application that is selected on a card, and names the
// status words by which it refuses them. Class bytes are 0 and there is no Le: a device.Card collects the whole answer.
package apdu

import (
	"context"
	"encoding/binary"
	"fmt"

	"tokendesk/device"
	"tokendesk/vault/secret"
)

// Command is a command without its data.
type Command struct{ Ins, P1, P2 byte }

const (
	insSelect = 0xA4
	byName    = 0x04 // P1
)

const (
	maxShort = 0xFF // bytes of data of a command whose length has one byte
	maxSize  = 0xFFFF
)

// appendHeader encodes a command up to its data.
func (c Command) appendHeader(b []byte, size int) []byte {
	b = append(b, 0, c.Ins, c.P1, c.P2)
	if size > maxShort {
		return binary.BigEndian.AppendUint16(append(b, 0), uint16(size))
	}
	return append(b, byte(size))
}

func (c Command) headerSize(size int) int { return len(c.appendHeader(nil, size)) }

func check(size int) error {
	if size > maxSize {
		return fmt.Errorf("a command has at most %d bytes of data, not %d", maxSize, size)
	}
	return nil
}

// Select selects an application by its identifier, and returns what it tells of itself.
func Select(ctx context.Context, card device.Card, aid []byte) ([]byte, error) {
	return Send(ctx, card, Command{Ins: insSelect, P1: byName}, aid)
}

// Send sends a command with up to 65,535 bytes of data, and returns the data of the answer. It fails with a Status if the
// card refuses, and leaves no copy of the data behind.
func Send(ctx context.Context, card device.Card, c Command, data []byte) ([]byte, error) {
	size := len(data)
	if err := check(size); err != nil {
		return nil, err
	}
	command := make([]byte, 0, c.headerSize(size)+size) // grown, it would leave copies
	defer clear(command[:cap(command)])
	return transmit(ctx, card, append(c.appendHeader(command, size), data...))
}

// SendSecret sends a command whose data are a secret of size bytes, at most 65,535, that fill appends to what it is given.
func SendSecret(ctx context.Context, card device.Card, c Command, size int, fill func(b []byte) []byte) ([]byte, error) {
	if err := check(size); err != nil {
		return nil, err
	}
	n := c.headerSize(size) + size
	command, err := secret.Make(n, func(b []byte) error {
		if got := len(fill(c.appendHeader(b[:0], size))); got != n {
			return fmt.Errorf("a command of %d bytes, not %d", got, n)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	defer command.Wipe()
	return transmit(ctx, card, command.Reveal())
}

func transmit(ctx context.Context, card device.Card, command []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	answer, status, err := card.Transmit(command)
	if err == nil && status != success {
		err = Status(status)
	}
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// Identifiers of applications (yubikit, core/smartcard: AID). A Nitrokey 3 has OATH as well.
var (
	Management = []byte{0xA0, 0x00, 0x00, 0x05, 0x27, 0x47, 0x11, 0x17}
	OTP        = []byte{0xA0, 0x00, 0x00, 0x05, 0x27, 0x20, 0x01}
	OATH       = []byte{0xA0, 0x00, 0x00, 0x05, 0x27, 0x21, 0x01}
	PIV        = []byte{0xA0, 0x00, 0x00, 0x03, 0x08}
)
