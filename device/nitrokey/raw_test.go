package nitrokey_test

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/emulator/nitrokeypro"
)

// raw is another program that uses a device.
type raw struct {
	t    *testing.T
	k    *nitrokeypro.Token
	mark byte
}

// sum is the checksum of a report by way of the reflected CRC-32 of everybody.
func sum(p []byte) uint32 {
	var mirrored [60]byte
	for i := range mirrored {
		mirrored[i] = bits.Reverse8(p[i^3])
	}
	return bits.Reverse32(^crc32.ChecksumIEEE(mirrored[:]))
}

func frame(number, mark byte, parts ...[]byte) [64]byte {
	p := [64]byte{number, 59: mark}
	at := p[1:]
	for _, part := range parts {
		at = at[copy(at, part):]
	}
	binary.LittleEndian.PutUint32(p[60:], sum(p[:]))
	return p
}

// command sends a command and waits for the answer.
func (r *raw) command(number byte, parts ...[]byte) (result byte, data []byte) {
	r.t.Helper()
	r.mark++
	p := frame(number, r.mark, parts...)
	if !r.k.SetFeature(p[:]) {
		r.t.Fatal("the device has no power")
	}
	for {
		var a [64]byte
		if !r.k.GetFeature(a[:]) {
			r.t.Fatal("the device has no power")
		}
		if a[0] == 0 && a[1] == number && sum(a[:]) == binary.LittleEndian.Uint32(a[60:]) &&
			binary.LittleEndian.Uint32(a[2:]) == binary.LittleEndian.Uint32(p[60:]) {
			return a[6], a[7:60]
		}
		time.Sleep(time.Millisecond)
	}
}

// authorized carries out a command that needs the temporary password, as this firmware wants it.
func (r *raw) authorized(number byte, payload, temporary []byte) {
	r.t.Helper()
	legacy := map[uint16]uint8{0x4108: 8, 0x4C4B: 8, 0x4109: 54}
	v, res := r.k.Firmware(), byte(0)
	if v.Minor+v.Build < legacy[r.k.Model().Product] {
		p := frame(number, r.mark+2, payload)
		r.command(0x08, p[60:], temporary)
		res, _ = r.command(number, payload)
	} else {
		res, _ = r.command(number, payload, temporary)
	}
	if res != 0 {
		r.t.Fatalf("command %#x ended with status %d", number, res)
	}
}

// setTap is a report that shows each command before it is sent.
type setTap struct {
	device.Report
	before func(p []byte)
}

func (r *setTap) SetFeature(p []byte) error {
	r.before(p)
	return r.Report.SetFeature(p)
}
