package smartcard

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/subtle"
	"slices"

	"tokendesk/device"
)

// Instructions of the OATH application (YKOATH).
const (
	insOATHPut          = 0x01
	insOATHDelete       = 0x02
	insOATHSetCode      = 0x03
	insOATHReset        = 0x04
	insOATHRename       = 0x05
	insOATHList         = 0xA1
	insOATHCalculate    = 0xA2
	insOATHValidate     = 0xA3
	insOATHCalculateAll = insSelect // told from it by P1
	insOATHRemaining    = 0xA5
)

// Tags of its elements.
const (
	tagOATHName       = 0x71
	tagOATHListed     = 0x72
	tagOATHKey        = 0x73
	tagOATHChallenge  = 0x74
	tagOATHResponse   = 0x75
	tagOATHTruncated  = 0x76
	tagOATHNoResponse = 0x77
	tagOATHProperties = 0x78
	tagOATHVersion    = 0x79
	tagOATHCounter    = 0x7A
	tagOATHAlgorithm  = 0x7B
	tagOATHTouch      = 0x7C
)

// Status words that only this application has.
const (
	swNoObject status = 0x6984 // or: it is not what it says
	swParams   status = 0x6B00
)

// oathParams are what P1 and P2 can be.
var oathParams = map[byte][]uint16{
	insOATHPut: {0}, insOATHDelete: {0}, insOATHSetCode: {0}, insOATHReset: {0xDEAD}, insOATHRename: {0},
	insOATHList: {0}, insOATHCalculate: {0, 1}, insOATHValidate: {0}, insOATHCalculateAll: {0, 1},
}

const (
	saltSize      = 8
	challengeSize = 8
	passwordSize  = 16 // of what PBKDF2 makes of it
	longestName   = 64
	shortestKey   = 14
)

// oath is the OATH application of a YubiKey (Yubico's YKOATH protocol).
type oath struct {
	card     *Card
	salt     []byte // also names the application to hosts; new with each reset
	password authenticator
	held     credentials
	session  oathSession
}

// oathSession is what it only knows while it is selected.
type oathSession struct {
	challenge []byte
	unlocked  bool
}

// authenticator is what a host has to calculate with; no key: nothing.
type authenticator struct {
	algorithm byte
	key       []byte
}

func (p authenticator) respond(challenge []byte) []byte {
	m := hmac.New(hashes[p.algorithm&maskAlgorithm], p.key)
	m.Write(challenge)
	return m.Sum(nil)
}

func newOATH(c *Card) *oath {
	o := &oath{card: c}
	o.factory()
	return o
}

func (o *oath) factory() { *o = oath{card: o.card, salt: random(saltSize)} }

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// capacity is how many credentials fit in.
func (o *oath) capacity() int {
	if o.card.atLeast(5, 7, 0) {
		return 64
	}
	return 32
}

func (o *oath) locked() bool { return o.password.key != nil && !o.session.unlocked }

func (o *oath) selected() []byte {
	v := o.card.firmware
	b := appendTLV(nil, tagOATHVersion, v.Major, v.Minor, v.Build)
	b = appendTLV(b, tagOATHName, o.salt...)
	if o.password.key == nil {
		return b
	}
	o.session.challenge = random(challengeSize)
	b = appendTLV(b, tagOATHChallenge, o.session.challenge...)
	return appendTLV(b, tagOATHAlgorithm, o.password.algorithm&maskAlgorithm)
}

func (o *oath) command(a apdu) ([]byte, status) {
	params, known := oathParams[a.ins]
	switch {
	case o.locked() && a.ins != insOATHValidate && a.ins != insOATHReset:
		return nil, swSecurity
	case !known, a.ins == insOATHRename && !o.card.atLeast(5, 3, 1):
		return nil, swInstruction
	case !slices.Contains(params, uint16(a.p1)<<8|uint16(a.p2)):
		return nil, swParams
	}
	e, ok := oathElements(a.data)
	if !ok {
		return nil, swWrongData
	}
	switch a.ins {
	case insOATHPut:
		return nil, o.put(e)
	case insOATHDelete:
		return nil, o.remove(e)
	case insOATHSetCode:
		return nil, o.setCode(e)
	case insOATHReset:
		o.factory()
		return nil, swOK
	case insOATHRename:
		return nil, o.rename(e)
	case insOATHList:
		return o.list(), swOK
	case insOATHCalculate:
		return o.calculate(e, a.p2 == 1)
	case insOATHCalculateAll:
		return o.calculateAll(e, a.p2 == 1)
	}
	return o.validate(e)
}

// put adds a credential, or replaces one of its name.
func (o *oath) put(e tlvs) status {
	n, ok := newCredential(e)
	if !ok || !o.takes(n) {
		return swWrongData
	}
	old := o.held.find(n.name)
	if v := o.card.firmware; old == nil && v.Major == 4 && v != (device.Version{Major: 4}) && !o.card.atLeast(4, 3, 5) {
		// These take one whose name only begins so for the one that is meant; ykman refuses such names.
		old = o.held.first(func(c *credential) bool { return bytes.HasPrefix(c.name, n.name) })
	}
	switch {
	case old != nil:
		*old = *n
	case len(o.held) >= o.capacity():
		return swFull
	default:
		o.held = append(o.held, n)
	}
	return swOK
}

