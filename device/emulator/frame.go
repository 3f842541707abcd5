package emulator

// The OTP interface moves frames of 70 bytes, payload[64], command, CRC16, 3 zero bytes, in feature
// reports of 8 bytes: seven of the frame and a flags byte (libykpers ykcore.c, yubikit core/otp.py).
const (
	reportSize  = 8
	chunkSize   = 7
	chunks      = 10
	payloadSize = 64
	frameSize   = chunks * chunkSize

	flagWritePending    = 0x80
	flagResponsePending = 0x40
	flagTouchWait       = 0x20 // with the seconds that are left
	maskSequence        = 0x1F

	resetYkpers  = 0x8F // the dummy write of libykpers
	resetYubikit = 0xFF
)

// crcResidual is the CRC over data followed by its own inverted CRC.
const crcResidual = 0xF0B8

// crc16 is CRC-16/MCRF4XX: initial value FFFF, reflected polynomial 8408, not inverted.
func crc16(p []byte) uint16 {
	crc := uint16(0xFFFF)
	for _, b := range p {
		crc ^= uint16(b)
		for range 8 {
			odd := crc&1 != 0
			crc >>= 1
			if odd {
				crc ^= 0x8408
			}
		}
	}
	return crc
}

// assembly collects the chunks of one frame.
type assembly struct {
	buf     [frameSize]byte
	started bool
}

func isReset(flags byte) bool { return flags == resetYkpers || flags == resetYubikit }

// chunkNumber returns the sequence number of a chunk, or false if the report is none.
func chunkNumber(flags byte) (int, bool) {
	n := int(flags & maskSequence)
	return n, flags&^maskSequence == flagWritePending && n < chunks
}

// add takes chunk n and reports whether it was the last one. Chunks that are all zero may be missing,
// so the first one clears the buffer; without a first one there is no frame.
func (a *assembly) add(n int, data []byte) (complete bool) {
	if n == 0 {
		*a = assembly{started: true}
	}
	if !a.started {
		return false
	}
	copy(a.buf[n*chunkSize:(n+1)*chunkSize], data)
	return n == chunks-1
}

// payload reports whether a chunk between the first and the last one has arrived: requests have none.
func (a *assembly) payload() bool {
	for _, b := range a.buf[chunkSize : (chunks-1)*chunkSize] {
		if b != 0 {
			return true
		}
	}
	return false
}

// take returns the finished frame, if its CRC is right, and clears the buffer.
func (a *assembly) take() (command byte, payload [payloadSize]byte, ok bool) {
	copy(payload[:], a.buf[:])
	command = a.buf[payloadSize]
	crc := uint16(a.buf[payloadSize+1]) | uint16(a.buf[payloadSize+2])<<8
	*a = assembly{}
	return command, payload, crc == crc16(payload[:])
}

// response is data on its way to the host: chunks numbered from 0, ended by an empty chunk 0.
type response struct {
	data []byte // padded to whole chunks
	next int
}

// newResponse appends the CRC; damaged spoils it.
func newResponse(data []byte, damaged bool) *response {
	crc := ^crc16(data)
	if damaged {
		crc ^= 0x0101
	}
	p := append(append([]byte(nil), data...), byte(crc), byte(crc>>8))
	for len(p)%chunkSize != 0 {
		p = append(p, 0)
	}
	return &response{data: p}
}

// read fills one report; done means that it was the end mark.
func (r *response) read(p *[reportSize]byte) (done bool) {
	*p = [reportSize]byte{chunkSize: flagResponsePending}
	at := r.next * chunkSize
	if at >= len(r.data) {
		return true
	}
	copy(p[:chunkSize], r.data[at:at+chunkSize])
	p[chunkSize] |= byte(r.next) & maskSequence
	r.next++
	return false
}
