package smartcard

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"math"
	"slices"
)

// atrNitrokey3 is the answer to reset of a Nitrokey 3, which offers T=1.
const atrNitrokey3 = "\x3b\x8f\x01\x80\x5dNitrokey\x00\x00\x00\x00\x00\x6a"

// Instructions that the secrets application of a Nitrokey 3 has of its own.
const (
	insSecretsStatus = 0x03 // where a YubiKey has SET CODE
	insVerifyPIN     = 0xB2
	insChangePIN     = 0xB3
	insSetPIN        = 0xB4
	insUpdate        = 0xB7

	serialRequest = 0x10 // in P1 of what PUT is otherwise
)

// Its own tags.
const (
	tagSecretsPIN    = 0x80
	tagSecretsNewPIN = 0x81
	tagSecretsTries  = 0x82
	tagSecretsSerial = 0x8F
)

// Its own status words.
const (
	swWrongPIN   status = 0x6300
	swPersistent status = 0x6500
	swUnable     status = 0x6A81
	swMoreListed status = 0x61FF
)

const (
	secretsCapacity = 50 // nitrokey-3-firmware, components/apps
	secretsTries    = 8
	secretsPIN      = 128 // bytes at most
	secretsField    = 128 // bytes of a label, or a key, at most
)

// propPIN has a credential encrypted under the PIN.
const propPIN = 0x04

// Types of credentials that are kept and listed, but not put to use here: reverse HOTP, challenge-response, password.
const (
	kindReverse  = 0x30
	kindHMAC     = 0x40
	kindPassword = 0xF0
)

// secrets is the secrets application of a Nitrokey 3, which took the name, tags and instructions of YKOATH and part of its
// meaning (trussed-secrets-app 0.14, src/authenticator.rs). It has no password; its PIN keeps only those credentials from
// others that were put with that property. Left out: passwords, reverse HOTP, challenge-response, and lists above 3 kB.
type secrets struct {
	card *Card
	pin  []byte // nil: not set
	left int    // tries
	held credentials
	// verified is whether the PIN was shown in the last command, open whether it was in the one before.
	verified, open bool
}

func newSecrets(c *Card) *secrets { return &secrets{card: c} }

// selected tells the salt that nobody needs only without a PIN, and a new one each time: it is never kept.
func (s *secrets) selected() []byte {
	s.verified, s.open = false, false
	v := s.card.firmware
	b := appendTLV(nil, tagOATHVersion, v.Major, v.Minor, v.Build)
	if s.pin == nil {
		b = appendTLV(b, tagOATHName, random(saltSize)...)
	} else {
		b = appendTLV(b, tagSecretsTries, byte(s.left))
	}
	return appendTLV(b, tagSecretsSerial, s.serial()...)
}

func (s *secrets) serial() []byte { return binary.BigEndian.AppendUint32(nil, uint32(s.card.serial)) }

func (s *secrets) command(a apdu) ([]byte, status) {
	s.open, s.verified = s.verified, false
	switch p := uint16(a.p1)<<8 | uint16(a.p2); {
	case a.ins == insOATHPut && p == serialRequest<<8:
		return s.serial(), swOK
	case a.ins == insSecretsStatus && p == 0:
		v := s.card.firmware
		return []byte{v.Major, v.Minor, v.Build, 0x42, 0x42, 0x42}, swOK
	case a.ins == insOATHReset && p == 0xDEAD:
		return nil, s.reset()
	case a.ins == insOATHCalculate && p == 1:
		return s.calculate(a.data)
	case a.ins == insOATHList && p == 0:
		return s.list(a.data)
	case a.ins == insOATHRemaining && p == 0:
		return nil, swConditions
	case p != 0:
		return nil, swInstruction
	}
	run := map[byte]func(tlvs) status{
		insOATHPut: s.put, insOATHDelete: s.remove, insUpdate: s.update,
		insVerifyPIN: s.verify, insChangePIN: s.changePIN, insSetPIN: s.setPIN,
	}[a.ins]
	if run == nil {
		return nil, swInstruction
	}
	e, ok := readElements(a.data, a.ins == insOATHPut)
	if !ok {
		return nil, swWrongData
	}
	return nil, run(e)
}

// find returns a credential that can be decrypted now.
func (s *secrets) find(name []byte) *credential {
	c := s.held.find(name)
	if c == nil || !s.visible(c) {
		return nil
	}
	return c
}

func (s *secrets) visible(c *credential) bool { return c.properties&propPIN == 0 || s.open }

// put adds a credential. It replaces none, not even one that nobody sees without the PIN.
func (s *secrets) put(e tlvs) status {
	c, ok := newCredential(e)
	if !ok || len(c.key) == 0 || !slices.Contains([]byte{kindHOTP, kindTOTP, kindReverse, kindHMAC, kindPassword}, c.kind()) {
		return swWrongData
	}
	_, known := hashes[c.algorithm()]
	switch {
	case !known, c.kind() != kindHOTP && c.counter > 0:
		return swWrongData
	case c.touch() && c.properties&propPIN == 0 && !s.card.waitForTouch():
		return swSecurity
	case len(s.held) >= secretsCapacity:
		return swFull
	case s.held.find(c.name) != nil:
		return swBlocked
	case len(c.name) > secretsField || len(c.key) > secretsField:
		return swFull
	case !s.visible(c), c.kind() == kindReverse && !s.open:
		return swSecurity
	}
	s.held = append(s.held, c)
	return swOK
}

