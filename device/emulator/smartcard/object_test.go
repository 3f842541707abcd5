package smartcard

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"testing"

	gopiv "github.com/go-piv/piv-go/v2/piv"
)

func TestObjects(t *testing.T) {
	object := func(id []byte, value ...byte) []byte {
		return append(appendTLV(nil, tagObjectList, id...), appendTLV(nil, tagObjectData, value...)...)
	}
	list := func(id []byte) []byte { return appendTLV(nil, tagObjectList, id...) }
	chuid, printed := []byte{0x5F, 0xC1, 2}, []byte{0x5F, 0xC1, 9}
	h := withPIV(t, "5.4.3")
	h.refused("00cb3fff", list(chuid), swNotFound)
	h.refused("00cb3fff", list([]byte{0x7F, 0x61}), swNotFound) // BITGP
	h.refused("00cb3fff", list(printed), swSecurity)
	h.refused("00cb3ffe", list(chuid), swP1P2)
	h.refused("00cb3fff", list(nil), swWrongData)
	h.refused("00cb3fff", append(list(chuid), 0), swWrongData)
	h.refused("00db3fff", object(chuid, 1), swSecurity)
	h.manage()
	h.must("00db3fff", object(chuid, 1, 2, 3))
	if got := h.must("00cb3fff", list(chuid)); !bytes.Equal(got, []byte{tagObjectData, 3, 1, 2, 3}) {
		t.Errorf("the object is %x", got)
	}
	h.must("00db3fff", object(printed, 4))
	h.refused("00cb3fff", list(printed), swSecurity)
	h.verify()
	if got := h.must("00cb3fff", list(printed)); !bytes.Equal(got, []byte{tagObjectData, 1, 4}) {
		t.Errorf("the object is %x", got)
	}
	h.must("00db3fff", object(chuid))
	h.refused("00cb3fff", list(chuid), swNotFound)
	h.refused("00db3fff", object([]byte{0x60, 0, 0}, 1), swWrongData)
	h.refused("00db3fff", object([]byte{0x7E}, 1), swWrongData)
	h.refused("00db3fff", list(chuid), swWrongData)

	most := bytes.Repeat([]byte{7}, objectSize)
	h.must("00db3fff", object(chuid, most...))
	h.refused("00db3fff", object(chuid, append(most, 7)...), swFull)
	full := status(0)
	for i := range byte(32) {
		if _, full = h.run("00db3fff", object([]byte{0x5F, 0xC1, 0x60 + i}, most...)); full != swOK {
			break
		}
	}
	if full != swFull {
		t.Errorf("%d bytes were taken", 32*objectSize)
	}
	h.must("00db3fff", object(chuid, 1)) // what is there can be replaced
}

func TestAttestation(t *testing.T) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(RootCertificate()) {
		t.Fatal("the root is no certificate")
	}
	chain := func(h host, slot string) (*x509.Certificate, error) {
		t.Helper()
		leaf, err := x509.ParseCertificate(h.must("00f9"+slot+"00", nil))
		if err != nil {
			t.Fatal(err)
		}
		object, ok := inner(h.must("00cb3fff", []byte{0x5C, 3, 0x5F, 0xFF, 1}), tagObjectData)
		der, _ := object.get(tagCertificate)
		c, err := x509.ParseCertificate(der)
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		between := x509.NewCertPool()
		between.AddCert(c)
		_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if err != nil {
			return leaf, err
		}
		want := gopiv.Attestation{
			Version: gopiv.Version{Major: 5, Minor: 7, Patch: 1}, Serial: 12345678, Formfactor: gopiv.FormfactorUSBAKeychain,
			PINPolicy: gopiv.PINPolicyAlways, TouchPolicy: gopiv.TouchPolicyCached,
		}
		verifier := gopiv.Verifier{Roots: roots}
		a, err := verifier.Verify(c, leaf)
		if err != nil {
			t.Fatal(err)
		}
		if a.Slot.String() != slot {
			t.Errorf("the slot is %v", a.Slot)
		}
		if a.Slot = (gopiv.Slot{}); *a != want {
			t.Errorf("slot %s attests %+v", slot, *a)
		}
		return leaf, nil
	}
	h := withPIV(t, "5.7.1")
	h.manage()
	for algorithm, slot := range map[byte]string{algECCP256: "9a", algECCP384: "9c", algRSA2048: "9d", algEd25519: "9e", algX25519: "82"} {
		h.newKey(unhex(t, slot)[0], algorithm, pinAlways, touchCached)
		leaf, err := chain(h, slot)
		if err != nil {
			t.Fatalf("%s: %v", slot, err)
		}
		if got := leaf.Subject.CommonName; got != "YubiKey PIV Attestation "+slot {
			t.Errorf("the subject is %s", got)
		}
		for _, want := range []struct {
			id    asn1.ObjectIdentifier
			value []byte
		}{
			{oidFirmware, []byte{5, 7, 1}}, {oidSerial, []byte{2, 4, 0, 0xBC, 0x61, 0x4E}},
			{oidPolicy, []byte{pinAlways, touchCached}}, {oidFormFactor, []byte{1}},
		} {
			i := slices.IndexFunc(leaf.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(want.id) })
			if i < 0 || !bytes.Equal(leaf.Extensions[i].Value, want.value) {
				t.Errorf("slot %s: extension %v is missing or wrong", slot, want.id)
			}
		}
	}
	h.want("00f99b0000", "6a86")
	h.want("00f9830000", "6a80")
	if err := h.card.SetFault(FaultForeignRoot, 0); err != nil {
		t.Fatal(err)
	}
	leaf, err := chain(h, "9a")
	if err == nil {
		t.Error("a foreign root is accepted")
	}
	if leaf.Issuer.CommonName != "Emulated PIV Attestation" {
		t.Errorf("the issuer is %v", leaf.Issuer)
	}
}
