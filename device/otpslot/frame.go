package otpslot

import (
	"encoding/binary"

	"tokendesk/device"
)

// A command travels as a frame of 70 bytes in ten chunks of 7 (yubikey-manager, core/otp.py).
const (
	payloadSize = 64
	frameSize   = payloadSize + 1 + 2 + 3 // payload, slot command, CRC, padding
	chunkSize   = 7
	chunks      = frameSize / chunkSize
)

// Flags in the last byte of a feature report.
const (
	flagWrite    = 0x80 // host to device: a chunk; device to host: not taken yet
	flagResponse = 0x40 // a response chunk, its number in the low bits
	flagTouch    = 0x20 // waiting for a touch
	sequenceMask = 0x1F
	resetReport  = 0x8F
	neoStarting  = 0x9F // a YubiKey NEO that is not ready yet
)

// frame returns the feature reports that carry a command. Chunks of zeroes are left out, except the
// first, at which the device clears its buffer, and the last, at which it starts to work.
func frame(command byte, payload []byte) [][device.ReportSize]byte {
	var f [frameSize]byte
	copy(f[:payloadSize], payload)
	f[payloadSize] = command
	binary.LittleEndian.PutUint16(f[payloadSize+1:], crc16(f[:payloadSize]))

	reports := make([][device.ReportSize]byte, 0, chunks) // grown, it would leave copies behind
	for seq := range chunks {
		chunk := f[seq*chunkSize : (seq+1)*chunkSize]
		if seq != 0 && seq != chunks-1 && isZero(chunk) {
			continue
		}
		var r [device.ReportSize]byte // r[0] is the report number, 0
		copy(r[1:], chunk)
		r[device.ReportSize-1] = flagWrite | byte(seq)
		reports = append(reports, r)
	}
	clear(f[:])
	return reports
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// crcResidual is what a CRC over data and its own inverted CRC comes to.
const crcResidual = 0xF0B8

// crc16 is ISO 13239 without the final inversion: initial value FFFF, reflected polynomial 8408.
func crc16(data []byte) uint16 {
	crc := uint16(0xFFFF)
	for _, b := range data {
		crc ^= uint16(b)
		for range 8 {
			carry := crc & 1
			crc >>= 1
			if carry != 0 {
				crc ^= 0x8408
			}
		}
	}
	return crc
}

// checkResponse cuts a response of n bytes out of zero-padded chunks, after checking its CRC.
func checkResponse(data []byte, n int) ([]byte, error) {
	if len(data) < n+2 || crc16(data[:n+2]) != crcResidual {
		return nil, device.ErrCorrupt
	}
	return data[:n], nil
}
