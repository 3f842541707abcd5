package smartcard

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"time"
)

// Algorithms of keys (SP 800-78-4, table 6-2; the last two, and RSA of more than 2048 bits, are Yubico's).
const (
	algRSA3072 = 0x05
	algRSA1024 = 0x06
	algRSA2048 = 0x07
	algECCP256 = 0x11
	algECCP384 = 0x14
	algRSA4096 = 0x16
	algEd25519 = 0xE0
	algX25519  = 0xE1
)

var (
	rsaBits = map[byte]int{algRSA1024: 1024, algRSA2048: 2048, algRSA3072: 3072, algRSA4096: 4096}
	curves  = map[byte]elliptic.Curve{algECCP256: elliptic.P256(), algECCP384: elliptic.P384()}
)

// Policies of PIN and touch (Yubico's extensions to PIV).
const (
	policyDefault = 0

	pinNever  = 1
	pinOnce   = 2
	pinAlways = 3

	touchNever  = 1
	touchAlways = 2
	touchCached = 3
)

// touchCache is how long a touch counts for keys with a cached one.
const touchCache = 15 * time.Second

// Slots with a meaning of their own.
const (
	slotAuthentication     = 0x9A
	slotSignature          = 0x9C
	slotKeyManagement      = 0x9D
	slotCardAuthentication = 0x9E
	slotRetiredFirst       = 0x82
	slotRetiredLast        = 0x95
	slotAttestation        = 0xF9
)

// holdsKey tells whether there is such a slot, for keys of the holder.
func holdsKey(slot byte) bool {
	switch slot {
	case slotAuthentication, slotSignature, slotKeyManagement, slotCardAuthentication:
		return true
	}
	return slot >= slotRetiredFirst && slot <= slotRetiredLast
}

// key is what a slot holds.
type key struct {
	algorithm  byte
	pin, touch byte // policies
	generated  bool
	private    crypto.PrivateKey // *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey or *ecdh.PrivateKey
}

// supports tells whether the firmware has an algorithm.
func (p *piv) supports(algorithm byte) bool {
	switch algorithm {
	case algRSA1024, algRSA2048, algECCP256:
		return true
	case algECCP384:
		return p.card.atLeast(4, 0, 0)
	case algRSA3072, algRSA4096, algEd25519, algX25519:
		return p.card.atLeast(5, 7, 0)
	}
	return false
}

// policies reads the policies of a new key for a slot, and puts in what stands for the default.
func (p *piv) policies(slot byte, t tlvs) (pin, touch byte, ok bool) {
	if pin, ok = policy(t, tagPINPolicy, pinAlways); !ok {
		return 0, 0, false
	}
	if touch, ok = policy(t, tagTouchPolicy, touchCached); !ok {
		return 0, 0, false
	}
	if (pin|touch != policyDefault) && !p.card.atLeast(4, 0, 0) || touch == touchCached && !p.card.atLeast(4, 3, 0) {
		return 0, 0, false
	}
	if touch == policyDefault {
		touch = touchNever
	}
	if pin == policyDefault {
		switch pin = pinOnce; slot {
		case slotSignature:
			pin = pinAlways
		case slotCardAuthentication:
			pin = pinNever
		}
	}
	return pin, touch, true
}

func policy(t tlvs, tag uint32, most byte) (byte, bool) {
	v, ok := t.get(tag)
	if !ok {
		return policyDefault, true
	}
	if len(v) != 1 || v[0] > most {
		return 0, false
	}
	return v[0], true
}

// Elements of the commands that make keys.
const (
	tagControl     = 0xAC
	tagAlgorithm   = 0x80
	tagPINPolicy   = 0xAA
	tagTouchPolicy = 0xAB
	tagPublicKey   = 0x7F49
)

// generate makes a key in a slot, and answers with its public key.
func (p *piv) generate(a apdu) ([]byte, status) {
	switch {
	case a.p1 != 0 || !holdsKey(a.p2) && a.p2 != slotAttestation:
		return nil, swP1P2
	case !p.session.manager:
		return nil, swSecurity
	}
	t, ok := inner(a.data, tagControl)
	if !ok {
		return nil, swWrongData
	}
	algorithm, ok := t.get(tagAlgorithm)
	if !ok || len(algorithm) != 1 || !p.supports(algorithm[0]) {
		return nil, swWrongData
	}
	k := &key{algorithm: algorithm[0], generated: true}
	if k.pin, k.touch, ok = p.policies(a.p2, t); !ok {
		return nil, swWrongData
	}
	var err error
	if k.private, err = generateKey(k.algorithm); err != nil {
		return nil, swMemoryFailure
	}
	p.keys[a.p2] = k
	return appendTLV(nil, tagPublicKey, k.public()...), swOK
}

func generateKey(algorithm byte) (crypto.PrivateKey, error) {
	switch algorithm {
	case algECCP256, algECCP384:
		return ecdsa.GenerateKey(curves[algorithm], rand.Reader)
	case algEd25519:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	case algX25519:
		return ecdh.X25519().GenerateKey(rand.Reader)
	}
	return rsa.GenerateKey(rand.Reader, rsaBits[algorithm])
}

// moveKey moves a key to another slot that is empty, or deletes it (P1 is FF). The certificate stays where it is.
func (p *piv) moveKey(a apdu) ([]byte, status) {
	const away = 0xFF
	from, to := a.p2, a.p1
	switch {
	case !p.card.atLeast(5, 7, 0):
		return nil, swInstruction
	case !p.session.manager:
		return nil, swSecurity
	case to != away && (!holdsKey(from) || !holdsKey(to)), !holdsKey(from) && from != slotAttestation:
		return nil, swP1P2
	case p.keys[from] == nil:
		return nil, swNoReference
	case to != away && p.keys[to] != nil:
		return nil, swWrongData
	}
	if to != away {
		p.keys[to] = p.keys[from]
	}
	delete(p.keys, from)
	return nil, swOK
}

// Elements of a public key (SP 800-73-4 part 2, table 10).
const (
	tagModulus  = 0x81
	tagExponent = 0x82
	tagPoint    = 0x86
)

// public returns the elements of the public key.
func (k *key) public() []byte {
	switch private := k.private.(type) {
	case *rsa.PrivateKey:
		modulus := private.N.FillBytes(make([]byte, rsaBits[k.algorithm]/8))
		return appendTLV(appendTLV(nil, tagModulus, modulus...), tagExponent, 1, 0, 1)
	case *ecdsa.PrivateKey:
		point, err := private.PublicKey.Bytes()
		if err != nil {
			return nil
		}
		return appendTLV(nil, tagPoint, point...)
	case ed25519.PrivateKey:
		return appendTLV(nil, tagPoint, private.Public().(ed25519.PublicKey)...)
	case *ecdh.PrivateKey:
		return appendTLV(nil, tagPoint, private.PublicKey().Bytes()...)
	}
	return nil
}

// publicKey returns the public key as Go knows it.
func (k *key) publicKey() crypto.PublicKey {
	return k.private.(interface{ Public() crypto.PublicKey }).Public()
}