// takes tells whether a credential is one that YKOATH allows, for this firmware. Keys of less than 14 bytes are for hosts to
// pad; whether a real key refuses those that are not is not told.
func (o *oath) takes(c *credential) bool {
	_, known := hashes[c.algorithm()]
	switch {
	case len(c.name) == 0 || len(c.name) > longestName, c.digits < 6 || c.digits > 8:
		return false
	case c.kind() != kindHOTP && c.kind() != kindTOTP, !known:
		return false
	case c.algorithm() == algSHA512 && !o.card.atLeast(4, 3, 1), c.touch() && !o.card.atLeast(4, 2, 4):
		return false
	case c.properties&^propTouch != 0:
		return false
	}
	return len(c.key) >= shortestKey && len(c.key) <= hashes[c.algorithm()]().BlockSize()
}

func (o *oath) remove(e tlvs) status {
	name, ok := e.take(tagOATHName)
	switch {
	case !ok || len(e) > 0:
		return swWrongData
	case !o.held.remove(name):
		return swNoObject
	}
	return swOK
}

func (o *oath) rename(e tlvs) status {
	name, ok := e.take(tagOATHName)
	next, named := e.take(tagOATHName)
	c := o.held.find(name)
	switch {
	case !ok || !named || len(e) > 0 || len(next) == 0 || len(next) > longestName:
		return swWrongData
	case c == nil:
		return swNoObject
	case o.held.find(next) != nil:
		return swWrongData
	}
	c.name = bytes.Clone(next)
	return swOK
}

// setCode sets a password, or removes it. Whoever has set one need not show it in this session.
func (o *oath) setCode(e tlvs) status {
	key, ok := e.take(tagOATHKey)
	if ok && len(key) == 0 && len(e) == 0 {
		o.password = authenticator{}
		return swOK
	}
	challenge, challenged := e.take(tagOATHChallenge)
	response, responded := e.take(tagOATHResponse)
	if !ok || !challenged || !responded || len(e) > 0 || len(key) != 1+passwordSize || len(challenge) != challengeSize {
		return swWrongData
	}
	p := authenticator{key[0], bytes.Clone(key[1:])}
	if _, known := hashes[p.algorithm&maskAlgorithm]; !known {
		return swWrongData
	}
	if subtle.ConstantTimeCompare(p.respond(challenge), response) == 0 {
		return swNoObject
	}
	o.password, o.session.unlocked = p, true
	return swOK
}

// validate lets the host prove that it has the password, and proves the same to it.
func (o *oath) validate(e tlvs) ([]byte, status) {
	response, ok := e.take(tagOATHResponse)
	challenge, challenged := e.take(tagOATHChallenge)
	switch {
	case o.password.key == nil:
		return nil, swNoObject
	case !ok || !challenged || len(e) > 0 || len(challenge) < challengeSize || o.session.challenge == nil:
		return nil, swWrongData
	case subtle.ConstantTimeCompare(o.password.respond(o.session.challenge), response) == 0:
		return nil, swWrongData
	}
	o.session = oathSession{unlocked: true}
	return appendTLV(nil, tagOATHResponse, o.password.respond(challenge)...), swOK
}

func (o *oath) list() (b []byte) {
	for _, c := range o.held {
		b = appendTLV(b, tagOATHListed, slices.Concat([]byte{c.how}, c.name)...)
	}
	return b
}

func (o *oath) calculate(e tlvs, truncate bool) ([]byte, status) {
	name, ok := e.take(tagOATHName)
	challenge, challenged := e.take(tagOATHChallenge)
	c := o.held.find(name)
	switch {
	case !ok || !challenged || len(e) > 0:
		return nil, swWrongData
	case c == nil:
		return nil, swNoObject
	case c.kind() == kindTOTP && !isChallenge(challenge):
		return nil, swWrongData
	case c.touch() && !o.card.waitForTouch():
		return nil, swSecurity
	}
	if c.kind() == kindHOTP {
		return c.answer(c.next(), truncate), swOK
	}
	return c.answer(challenge, truncate), swOK
}

// calculateAll leaves out what would use up a counter, or wait for a touch.
func (o *oath) calculateAll(e tlvs, truncate bool) (b []byte, sw status) {
	challenge, ok := e.take(tagOATHChallenge)
	if !ok || len(e) > 0 || !isChallenge(challenge) {
		return nil, swWrongData
	}
	for _, c := range o.held {
		b = appendTLV(b, tagOATHName, c.name...)
		switch {
		case c.kind() == kindHOTP:
			b = appendTLV(b, tagOATHNoResponse, c.digits)
		case c.touch():
			b = appendTLV(b, tagOATHTouch, c.digits)
		default:
			b = append(b, c.answer(challenge, truncate)...)
		}
	}
	return b, swOK
}

// isChallenge tells whether a TOTP credential calculates with it.
func isChallenge(b []byte) bool { return len(b) > 0 && len(b) <= 64 }

// isSelect tells SELECT from an instruction of OATH applications with the same byte.
func (c *Card) isSelect(a apdu) bool {
	return a.ins == insSelect && (a.p1&0x04 != 0 || c.selected != c.oath && c.selected != c.secrets)
}

// insRest is what fetches the rest of an answer: the OATH application of a YubiKey has an instruction of its own.
func (c *Card) insRest() byte {
	if c.selected == c.oath {
		return insOATHRemaining
	}
	return insGetResponse
}
