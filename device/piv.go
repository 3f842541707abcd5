package device

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"strconv"

	"tokendesk/vault/secret"
)

// PIVSlot is a key slot of the PIV application, by its key reference (SP 800-73-4 part 1, table 4b).
type PIVSlot uint8

// The slots that have names.
const (
	PIVAuthentication     PIVSlot = 0x9A // logs its holder in
	PIVSignature          PIVSlot = 0x9C
	PIVKeyManagement      PIVSlot = 0x9D
	PIVCardAuthentication PIVSlot = 0x9E
)

func (s PIVSlot) String() string { return fmt.Sprintf("%02x", uint8(s)) }

// Valid tells whether there is such a slot: those with names, and 82 to 95, which are for retired keys.
func (s PIVSlot) Valid() bool {
	return s >= 0x82 && s <= 0x95 || s >= PIVAuthentication && s <= PIVCardAuthentication && s != 0x9B
}

// ParsePIVSlot reads "9a".
func ParsePIVSlot(s string) (PIVSlot, error) {
	n, err := strconv.ParseUint(s, 16, 8)
	if slot := PIVSlot(n); err == nil && slot.Valid() && len(s) == 2 {
		return slot, nil
	}
	return 0, fmt.Errorf("%q is not a PIV slot: they are 9a, 9c, 9d, 9e, and 82 to 95", s)
}

// PIVAlgorithm is the kind of a key.
type PIVAlgorithm string

// Algorithms. The last four need firmware 5.7.
const (
	RSA2048 PIVAlgorithm = "rsa2048"
	ECCP256 PIVAlgorithm = "eccp256"
	ECCP384 PIVAlgorithm = "eccp384"
	RSA3072 PIVAlgorithm = "rsa3072"
	RSA4096 PIVAlgorithm = "rsa4096"
	Ed25519 PIVAlgorithm = "ed25519"
	X25519  PIVAlgorithm = "x25519"
)

// PINPolicy says when a key asks for the PIN.
type PINPolicy string

// PIN policies.
const (
	PINNever  PINPolicy = "never"
	PINOnce   PINPolicy = "once" // a session
	PINAlways PINPolicy = "always"
)

// TouchPolicy says when a key asks for a touch.
type TouchPolicy string

// Touch policies.
const (
	TouchNever  TouchPolicy = "never"
	TouchAlways TouchPolicy = "always"
	TouchCached TouchPolicy = "cached" // one counts for 15 seconds
)

// PIVKeySpec is a key to be generated.
type PIVKeySpec struct {
	Slot      PIVSlot
	Algorithm PIVAlgorithm
	PIN       PINPolicy
	Touch     TouchPolicy
}

// Supported returns a *FirmwareError if a firmware cannot have such a key, or none that is safe.
func (s PIVKeySpec) Supported(have Version) error {
	feature, need := "a policy of PIN and touch", Version{}
	switch {
	case s.Touch == TouchCached:
		feature, need = "a touch that counts for a while", Version{4, 3, 0}
	case s.PIN != "" || s.Touch != "":
		need = Version{4, 0, 0}
	}
	switch s.Algorithm {
	case RSA3072, RSA4096, Ed25519, X25519:
		feature, need = "a key of "+string(s.Algorithm), Version{5, 7, 0}
	case ECCP384:
		if need.Less(Version{4, 0, 0}) {
			feature, need = "a key of "+string(s.Algorithm), Version{4, 0, 0}
		}
	case RSA2048:
		// Keys of these can be factored (YSA-2017-01, "ROCA").
		if safe := (Version{4, 3, 5}); have.Less(safe) && !have.Less(Version{4, 2, 6}) {
			feature, need = "a key of RSA that is safe", safe
		}
	}
	if have.Less(need) {
		return &FirmwareError{Feature: feature, Need: need, Have: have}
	}
	return nil
}

