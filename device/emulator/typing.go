package emulator

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// Places in the scan map.
const (
	mapModhex = 0
	mapDigits = 32
	mapTab    = 43
	mapEnter  = 44
)

// HID Usage Tables, keyboard page (0x07).
const (
	usageKeypad1 = 0x59
	usageKeypad0 = 0x62
	shiftBit     = 0x80 // of a scan map entry
	leftShift    = 0x02 // modifier of a boot-keyboard report
)

// delay is what the two delay flags add, about half a second (YubiKey manual, TKTFLAG_APPEND_DELAY).
const delay = 500 * time.Millisecond

// stroke is one key pressed and released.
type stroke struct {
	usage    byte
	modifier byte
	pause    time.Duration // before it
}

// reports are the boot-keyboard reports of the stroke: press, release.
func (s stroke) reports() [2][reportSize]byte {
	return [2][reportSize]byte{{s.modifier, 0, s.usage}, {}}
}

// hotp is RFC 4226 section 5.3.
func hotp(key []byte, movingFactor uint64, digits int) string {
	m := hmac.New(sha1.New, key)
	binary.Write(m, binary.BigEndian, movingFactor)
	sum := m.Sum(nil)
	code := binary.BigEndian.Uint32(sum[sum[19]&0xF:]) & 0x7FFFFFFF
	mod := uint32(1)
	for range digits {
		mod *= 10
	}
	return fmt.Sprintf("%0*d", digits, code%mod)
}

// hotpKey is the HMAC key as the slot stores it: 16 bytes, and the last 4 of 20 in the uid.
func (s *slot) hotpKey() []byte { return append(append([]byte(nil), s.key[:]...), s.uid[:4]...) }

// touch makes slot i type, and steps its counter. It returns nothing if the slot types nothing. stamp is for
// Yubico OTPs.
func (a *application) touch(i int, stamp uint32) []stroke {
	s := &a.slots[i]
	if !s.configured || s.ext&extDormant != 0 || s.isChallengeResponse() {
		return nil
	}
	t := typist{scanMap: &a.scanMap, keypad: s.ext&extKeypad != 0}
	if s.cfg&cfgPacing10 != 0 {
		t.pacing += 10 * time.Millisecond
	}
	if s.cfg&cfgPacing20 != 0 {
		t.pacing += 20 * time.Millisecond
	}
	t.special(s.tkt&tktTabFirst != 0, mapTab)
	t.fixed(s)
	t.special(s.tkt&tktTabFixed != 0, mapTab)
	t.wait(s.tkt&tktDelayFixed != 0)
	t.code(s, stamp)
	t.special(s.tkt&tktTabOTP != 0, mapTab)
	t.wait(s.tkt&tktDelayOTP != 0)
	t.special(s.tkt&tktEnter != 0, mapEnter)
	return t.strokes
}

// typist turns text into strokes.
type typist struct {
	scanMap *[scanMapSize]byte
	keypad  bool
	pacing  time.Duration
	pending time.Duration // a delay before the next stroke
	strokes []stroke
}

func (t *typist) press(code byte) {
	s := stroke{usage: code &^ shiftBit, pause: t.pacing + t.pending}
	if code&shiftBit != 0 {
		s.modifier = leftShift
	}
	t.pending = 0
	t.strokes = append(t.strokes, s)
}

func (t *typist) special(on bool, place int) {
	if on {
		t.press(t.scanMap[place])
	}
}

func (t *typist) wait(on bool) {
	if on {
		t.pending += delay
	}
}

func (t *typist) digit(d byte) {
	switch {
	case !t.keypad:
		t.press(t.scanMap[mapDigits+int(d)])
	case d == 0:
		t.press(usageKeypad0)
	default:
		t.press(usageKeypad1 + d - 1)
	}
}

func (t *typist) modhex(p ...byte) {
	for _, b := range p {
		t.press(t.scanMap[mapModhex+int(b>>4)])
		t.press(t.scanMap[mapModhex+int(b&0xF)])
	}
}

// fixed types the public part. Of an OATH token identifier the first 0, 1, 2 or all bytes are modhex
// and the others decimal digits (ykdef.h, CFGFLAG_OATH_FIXED_*); a nibble above 9 is modhex anyway.
func (t *typist) fixed(s *slot) {
	n := s.fixedSize
	if s.isHOTP() {
		switch s.cfg & (cfgModhex1 | cfgModhex2) {
		case 0:
			n = 0
		case cfgModhex1:
			n = min(n, 1)
		case cfgModhex2:
			n = min(n, 2)
		}
	}
	t.modhex(s.fixed[:n]...)
	for _, b := range s.fixed[n:s.fixedSize] {
		for _, nibble := range []byte{b >> 4, b & 0xF} {
			if nibble > 9 {
				t.press(t.scanMap[mapModhex+int(nibble)])
			} else {
				t.digit(nibble)
			}
		}
	}
}

// code types the one-time part: an HOTP code or a Yubico OTP.
func (t *typist) code(s *slot, stamp uint32) {
	if !s.isHOTP() {
		t.modhex(s.ticket([uidSize]byte{}, stamp)...)
		return
	}
	digits := 6
	if s.cfg&cfg8Digits != 0 {
		digits = 8
	}
	for _, c := range hotp(s.hotpKey(), s.movingFactor, digits) {
		t.digit(byte(c - '0'))
	}
	s.movingFactor++
}

// window is what a window shows under a US layout, from the strokes alone; "?" for what has no character.
func window(strokes []stroke) string {
	var text strings.Builder
	for _, s := range strokes {
		text.WriteByte(usLayout(s.usage, s.modifier == leftShift))
	}
	return text.String()
}

func usLayout(usage byte, shift bool) byte {
	const digits = "1234567890"
	switch {
	case usage >= 0x04 && usage <= 0x1D && shift:
		return 'A' + usage - 0x04
	case usage >= 0x04 && usage <= 0x1D:
		return 'a' + usage - 0x04
	case usage >= 0x1E && usage <= 0x27 && shift:
		return "!@#$%^&*()"[usage-0x1E]
	case usage >= 0x1E && usage <= 0x27:
		return digits[usage-0x1E]
	case usage >= usageKeypad1 && usage <= usageKeypad0:
		return digits[usage-usageKeypad1]
	case usage == 0x28:
		return '\n'
	case usage == 0x2B:
		return '\t'
	}
	return '?'
}
