package pcsc

import (
	"errors"
	"fmt"

	"tokendesk/device"
)

// Bounds of what a card may answer to one command: the largest object of a YubiKey is 3 kB.
const (
	maxAnswer    = 65536
	maxResponses = 1024
	maxData      = 65535
	chunk        = 255 // of a short APDU
)

// Instructions and flags of ISO/IEC 7816-4.
const (
	chained     = 0x10 // in CLA: more of the command follows (section 5.1.1)
	channel     = 0x03 // in CLA: the logical channel
	getResponse = 0xC0
)

const statusOK = 0x9000

var errAPDU = errors.New("this is not a command APDU")

// command is a command APDU, taken apart. data is part of it.
type command struct {
	header [4]byte // CLA INS P1 P2
	data   []byte
	answer bool // it has an Le, whatever it is: all of the answer is collected
}

// parse reads a command of any of the seven cases of ISO/IEC 7816-4, section 5.1.
func parse(apdu []byte) (command, error) {
	if len(apdu) < 4 {
		return command{}, errAPDU
	}
	c := command{header: [4]byte(apdu[:4])}
	body := apdu[4:]
	switch {
	case len(body) == 0: // case 1
		return c, nil
	case len(body) == 1 || len(body) == 3 && body[0] == 0: // case 2, short and extended
		c.answer = true
		return c, nil
	}
	n, le := int(body[0]), 1
	rest := body[1:]
	if n == 0 && len(body) > 3 {
		n, le = int(body[1])<<8|int(body[2]), 2
		rest = body[3:]
	}
	switch {
	case n == 0:
		return command{}, errAPDU
	case len(rest) == n: // case 3
	case len(rest) == n+le: // case 4
		c.answer = true
	default:
		return command{}, errAPDU
	}
	c.data = rest[:n]
	return c, nil
}

// converse sends a command by exchange, which moves one short APDU, and collects the answer.
func converse(apdu []byte, exchange func([]byte) ([]byte, error)) (data []byte, status uint16, err error) {
	c, err := parse(apdu)
	if err != nil {
		return nil, 0, err
	}
	buf := make([]byte, 0, 4+1+chunk+1)
	defer func() { clear(buf[:cap(buf)]) }() // commands carry secrets
	for len(c.data) > chunk {
		buf = append(append(buf[:0], c.header[:]...), chunk)
		buf[0] |= chained
		buf = append(buf, c.data[:chunk]...)
		answer, status, err := one(buf, exchange)
		if err != nil || status != statusOK {
			return answer, status, err
		}
		c.data = c.data[chunk:]
	}
	buf = append(buf[:0], c.header[:]...)
	if len(c.data) > 0 {
		buf = append(append(buf, byte(len(c.data))), c.data...)
	}
	if c.answer {
		buf = append(buf, 0)
	}
	return collect(buf, c, exchange)
}

// collect sends the last APDU of a command and follows 6Cxx (send it again with this Le) and 61xx (there is more).
func collect(last []byte, c command, exchange func([]byte) ([]byte, error)) ([]byte, uint16, error) {
	data, status, err := one(last, exchange)
	if err == nil && status>>8 == 0x6C && len(data) == 0 {
		if c.answer {
			last = last[:len(last)-1]
		}
		data, status, err = one(append(last, byte(status)), exchange)
	}
	more := []byte{c.header[0] & channel, getResponse, 0, 0, 0}
	for round := 0; err == nil && status>>8 == 0x61; round++ {
		if round == maxResponses || len(data) > maxAnswer {
			return nil, 0, fmt.Errorf("%w: it has no end", device.ErrCorrupt)
		}
		more[4] = byte(status)
		var part []byte
		if part, status, err = one(more, exchange); err == nil && status>>8 == 0x6C && len(part) == 0 {
			more[4] = byte(status)
			part, status, err = one(more, exchange)
		}
		data = append(data, part...)
	}
	if err != nil {
		return nil, 0, err
	}
	return data, status, nil
}

// one moves one APDU, and divides the answer.
func one(apdu []byte, exchange func([]byte) ([]byte, error)) (data []byte, status uint16, err error) {
	answer, err := exchange(apdu)
	if err != nil {
		return nil, 0, err
	}
	n := len(answer) - 2
	if n < 0 || n > maxData+1 {
		return nil, 0, fmt.Errorf("%w: %d bytes", device.ErrCorrupt, len(answer))
	}
	return answer[:n:n], uint16(answer[n])<<8 | uint16(answer[n+1]), nil
}
