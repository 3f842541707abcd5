package smartcard

import "encoding/binary"

// Instructions that belong to no application (ISO/IEC 7816-4, tables 49 and 87).
const (
	insSelect      = 0xA4
	insGetResponse = 0xC0
)

// classChain says that more APDUs of the same command follow.
const classChain = 0x10

// status is a status word.
type status uint16

// Status words (ISO/IEC 7816-4, tables 5 and 6; SP 800-73-4 part 2).
const (
	swOK            status = 0x9000
	swMore          status = 0x6100 // and how much, 00: 256 or more
	swTries         status = 0x63C0 // wrong, and how many tries are left
	swWrongLength   status = 0x6700
	swSecurity      status = 0x6982
	swBlocked       status = 0x6983
	swConditions    status = 0x6985
	swWrongData     status = 0x6A80
	swNotFound      status = 0x6A82
	swFull          status = 0x6A84
	swP1P2          status = 0x6A86
	swNoReference   status = 0x6A88
	swWrongLe       status = 0x6C00 // and what it should be
	swInstruction   status = 0x6D00
	swClass         status = 0x6E00
	swMemoryFailure status = 0x6581
)

func (s status) append(data []byte) []byte { return binary.BigEndian.AppendUint16(data, uint16(s)) }

// Sizes of a response's data: of short APDUs, and of extended ones, which is what a YubiKey fits into one CCID message
// (dwMaxCCIDMessageLength 3072 less header and status word).
const (
	roomShort    = 0x100
	roomExtended = 3060
)

// apdu is a command.
type apdu struct {
	class, ins, p1, p2 byte
	data               []byte
	le                 int // 0: none given
	extended           bool
}

// parseAPDU divides a command into its fields (ISO/IEC 7816-3, section 12.1.3). The data is shared with b.
func parseAPDU(b []byte) (a apdu, ok bool) {
	if len(b) < 4 {
		return a, false
	}
	a = apdu{class: b[0], ins: b[1], p1: b[2], p2: b[3]}
	body := b[4:]
	switch {
	case len(body) == 0: // case 1
		return a, true
	case len(body) == 1: // case 2
		a.le = length(uint16(body[0]), 0x100)
		return a, true
	case body[0] != 0:
		return a.short(int(body[0]), body[1:])
	case len(body) < 3:
		return a, false
	}
	a.extended = true
	n := binary.BigEndian.Uint16(body[1:])
	if len(body) == 3 { // case 2 extended
		a.le = length(n, 0x10000)
		return a, true
	}
	return a.long(int(n), body[3:])
}

// short reads data of n bytes, and perhaps Le.
func (a apdu) short(n int, rest []byte) (apdu, bool) {
	switch len(rest) - n {
	case 0:
	case 1:
		a.le = length(uint16(rest[n]), 0x100)
	default:
		return a, false
	}
	a.data = rest[:n]
	return a, true
}

func (a apdu) long(n int, rest []byte) (apdu, bool) {
	switch len(rest) - n {
	case 0:
	case 2:
		a.le = length(binary.BigEndian.Uint16(rest[n:]), 0x10000)
	default:
		return a, false
	}
	a.data = rest[:n]
	return a, n > 0
}

// length reads Le, in which zero stands for the most.
func length(n uint16, most int) int {
	if n == 0 {
		return most
	}
	return int(n)
}

// room is how much response data the host takes. Over T=1 a host without Le gets an answer as well, and clients count on it.
func (a apdu) room() int {
	most := roomShort
	if a.extended {
		most = roomExtended
	}
	if a.le == 0 {
		return most
	}
	return min(a.le, most)
}

// wrongLe tells whether a command that only asks has asked for less than the n bytes that there are.
func (a apdu) wrongLe(n int) (status, bool) {
	if len(a.data) > 0 || a.extended || a.le == 0 || a.le >= n || n > 0xFF {
		return 0, false
	}
	return swWrongLe + status(n), true
}

// maxCommand bounds the data of a chained command: the largest object of a YubiKey 4 or 5 (libykpiv, CB_OBJ_MAX), and what
// names it.
const maxCommand = 3072 + 64

// chain collects the data of a command that arrives in several APDUs (ISO/IEC 7816-4, section 5.3.3).
type chain struct {
	head apdu // of the first, if open
	data []byte
	open bool
}

// add takes an APDU. If the command is not whole yet, sw is the answer to it. A command that does not belong to the chain
// ends it.
func (c *chain) add(a apdu) (whole bool, sw status) {
	if c.open && (a.ins != c.head.ins || a.p1 != c.head.p1 || a.p2 != c.head.p2) {
		*c = chain{}
	}
	if len(c.data)+len(a.data) > maxCommand {
		*c = chain{}
		return false, swWrongLength
	}
	c.head, c.data = a, append(c.data, a.data...)
	c.open = a.class&classChain != 0
	return !c.open, swOK
}

func (c *chain) take() []byte {
	data := c.data
	*c = chain{}
	return data
}
