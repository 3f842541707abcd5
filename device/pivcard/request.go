package pivcard

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"

	"tokendesk/device"
	"tokendesk/device/apdu"
	"tokendesk/vault/secret"
)

// Request implements device.PIV.
func (c *Card) Request(ctx context.Context, pin secret.Secret, slot device.PIVSlot, template *x509.CertificateRequest) ([]byte, error) {
	key, err := c.public(ctx, slot)
	if err != nil {
		return nil, err
	}
	if key.Algorithm == device.X25519 {
		return nil, fmt.Errorf("the key in slot %s cannot sign a request: %s only agrees on keys", slot, key.Algorithm)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, signer{ctx, c, key, pin})
	if err != nil {
		return nil, fmt.Errorf("cannot make a certificate request: %w", err)
	}
	request, err := x509.ParseCertificateRequest(der)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the signature does not fit the key in slot %s: %w", device.ErrCorrupt, slot, err)
	}
	return der, nil
}

// signer signs by the key in a slot.
type signer struct {
	ctx  context.Context
	card *Card
	key  device.PIVKey
	pin  secret.Secret
}

func (s signer) Public() crypto.PublicKey { return s.key.Public }

// digestPrefix comes before a digest that RSA signs (RFC 8017, section 9.2, note 1).
var digestPrefix = map[crypto.Hash][]byte{
	crypto.SHA256: []byte("\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"),
	crypto.SHA384: []byte("\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30"),
	crypto.SHA512: []byte("\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40"),
}

// Sign implements crypto.Signer. Cards sign what they are given: digests, or for RSA what they are padded to.
func (s signer) Sign(_ io.Reader, digest []byte, options crypto.SignerOpts) ([]byte, error) {
	switch public := s.key.Public.(type) {
	case *ecdsa.PublicKey:
		digest = digest[:min(len(digest), (public.Curve.Params().BitSize+7)/8)]
	case *rsa.PublicKey:
		prefix, known := digestPrefix[options.HashFunc()]
		if _, pss := options.(*rsa.PSSOptions); pss || !known {
			return nil, errors.New("the card signs for RSA by PKCS #1 v1.5 with SHA-256, SHA-384 or SHA-512 only")
		}
		tail := append(append([]byte{0}, prefix...), digest...)
		padding := bytes.Repeat([]byte{0xFF}, public.Size()-2-len(tail))
		digest = append(append([]byte{0, 1}, padding...), tail...)
	}
	algorithm, ok := code(algorithms, s.key.Algorithm)
	if !ok {
		return nil, fmt.Errorf("a key of an unknown kind in slot %s", s.key.Slot)
	}
	if s.key.PIN != device.PINNever { // also if the card does not tell; right before, as it may count for one signature only
		if err := s.card.VerifyPIN(s.ctx, s.pin); err != nil {
			return nil, err
		}
	}
	template := element(0x7C, append(element(0x82), element(0x81, digest...)...)...)
	answer, err := s.card.do(s.ctx, "sign by the key in slot "+s.key.Slot.String(), insAuthenticate, algorithm, byte(s.key.Slot), template)
	if apdu.Is(err, apdu.Denied) && s.key.Touch != device.TouchNever {
		return nil, fmt.Errorf("%w: %w", device.ErrNoTouch, err)
	}
	if err != nil {
		return nil, err
	}
	return dynamic(answer, 0x82, 0)
}
