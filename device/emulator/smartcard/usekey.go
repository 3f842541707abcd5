package smartcard

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"time"
)

// authenticate is GENERAL AUTHENTICATE: it shows the management key, or uses a private one.
func (p *piv) authenticate(a apdu) ([]byte, status) {
	t, ok := inner(a.data, tagTemplate)
	if !ok {
		return nil, swWrongData
	}
	if a.p2 == refManagement {
		return p.authenticateManager(a, t)
	}
	if !holdsKey(a.p2) {
		return nil, swP1P2
	}
	k := p.keys[a.p2]
	switch {
	case k == nil:
		return nil, swWrongData
	case !p.pinAllows(k.pin):
		return nil, swSecurity
	case k.algorithm != a.p1:
		return nil, swWrongData
	case !p.touchAllows(k.touch):
		return nil, swSecurity
	}
	p.session.fresh = false // whatever comes of it
	result, ok := k.use(t)
	if !ok {
		return nil, swWrongData
	}
	return template(tagResponse, result), swOK
}

func (p *piv) pinAllows(policy byte) bool {
	switch policy {
	case pinNever:
		return true
	case pinAlways:
		return p.session.pin && p.session.fresh
	}
	return p.session.pin
}

func (p *piv) touchAllows(policy byte) bool {
	if policy == touchNever || policy == touchCached && !p.card.touched.IsZero() && time.Since(p.card.touched) < touchCache {
		return true
	}
	return p.card.waitForTouch()
}

// use signs, decrypts (both are one for RSA), or agrees on a secret.
func (k *key) use(t tlvs) ([]byte, bool) {
	if data, ok := t.get(tagChallenge); ok {
		return k.sign(data)
	}
	if peer, ok := t.get(tagExponentiation); ok {
		return k.agree(peer)
	}
	return nil, false
}

func (k *key) sign(data []byte) ([]byte, bool) {
	switch private := k.private.(type) {
	case *rsa.PrivateKey:
		return rawRSA(private, data, rsaBits[k.algorithm]/8)
	case *ecdsa.PrivateKey:
		if len(data) == 0 || len(data) > private.Params().BitSize/8 {
			return nil, false
		}
		signature, err := ecdsa.SignASN1(rand.Reader, private, data)
		return signature, err == nil
	case ed25519.PrivateKey:
		signature, err := private.Sign(nil, data, crypto.Hash(0))
		return signature, err == nil
	}
	return nil, false
}

// rawRSA applies the private key to data of the size of the modulus, with no padding.
func rawRSA(private *rsa.PrivateKey, data []byte, size int) ([]byte, bool) {
	m := new(big.Int).SetBytes(data)
	if len(data) != size || m.Cmp(private.N) >= 0 {
		return nil, false
	}
	p, q := private.Primes[0], private.Primes[1]
	one := big.NewInt(1)
	power := func(prime *big.Int) *big.Int {
		e := new(big.Int).Mod(private.D, new(big.Int).Sub(prime, one))
		return new(big.Int).Exp(m, e, prime)
	}
	mp, mq := power(p), power(q)
	// Garner: mq + q ((mp − mq) / q mod p).
	h := mp.Sub(mp, mq)
	h.Mul(h, new(big.Int).ModInverse(q, p)).Mod(h, p)
	return h.Mul(h, q).Add(h, mq).FillBytes(make([]byte, size)), true
}

func (k *key) agree(peer []byte) ([]byte, bool) {
	var private *ecdh.PrivateKey
	switch own := k.private.(type) {
	case *ecdsa.PrivateKey:
		var err error
		if private, err = own.ECDH(); err != nil {
			return nil, false
		}
	case *ecdh.PrivateKey:
		private = own
	default:
		return nil, false
	}
	public, err := private.Curve().NewPublicKey(peer)
	if err != nil {
		return nil, false
	}
	secret, err := private.ECDH(public)
	return secret, err == nil
}
