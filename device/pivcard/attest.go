package pivcard

import (
	"context"
	"crypto/x509"
	_ "embed"
	"errors"
	"fmt"

	"github.com/go-piv/piv-go/v2/piv"

	"tokendesk/device"
	"tokendesk/device/apdu"
)

// emulatorRoot ends the attestations of emulated cards. It proves nothing: everybody can have its key.
//
//go:embed emulator-root.pem
var emulatorRoot []byte

// verifier knows the roots for a card: nil stands for Yubico's, which piv-go has.
func verifier(emulated bool) piv.Verifier {
	if !emulated {
		return piv.Verifier{}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(emulatorRoot)
	return piv.Verifier{Roots: pool}
}

// attestationObject holds the certificate of the key that attests.
const attestationObject = 0x5FFF01

// Attest implements device.PIV.
func (c *Card) Attest(ctx context.Context, slot device.PIVSlot) (device.PIVKey, error) {
	known, err := c.keyOf(ctx, slot)
	if err != nil {
		return device.PIVKey{}, err
	}
	if known == nil && c.hasMetadata() {
		return device.PIVKey{}, noKey(slot)
	}
	if known != nil && !known.Generated {
		return device.PIVKey{}, fmt.Errorf("%w: the key in slot %s was not generated on it", device.ErrAttestation, slot)
	}
	key, err := c.attest(ctx, slot, known)
	if apdu.Is(err, apdu.NotFound, apdu.NoReference, apdu.WrongData) {
		return device.PIVKey{}, fmt.Errorf("slot %s has no key that was generated on the card: %w", slot, err)
	}
	if err != nil {
		return device.PIVKey{}, err
	}
	if key.Certificate, _, err = c.certificate(ctx, slot); err != nil {
		return device.PIVKey{}, err
	}
	return key, nil
}

// attest has the card attest a key, and compares that with what it tells of it otherwise, if that is known. With
// ErrAttestation the public key is returned all the same, if there is one.
func (c *Card) attest(ctx context.Context, slot device.PIVSlot, known *device.PIVKey) (device.PIVKey, error) {
	if err := c.needs("attestation", 4, 3, 0); err != nil {
		return device.PIVKey{}, err
	}
	der, err := c.do(ctx, "attest slot "+slot.String(), insAttest, byte(slot), 0, nil)
	if err != nil {
		return device.PIVKey{}, err
	}
	statement, err := x509.ParseCertificate(der)
	if err != nil {
		return device.PIVKey{}, foreign(fmt.Errorf("its statement is not a certificate: %w", err))
	}
	key := device.PIVKey{PIVKeySpec: device.PIVKeySpec{Slot: slot}, Public: statement.PublicKey}
	if key.Public == nil { // crypto/x509 leaves out X25519
		key.Public, _ = x509.ParsePKIXPublicKey(statement.RawSubjectPublicKeyInfo)
	}
	key.Algorithm = algorithmOf(key.Public)
	object, err := c.object(ctx, attestationObject)
	if err != nil {
		return key, err
	}
	signer, err := parseCertificate(object)
	if err != nil {
		return key, foreign(fmt.Errorf("it has no certificate to attest with: %w", err))
	}
	v := verifier(c.emulated)
	said, err := v.Verify(signer, statement)
	if err != nil {
		return key, foreign(err)
	}
	key.Attested, key.Generated = true, true
	key.PIN, key.Touch = pinPolicies[byte(said.PINPolicy)], touchPolicies[byte(said.TouchPolicy)]
	if err := c.agrees(said, key, known); err != nil {
		return device.PIVKey{PIVKeySpec: device.PIVKeySpec{Slot: slot, Algorithm: key.Algorithm}, Public: key.Public}, foreign(err)
	}
	return key, nil
}

// agrees compares what was attested with what else the card tells.
func (c *Card) agrees(said *piv.Attestation, key device.PIVKey, known *device.PIVKey) error {
	firmware := device.Version{Major: uint8(said.Version.Major), Minor: uint8(said.Version.Minor), Build: uint8(said.Version.Patch)}
	switch {
	case said.Slot.Key != uint32(key.Slot):
		return fmt.Errorf("it is about slot %s, not %s", said.Slot, key.Slot)
	case device.Serial(said.Serial) != c.info.Serial && !(said.Serial == 0 && firmware.Major < 5): // those need not say
		return fmt.Errorf("it is about the card with serial %d, not %s", said.Serial, c.info.Serial)
	case firmware != c.info.Firmware:
		return fmt.Errorf("it is about firmware %s, not %s", firmware, c.info.Firmware)
	case key.Algorithm == "":
		return errors.New("it is about a key of an unknown kind")
	case known == nil:
		return nil
	case !same(key.Public, known.Public):
		return errors.New("it is about another key than the card has")
	case key.PIN != known.PIN || key.Touch != known.Touch:
		return fmt.Errorf("it says PIN %s and touch %s, the card PIN %s and touch %s", key.PIN, key.Touch, known.PIN, known.Touch)
	}
	return nil
}

// foreign says why an attestation is not accepted.
func foreign(err error) error {
	return &device.CureError{Err: fmt.Errorf("%w: %w", device.ErrAttestation, err), Cure: "use another key, and ask where this one came from"}
}
