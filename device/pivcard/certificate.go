package pivcard

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"fmt"
	"io"

	"tokendesk/device"
	"tokendesk/device/apdu"
	"tokendesk/vault/secret"
)

// Tags of a certificate's data object (SP 800-73-4 part 1, table 10).
const (
	tagObject      = 0x53
	tagCertificate = 0x70
	tagInfo        = 0x71 // 1: compressed
	tagCheck       = 0xFE // empty
)

// Bounds of a certificate: what YubiKeys from firmware 4 on have room for, and what is read, also of a compressed one: who
// keeps certificates keeps no larger ones.
const (
	maxObject      = 3052
	maxCertificate = 16 << 10
)

// certificate reads the certificate of a slot. present: there is something, even if it is not a certificate.
func (c *Card) certificate(ctx context.Context, slot device.PIVSlot) (certificate *x509.Certificate, present bool, err error) {
	s, err := slotOf(slot)
	if err != nil {
		return nil, false, err
	}
	object, err := c.object(ctx, s.Object)
	if err != nil || len(object) == 0 {
		return nil, false, err
	}
	certificate, err = parseCertificate(object)
	if err != nil {
		return nil, true, nil // it can be overwritten all the same
	}
	return certificate, true, nil
}

// object reads a data object; nil: there is none.
func (c *Card) object(ctx context.Context, id uint32) ([]byte, error) {
	answer, err := c.do(ctx, fmt.Sprintf("read object %x", id), insGetData, 0x3F, 0xFF, name(id))
	if apdu.Is(err, apdu.NotFound, apdu.NoReference) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return inside(answer, tagObject)
}

func name(id uint32) []byte { return element(0x5C, byte(id>>16), byte(id>>8), byte(id)) }

func parseCertificate(object []byte) (*x509.Certificate, error) {
	all, err := elements(object)
	if err != nil {
		return nil, err
	}
	der := all[tagCertificate]
	if info := all[tagInfo]; len(info) == 1 && info[0] == 1 {
		z, err := gzip.NewReader(bytes.NewReader(der))
		if err != nil {
			return nil, err
		}
		if der, err = io.ReadAll(io.LimitReader(z, maxCertificate+1)); err != nil {
			return nil, err
		}
	}
	if len(der) > maxCertificate {
		return nil, fmt.Errorf("%w: a certificate of more than %d bytes", device.ErrCorrupt, maxCertificate)
	}
	return x509.ParseCertificate(der)
}

// SetCertificate implements device.PIV.
func (c *Card) SetCertificate(ctx context.Context, management secret.Secret, slot device.PIVSlot, certificate *x509.Certificate) error {
	s, err := slotOf(slot)
	if err != nil {
		return err
	}
	value := append(element(tagCertificate, certificate.Raw...), element(tagInfo, 0)...)
	object := element(tagObject, append(value, element(tagCheck)...)...)
	tooLarge := &device.CureError{
		Err:  fmt.Errorf("the certificate is too large for the card: %d bytes", len(certificate.Raw)),
		Cure: "have it issued without what it does not need; a card has room for about 3000 bytes",
	}
	if len(object) > maxObject {
		return tooLarge
	}
	if err := c.authenticate(ctx, management); err != nil {
		return err
	}
	_, err = c.do(ctx, "store the certificate in slot "+slot.String(), insPutData, 0x3F, 0xFF, append(name(s.Object), object...))
	if apdu.Is(err, apdu.Full, apdu.WrongLength) {
		return tooLarge
	}
	return err
}
