package pivcard

import (
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-piv/piv-go/v2/piv"

	"tokendesk/device"
	"tokendesk/device/apdu"
	"tokendesk/device/emulator/smartcard"
	"tokendesk/device/management"
)

func TestEmulatorsRootIsPinned(t *testing.T) {
	if !bytes.Equal(emulatorRoot, smartcard.RootCertificate()) {
		t.Error("emulated cards attest by another root")
	}
}

// genuine are the certificates of a YubiKey 5.4.3 and of what it attests, as piv-go's tests have them.
func genuine(t *testing.T) (signer, statement *x509.Certificate) {
	t.Helper()
	text, err := os.ReadFile("testdata/genuine.pem")
	if err != nil {
		t.Fatal(err)
	}
	var all []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all[0], all[1]
}

// A genuine card is accepted as hardware only; an emulated one that shows what a genuine card has said is refused.
func TestRoots(t *testing.T) {
	signer, statement := genuine(t)
	hardware, emulated := verifier(false), verifier(true)
	if said, err := hardware.Verify(signer, statement); err != nil || said.Slot.Key != 0x9A {
		t.Errorf("%+v, %v", said, err)
	}
	if _, err := emulated.Verify(signer, statement); err == nil {
		t.Error("an emulated card shows a genuine attestation")
	}
}

func TestAttestationAgrees(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(c *Card, said *piv.Attestation, key, known *device.PIVKey){
		"":                                func(*Card, *piv.Attestation, *device.PIVKey, *device.PIVKey) {},
		"it is about slot 9c, not 9a":     func(_ *Card, said *piv.Attestation, _, _ *device.PIVKey) { said.Slot = piv.SlotSignature },
		"with serial 8, not 7":            func(_ *Card, said *piv.Attestation, _, _ *device.PIVKey) { said.Serial = 8 },
		"with serial 0, not 7":            func(_ *Card, said *piv.Attestation, _, _ *device.PIVKey) { said.Serial = 0 },
		"about firmware 5.4.2, not 5.4.3": func(_ *Card, said *piv.Attestation, _, _ *device.PIVKey) { said.Version.Patch = 2 },
		"a key of an unknown kind":        func(_ *Card, _ *piv.Attestation, key, _ *device.PIVKey) { key.Algorithm = "" },
		"another key than the card has":   func(_ *Card, _ *piv.Attestation, _, known *device.PIVKey) { known.Public = other.Public() },
		"it says PIN once and touch never, the card PIN never": func(_ *Card, _ *piv.Attestation, _, known *device.PIVKey) { known.PIN = device.PINNever },
		"the card PIN once and touch always":                   func(_ *Card, _ *piv.Attestation, _, known *device.PIVKey) { known.Touch = device.TouchAlways },
	} {
		c := &Card{info: management.Info{Serial: 7, Firmware: device.Version{Major: 5, Minor: 4, Build: 3}}}
		said := &piv.Attestation{Version: piv.Version{Major: 5, Minor: 4, Patch: 3}, Serial: 7, Slot: piv.SlotAuthentication}
		spec := device.PIVKeySpec{Slot: 0x9A, Algorithm: device.ECCP256, PIN: device.PINOnce, Touch: device.TouchNever}
		attested := device.PIVKey{PIVKeySpec: spec, Public: key.Public()}
		known := attested
		change(c, said, &attested, &known)
		err := c.agrees(said, attested, &known)
		if want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, not %q", err, want)
		}
	}
	old := &Card{info: management.Info{Serial: 7, Firmware: device.Version{Major: 4, Minor: 3, Build: 7}}}
	said := &piv.Attestation{Version: piv.Version{Major: 4, Minor: 3, Patch: 7}, Slot: piv.SlotAuthentication}
	if err := old.agrees(said, device.PIVKey{PIVKeySpec: device.PIVKeySpec{Slot: 0x9A, Algorithm: device.ECCP256}}, nil); err != nil {
		t.Errorf("a YubiKey 4 that does not say its serial: %v", err)
	}
}

func TestCompressedCertificate(t *testing.T) {
	_, want := genuine(t)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(want.Raw)
	z.Close()
	object := append(element(tagCertificate, packed.Bytes()...), element(tagInfo, 1)...)
	if got, err := parseCertificate(object); err != nil || !want.Equal(got) {
		t.Error(err)
	}
	packed.Reset()
	z.Reset(&packed)
	z.Write(make([]byte, 4*maxCertificate)) // of which a part is read
	z.Close()
	if _, err := parseCertificate(append(element(tagCertificate, packed.Bytes()...), element(tagInfo, 1)...)); err == nil {
		t.Error("zeros are a certificate")
	}
	large, err := x509.ParseCertificate(inflatable(t))
	if err != nil || len(large.Raw) <= maxCertificate {
		t.Fatalf("%v, %d bytes", err, len(large.Raw))
	}
	packed.Reset()
	z.Reset(&packed)
	z.Write(large.Raw)
	z.Close()
	if packed.Len() > maxObject {
		t.Fatalf("no card has room for %d bytes", packed.Len())
	}
	for name, object := range map[string][]byte{
		"compressed": append(element(tagCertificate, packed.Bytes()...), element(tagInfo, 1)...),
		"plain":      append(element(tagCertificate, large.Raw...), element(tagInfo, 0)...),
	} {
		if _, err := parseCertificate(object); !errors.Is(err, device.ErrCorrupt) {
			t.Errorf("%s, of %d bytes: %v", name, len(large.Raw), err)
		}
	}
	if _, err := parseCertificate(append(element(tagCertificate, want.Raw...), element(tagInfo, 1)...)); err == nil {
		t.Error("it is not compressed")
	}
}