func (s *secrets) remove(e tlvs) status {
	name, ok := e.take(tagOATHName)
	switch {
	case !ok:
		return swWrongData
	case !s.card.waitForTouch():
		return swSecurity
	case s.find(name) == nil:
		return swNotFound
	}
	s.held.remove(name)
	return swOK
}

// update gives a credential another label, or other properties.
func (s *secrets) update(e tlvs) status {
	name, ok := e.take(tagOATHName)
	next, named := e.take(tagOATHName)
	properties, changed := e.take(tagOATHProperties)
	if !ok || len(name) == 0 || len(e) > 0 || changed && len(properties) == 0 {
		return swWrongData
	}
	if !s.card.waitForTouch() {
		return swSecurity
	}
	c := s.find(name)
	switch {
	case named && s.held.find(next) != nil:
		return swBlocked
	case c == nil:
		return swNotFound
	}
	if named {
		c.name = bytes.Clone(next)
	}
	if changed {
		c.properties = c.properties&propPIN | properties[0]&propTouch
	}
	return swOK
}

// list tells the credentials in the order of its file system, where their names are hashes.
func (s *secrets) list(data []byte) (b []byte, sw status) {
	version := byte(0)
	if len(data) > 0 {
		version = data[0]
	}
	if version > 1 {
		return nil, swMoreListed
	}
	hash := func(c *credential) []byte { h := sha256.Sum256(c.name); return h[:8] }
	slices.SortFunc(s.held, func(c, d *credential) int { return bytes.Compare(hash(c), hash(d)) })
	for _, c := range s.held {
		if !s.visible(c) {
			continue
		}
		listed := slices.Concat([]byte{c.how}, c.name)
		if version == 1 {
			listed = append(listed, c.properties&propTouch>>1|c.properties&propPIN>>1)
		}
		b = appendTLV(b, tagOATHListed, listed...)
	}
	return b, swOK
}

func (s *secrets) calculate(data []byte) ([]byte, status) {
	e, _ := readElements(data, false)
	name, ok := e.take(tagOATHName)
	challenge, challenged := e.take(tagOATHChallenge)
	c := s.find(name)
	switch {
	case !ok || !challenged:
		return nil, swWrongData
	case c == nil:
		return nil, swNotFound
	case c.touch() && c.properties&propPIN == 0 && !s.card.waitForTouch():
		return nil, swSecurity
	case c.kind() != kindHOTP && c.kind() != kindTOTP:
		return nil, swConditions
	case c.kind() == kindHOTP && c.counter == math.MaxUint32:
		return nil, swPersistent
	}
	if c.kind() == kindHOTP {
		challenge = c.next()
	}
	if c.algorithm() == algSHA512 {
		return nil, swUnable
	}
	return c.answer(challenge, true), swOK
}

// verify shows the PIN, for the next command.
func (s *secrets) verify(e tlvs) status {
	pin, ok := e.take(tagSecretsPIN)
	switch {
	case !ok:
		return swWrongData
	case s.pin == nil || !s.card.waitForTouch():
		return swSecurity
	}
	sw := s.check(pin)
	s.verified = sw == swOK
	return sw
}

// check compares the PIN, and uses up a try if it is wrong.
func (s *secrets) check(pin []byte) status {
	switch {
	case s.left == 0:
		return swWrongPIN
	case subtle.ConstantTimeCompare(s.pin, pin) == 0:
		s.left--
		return swWrongPIN
	}
	s.left = secretsTries
	return swOK
}

func (s *secrets) setPIN(e tlvs) status {
	pin, ok := e.take(tagSecretsPIN)
	switch {
	case !ok:
		return swWrongData
	case s.pin != nil || !s.card.waitForTouch():
		return swSecurity
	case len(pin) > secretsPIN:
		return swWrongPIN
	}
	s.pin, s.left = bytes.Clone(pin), secretsTries
	return swOK
}

func (s *secrets) changePIN(e tlvs) status {
	pin, ok := e.take(tagSecretsPIN)
	next, changed := e.take(tagSecretsNewPIN)
	switch {
	case !ok || !changed:
		return swWrongData
	case s.pin == nil || !s.card.waitForTouch():
		return swSecurity
	case len(next) > secretsPIN:
		return swWrongPIN
	}
	sw := s.check(pin)
	if sw == swOK {
		s.pin = bytes.Clone(next)
	}
	return sw
}

func (s *secrets) reset() status {
	if !s.card.waitForTouch() {
		return swSecurity
	}
	*s = secrets{card: s.card}
	return swOK
}

// room is how much response data fits into the answer. A Nitrokey 3 gives none where there is no Le, and has it fetched
// (iso7816 and apdu-dispatch, of which its firmware is made).
func (c *Card) room(a apdu) int {
	if c.secrets != nil && a.le == 0 {
		return 0
	}
	return a.room()
}
