package vhci

import (
	"encoding/binary"
	"fmt"
	"syscall"
)

// Commands of USB/IP once a device is attached (usbip_protocol.rst).
const (
	commandSubmit = 1
	commandUnlink = 2
	returnSubmit  = 3
	returnUnlink  = 4
)

const (
	headerSize   = 48
	maxEndpoint  = 15
	maxOut       = 0xFFFF     // bytes from the host: no control transfer has more, and no device here takes more by others
	notInPackets = 0xFFFFFFFF // number_of_packets of a transfer that is not isochronous; Linux sends 0
)

// request is a command from the host.
type request struct {
	command  uint32
	sequence uint32

	// Of a submission:
	in       bool // data goes to the host
	endpoint uint8
	length   uint32 // bytes that the host sends, or has room for
	setup    Setup

	victim uint32 // the submission that is to be unlinked
}

// parseRequest reads a header. After an error it is unknown where the next one begins.
func parseRequest(h [headerSize]byte) (r request, err error) {
	word := func(at int) uint32 { return binary.BigEndian.Uint32(h[at:]) }
	r = request{command: word(0), sequence: word(4)}
	switch r.command {
	case commandUnlink:
		r.victim = word(20)
		return r, nil
	case commandSubmit:
	default:
		return r, fmt.Errorf("it sent command %d, which is none of USB/IP", r.command)
	}
	direction, endpoint, packets := word(12), word(16), word(32)
	r.in, r.endpoint, r.length, r.setup = direction == 1, uint8(endpoint), word(24), parseSetup([setupSize]byte(h[40:]))
	switch {
	case direction > 1:
		return r, fmt.Errorf("it sent a transfer of direction %d", direction)
	case endpoint > maxEndpoint:
		return r, fmt.Errorf("it sent a transfer to endpoint %d", endpoint)
	case packets != 0 && packets != notInPackets:
		return r, fmt.Errorf("it sent an isochronous transfer to endpoint %d", endpoint)
	case !r.in && r.length > maxOut:
		return r, fmt.Errorf("it sent a transfer of %d bytes", r.length)
	}
	return r, nil
}

// How a transfer ended.
const (
	statusDone      = 0
	statusStalled   = -int32(syscall.EPIPE)
	statusGone      = -int32(syscall.ENODEV)
	statusOverflow  = -int32(syscall.EOVERFLOW)
	statusNoRoom    = -int32(syscall.ENOMEM)
	statusWithdrawn = -int32(syscall.ECONNRESET)
)

// answer renders a return, with its data. actual is the number of bytes that moved.
func answer(command, sequence uint32, status int32, actual int, data []byte) []byte {
	b := make([]byte, headerSize, headerSize+len(data))
	binary.BigEndian.PutUint32(b[0:], command)
	binary.BigEndian.PutUint32(b[4:], sequence)
	binary.BigEndian.PutUint32(b[20:], uint32(status))
	binary.BigEndian.PutUint32(b[24:], uint32(actual))
	return append(b, data...)
}
