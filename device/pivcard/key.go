package pivcard

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"math/big"

	"github.com/go-piv/piv-go/v2/piv"

	"tokendesk/device"
	"tokendesk/vault/secret"
)

// rsa1024 is generated no more, but a card may have such keys.
const rsa1024 device.PIVAlgorithm = "rsa1024"

// algorithms are the cards' numbers of ours (SP 800-78-4, table 6-2, and Yubico's extensions).
var algorithms = map[byte]device.PIVAlgorithm{
	0x06: rsa1024, 0x07: device.RSA2048, 0x05: device.RSA3072, 0x16: device.RSA4096,
	0x11: device.ECCP256, 0x14: device.ECCP384, 0xE0: device.Ed25519, 0xE1: device.X25519,
}

var (
	pinPolicies   = map[byte]device.PINPolicy{1: device.PINNever, 2: device.PINOnce, 3: device.PINAlways}
	touchPolicies = map[byte]device.TouchPolicy{1: device.TouchNever, 2: device.TouchAlways, 3: device.TouchCached}
)

// code finds the card's number of a name.
func code[T comparable](codes map[byte]T, name T) (byte, bool) {
	for n, other := range codes {
		if other == name {
			return n, true
		}
	}
	return 0, false
}

// slot finds a slot in piv-go's table, which knows the data object of its certificate.
func slotOf(s device.PIVSlot) (piv.Slot, error) {
	for _, slot := range []piv.Slot{piv.SlotAuthentication, piv.SlotSignature, piv.SlotKeyManagement, piv.SlotCardAuthentication} {
		if slot.Key == uint32(s) {
			return slot, nil
		}
	}
	if slot, ok := piv.RetiredKeyManagementSlot(uint32(s)); ok {
		return slot, nil
	}
	return piv.Slot{}, fmt.Errorf("%s is not a PIV slot for keys", s)
}

// slots are all that keys can be in, in their order.
func slots() (all []device.PIVSlot) {
	for s := device.PIVSlot(0x82); s <= device.PIVCardAuthentication; s++ {
		if s.Valid() {
			all = append(all, s)
		}
	}
	return all
}

// Generate implements device.PIV. A policy that is empty is left to the card.
func (c *Card) Generate(ctx context.Context, management secret.Secret, spec device.PIVKeySpec) (crypto.PublicKey, error) {
	slot, err := slotOf(spec.Slot)
	if err != nil {
		return nil, err
	}
	algorithm, ok := code(algorithms, spec.Algorithm)
	if !ok || spec.Algorithm == rsa1024 {
		return nil, fmt.Errorf("%q is not an algorithm of keys", spec.Algorithm)
	}
	template := element(0x80, algorithm)
	if spec.PIN != "" {
		policy, ok := code(pinPolicies, spec.PIN)
		if !ok {
			return nil, fmt.Errorf("%q is not a PIN policy", spec.PIN)
		}
		template = append(template, element(0xAA, policy)...)
	}
	if spec.Touch != "" {
		policy, ok := code(touchPolicies, spec.Touch)
		if !ok {
			return nil, fmt.Errorf("%q is not a touch policy", spec.Touch)
		}
		template = append(template, element(0xAB, policy)...)
	}
	if err := spec.Supported(c.info.Firmware); err != nil {
		return nil, err
	}
	if err := c.authenticate(ctx, management); err != nil {
		return nil, err
	}
	answer, err := c.do(ctx, "generate a key in slot "+spec.Slot.String(), insGenerate, 0, byte(slot.Key), element(0xAC, template...))
	if err != nil {
		return nil, err
	}
	value, err := inside(answer, 0x7F49)
	if err != nil {
		return nil, err
	}
	return parsePublic(spec.Algorithm, value)
}

// parsePublic reads a public key as cards give it (SP 800-73-4 part 2, table 11).
func parsePublic(algorithm device.PIVAlgorithm, b []byte) (crypto.PublicKey, error) {
	all, err := elements(b)
	if err != nil {
		return nil, err
	}
	point := all[0x86]
	var key crypto.PublicKey
	switch algorithm {
	case device.ECCP256:
		key, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	case device.ECCP384:
		key, err = ecdsa.ParseUncompressedPublicKey(elliptic.P384(), point)
	case device.X25519:
		key, err = ecdh.X25519().NewPublicKey(point)
	case device.Ed25519:
		key = ed25519.PublicKey(point)
		if len(point) != ed25519.PublicKeySize {
			err = fmt.Errorf("a point of %d bytes", len(point))
		}
	default:
		key, err = parseRSA(all[0x81], all[0x82])
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the public key: %w", device.ErrCorrupt, err)
	}
	return key, nil
}

func parseRSA(modulus, exponent []byte) (*rsa.PublicKey, error) {
	n, e := new(big.Int).SetBytes(modulus), new(big.Int).SetBytes(exponent)
	if n.BitLen() < 1024 || n.BitLen() > 4096 || n.Bit(0) == 0 || e.BitLen() < 2 || e.BitLen() > 31 {
		return nil, fmt.Errorf("a modulus of %d bits, an exponent of %d", n.BitLen(), e.BitLen())
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

// algorithmOf names the algorithm of a public key; empty: none that cards have.
func algorithmOf(key crypto.PublicKey) device.PIVAlgorithm {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return map[int]device.PIVAlgorithm{1024: rsa1024, 2048: device.RSA2048, 3072: device.RSA3072, 4096: device.RSA4096}[key.N.BitLen()]
	case *ecdsa.PublicKey:
		return map[elliptic.Curve]device.PIVAlgorithm{elliptic.P256(): device.ECCP256, elliptic.P384(): device.ECCP384}[key.Curve]
	case ed25519.PublicKey:
		return device.Ed25519
	case *ecdh.PublicKey:
		if key.Curve() == ecdh.X25519() {
			return device.X25519
		}
	}
	return ""
}

// same tells whether two public keys are one.
func same(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
