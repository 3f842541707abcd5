package provision_test

import (
	"bytes"
	"compress/gzip"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"testing"

	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault/secret"
)

// object makes a data object with a tag of one byte.
func object(tag byte, value []byte) []byte {
	return append([]byte{tag, 0x82, byte(len(value) >> 8), byte(len(value))}, value...)
}

// planted stores a data object as the certificate of the first retired slot, as any program may do that knows the management key.
func (c *card) planted(t *testing.T, value []byte) {
	t.Helper()
	c.PowerUp()
	err := c.use(t.Context(), func(p device.PIV) error {
		if err := p.CheckManagementKey(t.Context(), secret.Secret{}); err != nil {
			return err
		}
		data := append([]byte{0x5C, 3, 0x5F, 0xC1, 0x0D}, object(0x53, value)...)
		for class := byte(0x10); class != 0; {
			n := min(len(data), 255)
			if n == len(data) {
				class = 0
			}
			if _, status, err := c.Transmit(append([]byte{class, 0xDB, 0x3F, 0xFF, byte(n)}, data[:n]...)); err != nil || status != 0x9000 {
				return fmt.Errorf("%04x, %w", status, err)
			}
			data = data[n:]
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// packed is a certificate as a card has it: compressed, so that there is room for a large one.
func packed(x *x509.Certificate) []byte {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write(x.Raw)
	w.Close()
	return append(object(0x70, z.Bytes()), 0x71, 1, 1)
}

// A holder cannot keep a card from being erased by a certificate that is too large to be kept.
func TestALargeCertificateStopsNoReset(t *testing.T) {
	ca := newIssuer(t)
	large := packed(ca.sign(&x509.Certificate{ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: make([]byte, 40000)}}}, ca.key.Public()))
	b := newCardBench(t, firmware5)
	b.enrolled(slot2, "alice")
	b.deliver()
	b.card.planted(t, large)
	if s := b.onIt(); len(s.Keys) != 1 || s.Keys[0].Slot != 0x82 || s.Keys[0].Certificate != nil {
		t.Fatalf("%+v", s.Keys)
	}
	if err := b.reissue(t.Context(), slot2, "bob"); err != nil {
		t.Error(err)
	}
	if s := b.onIt(); !s.Fresh() {
		t.Errorf("%+v", s.Keys)
	}
	b.card.planted(t, large)
	if _, err := b.provision(provision.PIVProvision{User: "bob", Overwrite: true}); err != nil {
		t.Error(err)
	}
}
