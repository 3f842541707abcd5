package smartcard

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
)

// Public keys of both kinds differ in their name only (RFC 8410, section 4).
const (
	spkiEd25519 = "\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"
	spkiX25519  = "\x30\x2a\x30\x05\x06\x03\x2b\x65\x6e\x03\x21\x00"
)

// certify signs a certificate for a public key. Package x509 makes none for X25519, so that one is made for an Ed25519 key of
// the same bytes, renamed, and signed again.
func certify(c, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) ([]byte, error) {
	x, ok := public.(*ecdh.PublicKey)
	if !ok {
		return x509.CreateCertificate(rand.Reader, c, parent, public, by)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, ed25519.PublicKey(x.Bytes()), by)
	if err != nil {
		return nil, err
	}
	var whole struct {
		Statement asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &whole); err != nil {
		return nil, err
	}
	statement := bytes.Replace(whole.Statement.FullBytes, append([]byte(spkiEd25519), x.Bytes()...), append([]byte(spkiX25519), x.Bytes()...), 1)
	signature, err := signAs(der, statement, by)
	if err != nil {
		return nil, err
	}
	whole.Statement = asn1.RawValue{FullBytes: statement}
	whole.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	return asn1.Marshal(whole)
}

// signAs signs a statement in the way that a certificate is signed.
func signAs(certificate, statement []byte, by crypto.Signer) ([]byte, error) {
	c, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil, err
	}
	var hash crypto.Hash
	switch c.SignatureAlgorithm {
	case x509.PureEd25519:
		return by.Sign(rand.Reader, statement, crypto.Hash(0))
	case x509.SHA256WithRSA, x509.ECDSAWithSHA256:
		hash = crypto.SHA256
	case x509.ECDSAWithSHA384:
		hash = crypto.SHA384
	default:
		return nil, errors.New("smartcard: no certificate is signed by " + c.SignatureAlgorithm.String())
	}
	h := hash.New()
	h.Write(statement)
	return by.Sign(rand.Reader, h.Sum(nil), hash)
}
