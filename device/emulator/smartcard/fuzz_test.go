package smartcard

import (
	"encoding/binary"
	"testing"

	"tokendesk/device"
)

// FuzzTransmit sends APDUs, each after its length, to a card that has a host's trust. Every one has to be answered, within
// what the host has room for.
func FuzzTransmit(f *testing.F) {
	for _, s := range []string{
		"00fd000000", "00a4040005a000000308", "00f7009b00", "00f99a0000", "00cb3fff055c035fc10500", "00c0000000",
		"10cb3fff025c03", "00cb3fff035fc105", "0047009a05ac03800111", "00fe119a03060101", "0087119a067c0482008101ff",
		"0087039b047c028100", "0087039b047c028000", "00fb000000", "00fa030300", "0020008008313233343536ffff",
		"00fe069a0f010103020105030101040101050101", "00db3fff065c035fc105530101", "00fffffe13039b10",
	} {
		b := unhex(f, s)
		f.Add(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...), true)
	}
	f.Fuzz(func(t *testing.T, script []byte, trusted bool) {
		c := New(Options{Serial: 1, Firmware: device.Version{Major: 5, Minor: 7, Build: 1}})
		c.Transmit([]byte("\x00\xa4\x04\x00\x05\xa0\x00\x00\x03\x08"))
		c.piv.session.manager, c.piv.session.pin, c.piv.session.fresh = trusted, trusted, trusted
		for i := 0; i < 50 && len(script) >= 2; i++ {
			n := min(int(binary.BigEndian.Uint16(script)), len(script)-2)
			apdu := script[2 : 2+n]
			script = script[2+n:]
			if len(apdu) > 1 && apdu[1] == insGenerate {
				continue // RSA takes too long
			}
			if answer := c.Transmit(apdu); len(answer) < 2 || len(answer) > roomExtended+2 {
				t.Fatalf("%x was answered with %d bytes", apdu, len(answer))
			}
		}
	})
}

// FuzzTLV reads elements, and writes them again: what was in the shortest form is the same.
func FuzzTLV(f *testing.F) {
	f.Add([]byte{0x5C, 3, 0x5F, 0xC1, 5})
	f.Add([]byte{0x7F, 0x49, 0x82, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		all, ok := parseTLVs(b)
		if !ok {
			return
		}
		var out []byte
		for _, e := range all {
			out = appendTLV(out, e.tag, e.value...)
		}
		again, ok := parseTLVs(out)
		if !ok || len(again) != len(all) || len(out) > len(b) {
			t.Fatalf("%x became %x", b, out)
		}
		for i := range all {
			if again[i].tag != all[i].tag || string(again[i].value) != string(all[i].value) {
				t.Fatalf("%x became %x", b, out)
			}
		}
	})
}
