package smartcard

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"math/big"
)

// Elements of a private key (Yubico's extensions to PIV).
const (
	tagPrime1        = 0x01
	tagPrime2        = 0x02
	tagExponent1     = 0x03
	tagExponent2     = 0x04
	tagCoefficient   = 0x05
	tagScalar        = 0x06
	tagEd25519Seed   = 0x07
	tagX25519Private = 0x08
)

// publicExponent is the only one that cards know.
const publicExponent = 65537

// primality is how often primes are tested, besides by Baillie and PSW.
const primality = 0

// importKey puts a key into a slot that was made elsewhere.
func (p *piv) importKey(a apdu) ([]byte, status) {
	switch {
	case !holdsKey(a.p2) && a.p2 != slotAttestation:
		return nil, swP1P2
	case !p.session.manager:
		return nil, swSecurity
	case !p.supports(a.p1):
		return nil, swWrongData
	}
	t, ok := parseTLVs(a.data)
	if !ok {
		return nil, swWrongData
	}
	k := &key{algorithm: a.p1}
	if k.pin, k.touch, ok = p.policies(a.p2, t); !ok {
		return nil, swWrongData
	}
	if k.private, ok = parsePrivate(a.p1, t); !ok {
		return nil, swWrongData
	}
	p.keys[a.p2] = k
	return nil, swOK
}

func parsePrivate(algorithm byte, t tlvs) (crypto.PrivateKey, bool) {
	switch algorithm {
	case algECCP256, algECCP384:
		scalar, _ := t.get(tagScalar)
		private, err := ecdsa.ParseRawPrivateKey(curves[algorithm], scalar)
		return private, err == nil
	case algEd25519:
		seed, _ := t.get(tagEd25519Seed)
		if len(seed) != ed25519.SeedSize {
			return nil, false
		}
		return ed25519.NewKeyFromSeed(seed), true
	case algX25519:
		b, _ := t.get(tagX25519Private)
		private, err := ecdh.X25519().NewPrivateKey(b)
		return private, err == nil
	}
	return parseRSA(rsaBits[algorithm], t)
}

// parseRSA reads the five numbers of a private key. Keys whose modulus is shorter than it should be are taken, as cards do.
func parseRSA(bits int, t tlvs) (crypto.PrivateKey, bool) {
	var numbers [5]*big.Int
	for i := range numbers {
		b, ok := t.get(tagPrime1 + uint32(i))
		if !ok || len(b) > bits/16 {
			return nil, false
		}
		numbers[i] = new(big.Int).SetBytes(b)
	}
	p, q := numbers[0], numbers[1]
	if p.Cmp(q) == 0 || p.Bit(0) == 0 || q.Bit(0) == 0 || !p.ProbablyPrime(primality) || !q.ProbablyPrime(primality) {
		return nil, false
	}
	one := big.NewInt(1)
	p1, q1 := new(big.Int).Sub(p, one), new(big.Int).Sub(q, one)
	d := new(big.Int).ModInverse(big.NewInt(publicExponent), new(big.Int).Mul(p1, q1))
	if d == nil {
		return nil, false
	}
	same := func(i int, want *big.Int) bool { return want != nil && numbers[i].Cmp(want) == 0 }
	mod := func(m *big.Int) *big.Int { return new(big.Int).Mod(d, m) }
	if !same(tagExponent1-1, mod(p1)) || !same(tagExponent2-1, mod(q1)) || !same(tagCoefficient-1, new(big.Int).ModInverse(q, p)) {
		return nil, false
	}
	private := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: publicExponent},
		D:         d,
		Primes:    []*big.Int{p, q},
	}
	private.Precompute()
	return private, true
}
