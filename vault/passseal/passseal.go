// Package passseal seals a vault under a passphrase, for machines without a TPM.
//
// The passphrase is stretched by Argon2id (RFC 9106) and the vault's secret encrypted under the result with
// AES-256-GCM. It promises that a wrong passphrase is named, that a blob cannot make it use more memory or
// time than the bounds here, and that weaker parameters than the minimum are refused. It does not protect
// against a copy of the file: whoever has one can try passphrases for as long as they like.
package passseal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/argon2"

	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// Params are the costs of Argon2id.
type Params struct {
	Time    uint32 // passes
	Memory  uint32 // KiB
	Threads uint8
}

// DefaultParams are the second recommended option of RFC 9106, section 4.
func DefaultParams() Params { return Params{Time: 3, Memory: 64 << 10, Threads: 4} }

// MinimumParams are the least that is accepted (OWASP Password Storage Cheat Sheet: 19 MiB, 2 passes).
func MinimumParams() Params { return Params{Time: 2, Memory: 19 << 10, Threads: 1} }

// maximum bounds what a hostile blob can cost.
var maximum = Params{Time: 16, Memory: 1 << 20, Threads: 16}

func (p Params) validate() error {
	low := MinimumParams()
	if p.Time < low.Time || p.Memory < low.Memory || p.Threads < low.Threads {
		return fmt.Errorf("the Argon2id parameters are too weak: %d passes, %d KiB, %d threads", p.Time, p.Memory, p.Threads)
	}
	if p.Time > maximum.Time || p.Memory > maximum.Memory || p.Threads > maximum.Threads {
		return fmt.Errorf("the Argon2id parameters are too costly: %d passes, %d KiB, %d threads", p.Time, p.Memory, p.Threads)
	}
	return nil
}

// Sealer implements vault.Sealer.
type Sealer struct {
	passphrase secret.Secret
	params     Params
}

// New makes a sealer with the default costs. It keeps a copy of the passphrase.
func New(passphrase secret.Secret) *Sealer {
	return &Sealer{passphrase.Clone(), DefaultParams()}
}

// Close wipes the passphrase. The sealer is of no use afterwards.
func (s *Sealer) Close() error {
	s.passphrase.Wipe()
	return nil
}

// NewWithParams makes a sealer that seals with costs p; it opens what was sealed with any within the bounds.
func NewWithParams(passphrase secret.Secret, p Params) (*Sealer, error) {
	if err := p.validate(); err != nil {
		return nil, fmt.Errorf("cannot use a passphrase: %w", err)
	}
	return &Sealer{passphrase.Clone(), p}, nil
}

// Kind implements vault.Sealer.
func (s *Sealer) Kind() string { return "passphrase" }

// Level implements vault.Sealer.
func (s *Sealer) Level() vault.Level { return vault.LevelPassphrase }

// A blob: version (1 byte), passes and KiB (4 bytes each, big endian), threads (1), salt (16), and then the nonce,
// ciphertext and tag of AES-256-GCM, which authenticates everything before.
const (
	blobVersion = 1
	saltSize    = 16
	saltAt      = 1 + 4 + 4 + 1
	sealedAt    = saltAt + saltSize
	gcmOverhead = 12 + 16
	maxBlob     = 4096
)

// Seal implements vault.Sealer.
func (s *Sealer) Seal(plain secret.Secret) ([]byte, error) {
	head := binary.BigEndian.AppendUint32([]byte{blobVersion}, s.params.Time)
	head = binary.BigEndian.AppendUint32(head, s.params.Memory)
	salt := make([]byte, saltSize)
	rand.Read(salt)
	head = append(append(head, s.params.Threads), salt...)
	aead, err := s.aead(s.params, salt)
	if err != nil {
		return nil, err
	}
	blob := aead.Seal(head, nil, plain.Reveal(), head)
	if len(blob) > maxBlob {
		return nil, fmt.Errorf("cannot seal %d bytes: too many", plain.Len())
	}
	return blob, nil
}

// Unseal implements vault.Sealer.
func (s *Sealer) Unseal(blob []byte) (secret.Secret, error) {
	p, err := parse(blob)
	if err != nil {
		return secret.Secret{}, &vault.StateError{State: vault.StateCorrupt,
			Err: fmt.Errorf("cannot unseal: %w", err), Cure: "put back a backup of the vault"}
	}
	aead, err := s.aead(p, blob[saltAt:sealedAt])
	if err != nil {
		return secret.Secret{}, err
	}
	plain, err := aead.Open(nil, nil, blob[sealedAt:], blob[:sealedAt])
	if err != nil {
		return secret.Secret{}, &vault.StateError{State: vault.StateWrongPassphrase,
			Err: errors.New("the passphrase does not open it"), Cure: "give the passphrase that it was created with"}
	}
	return secret.New(plain), nil
}

// parse checks a blob's form and returns its costs.
func parse(blob []byte) (Params, error) {
	if len(blob) < sealedAt+gcmOverhead || len(blob) > maxBlob {
		return Params{}, fmt.Errorf("the sealed key has %d bytes", len(blob))
	}
	if blob[0] != blobVersion {
		return Params{}, fmt.Errorf("the sealed key has version %d, this program knows %d", blob[0], blobVersion)
	}
	p := Params{binary.BigEndian.Uint32(blob[1:]), binary.BigEndian.Uint32(blob[5:]), blob[9]}
	return p, p.validate()
}

func (s *Sealer) aead(p Params, salt []byte) (cipher.AEAD, error) {
	if s.passphrase.IsZero() {
		return nil, &vault.StateError{State: vault.StateWrongPassphrase,
			Err: errors.New("the passphrase is empty"), Cure: "give a passphrase"}
	}
	key := secret.New(argon2.IDKey(s.passphrase.Reveal(), salt, p.Time, p.Memory, p.Threads, 32))
	defer key.Wipe()
	block, err := aes.NewCipher(key.Reveal())
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
