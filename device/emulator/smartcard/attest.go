package smartcard

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"sync"
	"time"
)

// RootCertificate returns the root that attestations of emulated cards end in, as PEM.
func RootCertificate() []byte { return []byte(rootCertificate) }

// authority can sign certificates.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

var knownRoot = sync.OnceValue(func() authority {
	certificate, _ := pem.Decode([]byte(rootCertificate))
	private, _ := pem.Decode([]byte(rootKey))
	c, err := x509.ParseCertificate(certificate.Bytes)
	if err != nil {
		panic("smartcard: the root certificate is damaged: " + err.Error())
	}
	k, err := x509.ParsePKCS8PrivateKey(private.Bytes)
	if err != nil {
		panic("smartcard: the root key is damaged: " + err.Error())
	}
	return authority{c, k.(crypto.Signer)}
})

// attestation is the key and certificate of slot F9, with which a card signs what it attests.
type attestation struct {
	key         *key
	certificate *x509.Certificate
}

// foreignAttestation is one under a root that nobody knows, of the name of the one that is.
var foreignAttestation = sync.OnceValue(func() attestation {
	k := newAttestationKey()
	root := *knownRoot().certificate
	root.PublicKey = nil // it has another one
	return newAttestation(authority{mustSign(&root, &root, k.publicKey(), k.signer()), k.signer()})
})

// Validity of the certificates on YubiKeys.
var (
	validFrom = time.Date(2016, 3, 14, 0, 0, 0, 0, time.UTC)
	validTo   = time.Date(2052, 4, 17, 0, 0, 0, 0, time.UTC)
)

func newAttestation(root authority) attestation {
	k := newAttestationKey()
	c := mustSign(&x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: "Emulated PIV Attestation"},
		NotBefore:             validFrom,
		NotAfter:              validTo,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}, root.certificate, k.publicKey(), root.key)
	return attestation{k, c}
}

func newAttestationKey() *key {
	private, err := generateKey(algECCP256)
	if err != nil {
		panic("smartcard: no key can be made: " + err.Error())
	}
	return &key{algorithm: algECCP256, pin: pinOnce, touch: touchNever, generated: true, private: private}
}

// mustSign signs with parts that were all made here.
func mustSign(c, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, c, parent, public, by)
	if err != nil {
		panic("smartcard: no certificate can be signed: " + err.Error())
	}
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		panic("smartcard: a certificate is damaged: " + err.Error())
	}
	return signed
}

func (k *key) signer() crypto.Signer {
	s, _ := k.private.(crypto.Signer)
	return s
}

func newSerial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] = b[0]&0x7F | 1
	return new(big.Int).SetBytes(b)
}

// Elements of an object that holds a certificate (SP 800-73-4 part 1, table 10).
const (
	tagCertificate = 0x70
	tagCertInfo    = 0x71
	tagErrorCode   = 0xFE
)

func certificateObject(der []byte) []byte {
	b := appendTLV(nil, tagCertificate, der...)
	return appendTLV(appendTLV(b, tagCertInfo, 0), tagErrorCode)
}

// Extensions of attestations (Yubico, PIV attestation).
var (
	oidFirmware   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 3}
	oidSerial     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 7}
	oidPolicy     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 8}
	oidFormFactor = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 9}
)

// attest signs a certificate for a key that was generated on the card.
func (p *piv) attest(a apdu) ([]byte, status) {
	switch {
	case !p.card.atLeast(4, 3, 0):
		return nil, swInstruction
	case !holdsKey(a.p1) || a.p2 != 0:
		return nil, swP1P2
	}
	k := p.keys[a.p1]
	if k == nil || !k.generated {
		return nil, swWrongData
	}
	by, ok := p.attestation()
	if !ok {
		return nil, swConditions
	}
	der, err := certify(p.statement(a.p1, k), by.certificate, k.publicKey(), by.key.signer())
	if err != nil { // somebody has put a key into F9 that does not sign, or not the one of its certificate
		return nil, swConditions
	}
	return der, swOK
}

// attestation finds what the card attests with.
func (p *piv) attestation() (attestation, bool) {
	if p.card.faults.active(FaultForeignRoot) {
		return foreignAttestation(), true
	}
	k := p.keys[slotAttestation]
	t, ok := parseTLVs(p.objects[objAttestation])
	if k == nil || k.signer() == nil || !ok {
		return attestation{}, false
	}
	der, _ := t.get(tagCertificate)
	c, err := x509.ParseCertificate(der)
	return attestation{k, c}, err == nil
}

// statement is what the card says of a key.
func (p *piv) statement(slot byte, k *key) *x509.Certificate {
	v := p.card.firmware
	serial, err := asn1.Marshal(int64(p.card.serial))
	if err != nil {
		panic("smartcard: a serial cannot be encoded: " + err.Error())
	}
	return &x509.Certificate{
		SerialNumber: newSerial(),
		Subject:      pkix.Name{CommonName: fmt.Sprintf("YubiKey PIV Attestation %02x", slot)},
		NotBefore:    validFrom,
		NotAfter:     validTo,
		ExtraExtensions: []pkix.Extension{
			{Id: oidFirmware, Value: []byte{v.Major, v.Minor, v.Build}},
			{Id: oidSerial, Value: serial},
			{Id: oidPolicy, Value: []byte{k.pin, k.touch}},
			{Id: oidFormFactor, Value: []byte{byte(p.card.form)}},
		},
	}
}
