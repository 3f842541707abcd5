package smartcard

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/rand"
	"crypto/subtle"
	"slices"
)

// Algorithms of management keys (SP 800-78-4, table 6-2).
const (
	alg3DES   = 0x03
	algAES128 = 0x08
	algAES192 = 0x0A
	algAES256 = 0x0C
)

var managementKeySizes = map[byte]int{alg3DES: 24, algAES128: 16, algAES192: 24, algAES256: 32}

const (
	refManagement = 0x9B
	// Values of P2 that set the management key, by its touch policy.
	managementTouchNever  = 0xFF
	managementTouchAlways = 0xFE
	managementTouchCached = 0xFD
)

var factoryManagementKey = []byte("\x01\x02\x03\x04\x05\x06\x07\x08\x01\x02\x03\x04\x05\x06\x07\x08\x01\x02\x03\x04\x05\x06\x07\x08")

type managementKey struct {
	algorithm byte
	value     []byte
	touch     byte // policy
	block     cipher.Block
}

func defaultManagementKey(c *Card) managementKey {
	algorithm := byte(alg3DES)
	if c.atLeast(5, 7, 0) {
		algorithm = algAES192
	}
	k, _ := newManagementKey(algorithm, factoryManagementKey)
	return k
}

// factory tells whether it is the one that the card has left the factory with; the same value for another algorithm is not.
func (k managementKey) factory(c *Card) bool {
	d := defaultManagementKey(c)
	return k.algorithm == d.algorithm && bytes.Equal(k.value, d.value)
}

func newManagementKey(algorithm byte, value []byte) (managementKey, bool) {
	if size := managementKeySizes[algorithm]; size == 0 || len(value) != size {
		return managementKey{}, false
	}
	k := managementKey{algorithm: algorithm, value: slices.Clone(value), touch: touchNever}
	var err error
	if algorithm == alg3DES {
		if weak(value) {
			return managementKey{}, false
		}
		k.block, err = des.NewTripleDESCipher(value)
	} else {
		k.block, err = aes.NewCipher(value)
	}
	return k, err == nil
}

// weakDES are the weak and semi-weak keys of DES, with odd parity (SP 800-67, section 3.3.2).
var weakDES = []string{
	"\x01\x01\x01\x01\x01\x01\x01\x01", "\xFE\xFE\xFE\xFE\xFE\xFE\xFE\xFE",
	"\xE0\xE0\xE0\xE0\xF1\xF1\xF1\xF1", "\x1F\x1F\x1F\x1F\x0E\x0E\x0E\x0E",
	"\x01\x1F\x01\x1F\x01\x0E\x01\x0E", "\x1F\x01\x1F\x01\x0E\x01\x0E\x01",
	"\x01\xE0\x01\xE0\x01\xF1\x01\xF1", "\xE0\x01\xE0\x01\xF1\x01\xF1\x01",
	"\x01\xFE\x01\xFE\x01\xFE\x01\xFE", "\xFE\x01\xFE\x01\xFE\x01\xFE\x01",
	"\x1F\xE0\x1F\xE0\x0E\xF1\x0E\xF1", "\xE0\x1F\xE0\x1F\xF1\x0E\xF1\x0E",
	"\x1F\xFE\x1F\xFE\x0E\xFE\x0E\xFE", "\xFE\x1F\xFE\x1F\xFE\x0E\xFE\x0E",
	"\xE0\xFE\xE0\xFE\xF1\xFE\xF1\xFE", "\xFE\xE0\xFE\xE0\xFE\xF1\xFE\xF1",
}

// weak tells whether one of the three keys of 3DES is.
func weak(value []byte) bool {
	for part := range slices.Chunk(value, des.BlockSize) {
		same := func(w string) bool { return bytes.Equal(withoutParity([]byte(w)), withoutParity(part)) }
		if slices.ContainsFunc(weakDES, same) {
			return true
		}
	}
	return false
}

func withoutParity(b []byte) []byte {
	b = slices.Clone(b)
	for i := range b {
		b[i] &^= 1
	}
	return b
}

func (k managementKey) encrypt(b []byte) []byte {
	out := make([]byte, k.block.BlockSize())
	k.block.Encrypt(out, b)
	return out
}

// random is a witness or a challenge.
func (k managementKey) random() []byte {
	b := make([]byte, k.block.BlockSize())
	rand.Read(b)
	return b
}

// Elements of the dynamic authentication template (SP 800-73-4 part 2, table 7).
const (
	tagTemplate       = 0x7C
	tagWitness        = 0x80
	tagChallenge      = 0x81
	tagResponse       = 0x82
	tagExponentiation = 0x85
)

// authenticateManager takes a step of one of the two ways to show the management key (SP 800-73-4 part 2, appendices A.1
// and A.2): the host proves it (challenge, response), or both do (witness, then witness and challenge).
func (p *piv) authenticateManager(a apdu, t tlvs) ([]byte, status) {
	k := p.management
	if a.p1 != k.algorithm && (a.p1 != 0 || k.algorithm != alg3DES) { // 00 stands for 3DES (SP 800-78-4, table 6-2)
		return nil, swWrongData
	}
	witness, hasWitness := t.get(tagWitness)
	challenge, hasChallenge := t.get(tagChallenge)
	response, hasResponse := t.get(tagResponse)
	switch {
	case hasWitness && len(witness) == 0:
		p.session.witness = k.random()
		return template(tagWitness, k.encrypt(p.session.witness)), swOK
	case hasWitness && hasChallenge:
		if len(challenge) != k.block.BlockSize() {
			return nil, swWrongData
		}
		if sw := p.showManager(&p.session.witness, witness); sw != swOK {
			return nil, sw
		}
		return template(tagResponse, k.encrypt(challenge)), swOK
	case hasChallenge && len(challenge) == 0:
		p.session.challenge = k.random()
		return template(tagChallenge, p.session.challenge), swOK
	case hasResponse && len(response) > 0:
		var expected []byte
		if p.session.challenge != nil {
			expected = k.encrypt(p.session.challenge)
		}
		p.session.challenge = nil
		return nil, p.showManager(&expected, response)
	}
	return nil, swWrongData
}

// showManager compares what the host has found with what only the management key finds, once.
func (p *piv) showManager(expected *[]byte, got []byte) status {
	right := *expected != nil && subtle.ConstantTimeCompare(*expected, got) == 1
	*expected, p.session.manager = nil, false
	if !right || !p.touchAllows(p.management.touch) {
		return swSecurity
	}
	p.session.manager = true
	return swOK
}

func template(tag uint32, value []byte) []byte {
	return appendTLV(nil, tagTemplate, appendTLV(nil, tag, value...)...)
}

// setManagement replaces the management key.
func (p *piv) setManagement(a apdu) ([]byte, status) {
	touch := map[byte]byte{managementTouchNever: touchNever, managementTouchAlways: touchAlways, managementTouchCached: touchCached}[a.p2]
	switch {
	case a.p1 != 0xFF || touch == 0:
		return nil, swP1P2
	case !p.session.manager:
		return nil, swSecurity
	case len(a.data) < 3 || a.data[1] != refManagement || int(a.data[2]) != len(a.data)-3:
		return nil, swWrongData
	case a.data[0] != alg3DES && !p.card.atLeast(5, 4, 0), touch == touchCached && !p.card.atLeast(4, 3, 0):
		return nil, swWrongData
	}
	k, ok := newManagementKey(a.data[0], a.data[3:])
	if !ok {
		return nil, swWrongData
	}
	k.touch = touch
	p.management = k
	return nil, swOK
}