// PIVKey is what a card tells about one slot. What it does not tell is empty.
type PIVKey struct {
	PIVKeySpec
	Public      crypto.PublicKey  // nil: no key, or one that the card does not tell about (firmware before 5.3, not attested)
	Generated   bool              // on the card; otherwise imported, or not known
	Attested    bool              // the card has proven that it was, by a chain that ends in a pinned root
	Certificate *x509.Certificate // nil: none
}

// PIVState is what a card tells about its PIV application.
type PIVState struct {
	Serial   Serial
	Firmware Version
	// Tries left; -1: not told. 0: blocked.
	PINRetries, PUKRetries int
	// Which of its secrets are as they left the factory. Cards before firmware 5.3 do not tell.
	DefaultsKnown                                bool
	DefaultPIN, DefaultPUK, DefaultManagementKey bool
	Keys                                         []PIVKey // slots that hold a key or a certificate, in their order
}

// Fresh tells whether the application is as it left the factory, as far as the card tells.
func (s PIVState) Fresh() bool {
	return len(s.Keys) == 0 && (!s.DefaultsKnown || s.DefaultPIN && s.DefaultPUK && s.DefaultManagementKey)
}

// FactoryTries is how many tries PIN and PUK have when a card leaves the factory.
const FactoryTries = 3

// AllTries tells whether PIN and PUK have the tries left that the factory gives them, as far as the card tells.
func (s PIVState) AllTries() bool {
	for _, left := range []int{s.PINRetries, s.PUKRetries} {
		if left >= 0 && left != FactoryTries {
			return false
		}
	}
	return true
}

// Sizes of the secrets of a PIV application.
const (
	ManagementKeySize = 24 // bytes, of 3DES and of AES-192
	MinPINSize        = 6  // bytes of a PIN or PUK
	MaxPINSize        = 8
)

// PIV is the PIV application of an opened card: the seam of provisioning. A zero Secret that a card is shown stands for what it
// has when it leaves the factory; it gets none such. Every method fails with ErrGone once the card was pulled, with a *PINError if a PIN or PUK is wrong or
// blocked, with ErrManagementKey if that is another one, and with a *FirmwareError if the card is too old.
type PIV interface {
	// Describe asks the card who it is and what the application holds. It changes nothing, and costs no tries.
	Describe(ctx context.Context) (PIVState, error)
	// Reset erases all keys and certificates, and makes all secrets those of the factory. It needs none of them: it uses up
	// the tries of PIN and PUK, which is what cards ask for. It may be repeated.
	Reset(ctx context.Context) error
	// SetManagementKey replaces the management key, of the algorithm that the firmware has by default.
	SetManagementKey(ctx context.Context, current, next secret.Secret) error
	// CheckManagementKey tells whether this is the management key. It costs no tries.
	CheckManagementKey(ctx context.Context, key secret.Secret) error
	VerifyPIN(ctx context.Context, pin secret.Secret) error
	ChangePIN(ctx context.Context, current, next secret.Secret) error
	ChangePUK(ctx context.Context, current, next secret.Secret) error
	// Unblock sets a new PIN by the PUK.
	Unblock(ctx context.Context, puk, pin secret.Secret) error
	// Generate makes a key in a slot, in place of any other.
	Generate(ctx context.Context, management secret.Secret, spec PIVKeySpec) (crypto.PublicKey, error)
	// Attest has the card prove that the key in a slot was generated there, and returns what it has proven. ErrAttestation: the
	// chain does not end in a root that is accepted for this card, or says something else than the card does.
	Attest(ctx context.Context, slot PIVSlot) (PIVKey, error)
	// Request signs a certificate request by the key in a slot, and returns its DER. The key may ask for a touch.
	Request(ctx context.Context, pin secret.Secret, slot PIVSlot, template *x509.CertificateRequest) ([]byte, error)
	// SetCertificate stores a certificate. That it belongs to the key is for the caller to check.
	SetCertificate(ctx context.Context, management secret.Secret, slot PIVSlot, c *x509.Certificate) error
}
