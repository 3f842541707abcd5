package smartcard

import (
	"bytes"
	"crypto/subtle"
	"slices"
)

const (
	defaultPIN   = "123456\xff\xff"
	defaultPUK   = "12345678"
	defaultTries = 3

	referenceSize = 8 // of a PIN or PUK, padded
	shortestPIN   = 6
	padding       = 0xFF

	// mostTriesTold is what fits into 63Cx.
	mostTriesTold = 15
)

// Key references of the PIN and PUK (SP 800-73-4 part 1, table 4b).
const (
	refPIN = 0x80
	refPUK = 0x81
)

// reference is a PIN or PUK.
type reference struct {
	value       string // padded with FF to 8 bytes
	tries, left int
	factory     string
}

func newReference(value string) reference {
	return reference{value: value, tries: defaultTries, left: defaultTries, factory: value}
}

// check compares a value, and uses up a try if it is wrong.
func (r *reference) check(value []byte) status {
	switch {
	case r.left == 0:
		return swBlocked
	case subtle.ConstantTimeCompare([]byte(r.value), value) == 0:
		r.left--
		return r.refusal()
	}
	r.left = r.tries
	return swOK
}

// refusal tells how many tries are left.
func (r *reference) refusal() status { return swTries + status(min(r.left, mostTriesTold)) }

func (r *reference) set(value []byte) status {
	n := len(value)
	for n > 0 && value[n-1] == padding {
		n--
	}
	if n < shortestPIN || bytes.IndexByte(value[:n], padding) >= 0 {
		return swWrongData
	}
	r.value, r.left = string(value), r.tries
	return swOK
}

// verify checks the PIN, tells whether it has to be checked, or forgets that it was (P1 is FF).
func (p *piv) verify(a apdu) ([]byte, status) {
	switch {
	case a.p2 != refPIN:
		return nil, swNoReference
	case a.p1 == 0xFF && len(a.data) == 0:
		p.session.pin, p.session.fresh = false, false
		return nil, swOK
	case a.p1 != 0:
		return nil, swP1P2
	case len(a.data) > 0 && len(a.data) != referenceSize:
		return nil, swWrongData
	case len(a.data) > 0:
		sw := p.pin.check(a.data)
		p.session.pin, p.session.fresh = sw == swOK, sw == swOK
		return nil, sw
	case p.session.pin:
		return nil, swOK
	case p.pin.left == 0:
		return nil, swBlocked
	}
	return nil, p.pin.refusal()
}

// changeReference replaces the PIN or PUK by itself.
func (p *piv) changeReference(a apdu) ([]byte, status) {
	r := &p.pin
	switch {
	case a.p1 != 0:
		return nil, swP1P2
	case a.p2 == refPUK:
		r = &p.puk
	case a.p2 != refPIN:
		return nil, swNoReference
	}
	sw := p.replace(r, r, a.data)
	if a.p2 == refPIN {
		p.session.pin, p.session.fresh = sw == swOK, sw == swOK
	}
	return nil, sw
}

// resetRetry replaces the PIN by the PUK.
func (p *piv) resetRetry(a apdu) ([]byte, status) {
	switch {
	case a.p1 != 0:
		return nil, swP1P2
	case a.p2 != refPIN:
		return nil, swNoReference
	}
	return nil, p.replace(&p.puk, &p.pin, a.data)
}

// replace takes a value that allows it, and a new one.
func (p *piv) replace(allows, changes *reference, data []byte) status {
	if len(data) != 2*referenceSize {
		return swWrongData
	}
	if sw := allows.check(data[:referenceSize]); sw != swOK {
		return sw
	}
	next := data[referenceSize:]
	if p.card.atLeast(5, 7, 0) && slices.ContainsFunc(next, func(b byte) bool { return b > 0x7F && b != padding }) {
		return swWrongData // Yubico's manual of the SDK, change reference data
	}
	return changes.set(next)
}

// setRetries sets how many tries there are. It makes PIN and PUK those of the factory.
func (p *piv) setRetries(a apdu) ([]byte, status) {
	switch {
	case !p.session.manager || !p.session.pin:
		return nil, swSecurity
	case a.p1 == 0 || a.p2 == 0:
		return nil, swWrongData
	}
	p.pin, p.puk = newReference(defaultPIN), newReference(defaultPUK)
	p.pin.tries, p.pin.left = int(a.p1), int(a.p1)
	p.puk.tries, p.puk.left = int(a.p2), int(a.p2)
	p.session.pin, p.session.fresh = false, false
	return nil, swOK
}

// reset makes all as it left the factory, which needs nothing but that neither PIN nor PUK can be used any more.
func (p *piv) reset(a apdu) ([]byte, status) {
	switch {
	case a.p1 != 0 || a.p2 != 0:
		return nil, swP1P2
	case p.pin.left > 0 || p.puk.left > 0:
		return nil, swConditions
	}
	p.factory()
	return nil, swOK
}