// inflatable is a certificate that is larger than what is kept, and small when it is compressed.
func inflatable(t *testing.T) []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: make([]byte, maxCertificate)}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestElements(t *testing.T) {
	for _, size := range []int{0, 1, 0x7F, 0x80, 0xFF, 0x100, 0xFFFF} {
		want := bytes.Repeat([]byte{0xAB}, size)
		if got, err := inside(element(0x53, want...), 0x53); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: %d, %v", size, len(got), err)
		}
	}
	if all, err := elements([]byte("\x7f\x49\x01\x01\x86\x82\x00\x01\x02")); err != nil || fmt.Sprint(all) != "map[134:[2] 32585:[1]]" {
		t.Errorf("%v, %v", all, err)
	}
	for _, text := range []string{"\x53", "\x7f", "\x7f\x49", "\x53\x01", "\x53\x80", "\x53\x81", "\x53\x82\x01", "\x53\x83\x00\x00\x00", "\x53\x00\x00"} {
		if _, err := elements([]byte(text)); !errors.Is(err, device.ErrCorrupt) {
			t.Errorf("%x: %v", text, err)
		}
	}
	for _, text := range []string{"\x54\x00", "\x53\x00\x53\x00", ""} {
		if _, err := inside([]byte(text), 0x53); !errors.Is(err, device.ErrCorrupt) {
			t.Errorf("%x: %v", text, err)
		}
	}
}

func TestSlots(t *testing.T) {
	all := slots()
	if len(all) != 24 || all[0] != 0x82 || all[23] != device.PIVCardAuthentication {
		t.Error(all)
	}
	for _, s := range all {
		if slot, err := slotOf(s); err != nil || slot.Key != uint32(s) || slot.Object == 0 {
			t.Errorf("%s: %v, %v", s, slot, err)
		}
	}
	if _, err := slotOf(0xF9); err == nil {
		t.Error("keys can be put where the card attests from")
	}
}

func TestStatusesAreExplained(t *testing.T) {
	for s, want := range map[apdu.Status]string{apdu.Blocked: "the card refuses: blocked (status 6983)", 0x1234: "the card refuses: for a reason of its own (status 1234)"} {
		if s.Error() != want {
			t.Errorf("%q, not %q", s.Error(), want)
		}
	}
}

// Whatever a card says is refused, or makes sense.
func FuzzAnswers(f *testing.F) {
	_, statement := &x509.Certificate{}, &x509.Certificate{Raw: []byte{0x30, 0x00}}
	for _, seed := range []string{
		"\x01\x01\x11\x02\x02\x02\x01\x03\x01\x01\x04\x02\x86\x00", "\x01\x01\xff\x05\x01\x01\x06\x02\x03\x03",
		"\x7f\x49\x82\x00\x03\x86\x01\x04", "\x53\x05\x70\x00\x71\x01\x01", "\x7c\x0a\x82\x08abcdefgh", "\x70\x02" + string(statement.Raw),
	} {
		f.Add([]byte(seed))
	}
	for _, a := range algorithms {
		f.Add([]byte(a))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		begin := time.Now()
		for tag, value := range must(elements(b)) {
			if tag < 0 || len(value) > len(b) {
				t.Fatalf("tag %x with %d bytes of %d", tag, len(value), len(b))
			}
		}
		for _, algorithm := range algorithms {
			if key, err := parsePublic(algorithm, b); err == nil && algorithmOf(key) == "" && algorithm[:3] != "rsa" {
				t.Fatalf("%T as %s", key, algorithm)
			}
		}
		if key, err := keyFrom(0x9A, must(elements(b))); err == nil && key.Algorithm == "" {
			t.Fatal("a key of no algorithm")
		}
		if value, err := dynamic(b, 0x82, 8); err == nil && len(value) != 8 {
			t.Fatalf("%d bytes, not 8", len(value))
		}
		if c, err := parseCertificate(b); err == nil && c == nil {
			t.Fatal("no certificate, and no error")
		}
		if d := time.Since(begin); d > 5*time.Second {
			t.Fatalf("it took %v", d)
		}
	})
}

func must(all map[int][]byte, err error) map[int][]byte {
	if err != nil {
		return nil
	}
	return all
}

func TestPublicKeysThatAreNone(t *testing.T) {
	even := new(big.Int).Lsh(big.NewInt(1), 2047)
	for name, b := range map[string][]byte{
		"an even modulus":   append(element(0x81, even.Bytes()...), element(0x82, 1, 0, 1)...),
		"a short modulus":   append(element(0x81, 3), element(0x82, 1, 0, 1)...),
		"no exponent":       element(0x81, new(big.Int).Add(even, big.NewInt(1)).Bytes()...),
		"a large exponent":  append(element(0x81, new(big.Int).Add(even, big.NewInt(1)).Bytes()...), element(0x82, 1, 0, 0, 0, 1)...),
		"no point":          element(0x86),
		"an infinite point": element(0x86, 0),
		"beside the curve":  element(0x86, append([]byte{4}, make([]byte, 64)...)...),
	} {
		for _, algorithm := range []device.PIVAlgorithm{device.RSA2048, device.ECCP256, device.ECCP384, device.Ed25519, device.X25519} {
			if _, err := parsePublic(algorithm, b); !errors.Is(err, device.ErrCorrupt) {
				t.Errorf("%s as %s: %v", name, algorithm, err)
			}
		}
	}
}
