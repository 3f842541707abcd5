// Package passseal seals a vault under a passphrase, for machines without a TPM.
//
// The passphrase is stretched by Argon2id (package stretch) and the vault's secret encrypted under the result with
// AES-256-GCM. It promises that a wrong passphrase is named and that a blob cannot make it use more memory or time
// than stretch allows. It does not protect against a copy of the file: whoever has one can try passphrases for as long
// as they like, and puts it back unnoticed, since software has no counter that does not go back with it. A passphrase
// in a file beside the vault is worse: whoever copies both opens the vault.
package passseal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/stretch"
)

// Sealer implements vault.Sealer.
type Sealer struct {
	params stretch.Params
	fixed  bool // the passphrase was given once and for all

	mu         sync.Mutex
	passphrase secret.Secret // zero unless fixed
	closed     bool
}

// New makes a sealer that is given the passphrase with every Key. What it seals costs the default.
func New() *Sealer { return &Sealer{params: stretch.Default()} }

// NewWithParams is New with costs p. It opens what was sealed with any costs within the bounds.
func NewWithParams(p stretch.Params) (*Sealer, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("cannot use a passphrase: %w", err)
	}
	return &Sealer{params: p}, nil
}

// Fixed makes a sealer that has its passphrase and takes no other. It keeps a copy.
func Fixed(passphrase secret.Secret, p stretch.Params) (*Sealer, error) {
	s, err := NewWithParams(p)
	if err != nil {
		return nil, err
	}
	if passphrase.IsZero() {
		return nil, errEmpty()
	}
	s.fixed, s.passphrase = true, passphrase.Clone()
	return s, nil
}

// Kind implements vault.Sealer. It is one for both levels: a vault opens with its passphrase, wherever that comes from.
func (s *Sealer) Kind() string { return "passphrase" }

// Level implements vault.Sealer.
func (s *Sealer) Level() vault.Level {
	if s.fixed {
		return vault.LevelKeyFile
	}
	return vault.LevelPassphrase
}

// Close wipes the passphrase. The sealer is of no use afterwards.
func (s *Sealer) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.passphrase.Wipe()
	return nil
}

// A blob: version (1 byte), an encoded stretch.Recipe, and then the nonce, ciphertext and tag of AES-256-GCM, which
// authenticates everything before.
const (
	blobVersion = 1
	sealedAt    = 1 + stretch.Size
	gcmOverhead = 12 + 16
	maxBlob     = 4096
	keySize     = 32
)

// Key implements vault.Sealer. A key is the recipe and what it makes of the passphrase.
func (s *Sealer) Key(pin secret.Secret, blob []byte) (secret.Secret, error) {
	var recipe stretch.Recipe
	var err error
	if blob == nil {
		if recipe, err = stretch.New(s.params); err != nil {
			return secret.Secret{}, err
		}
	} else if recipe, err = parse(blob); err != nil {
		return secret.Secret{}, corrupt(err)
	}
	passphrase, err := s.use(pin)
	if err != nil {
		return secret.Secret{}, err
	}
	defer passphrase.Wipe()
	derived := recipe.Derive(passphrase, keySize)
	defer derived.Wipe()
	return secret.Concat(secret.New(recipe.Encode()), derived), nil
}

// use returns a copy of the passphrase to use.
func (s *Sealer) use(pin secret.Secret) (secret.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return secret.Secret{}, fmt.Errorf("cannot use the passphrase: %w", os.ErrClosed)
	case s.fixed && !pin.IsZero():
		return secret.Secret{}, &vault.StateError{State: vault.StateWrongPassphrase,
			Err: errors.New("the passphrase comes from a file, and none is taken beside it"), Cure: "give none, or change the configuration to ask for it"}
	case s.fixed:
		return s.passphrase.Clone(), nil
	case pin.IsZero():
		return secret.Secret{}, errEmpty()
	}
	return pin.Clone(), nil
}

func errEmpty() error {
	return &vault.StateError{State: vault.StateWrongPassphrase, Err: errors.New("the passphrase is empty"), Cure: "give a passphrase"}
}

// split checks that a key comes from Key and returns its recipe, encoded, and the bytes to encrypt with.
func (s *Sealer) split(key secret.Secret) (recipe, bare []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, fmt.Errorf("cannot use the passphrase: %w", os.ErrClosed)
	}
	if key.Len() != stretch.Size+keySize {
		return nil, nil, errEmpty()
	}
	return key.Reveal()[:stretch.Size], key.Reveal()[stretch.Size:], nil
}

// Seal implements vault.Sealer. Software has no counters: at must be zero.
func (s *Sealer) Seal(plain, key secret.Secret, at vault.Mark) ([]byte, error) {
	if len(at.Counter) != 0 || at.Value != 0 {
		return nil, errors.New("cannot seal for a time: a passphrase has no counter")
	}
	recipe, bare, err := s.split(key)
	if err != nil {
		return nil, err
	}
	if n := sealedAt + gcmOverhead + plain.Len(); n > maxBlob || plain.IsZero() {
		return nil, fmt.Errorf("cannot seal %d bytes under a passphrase: it takes 1 to %d", plain.Len(), maxBlob-sealedAt-gcmOverhead)
	}
	head := append([]byte{blobVersion}, recipe...)
	var blob []byte
	err = with(bare, func(aead cipher.AEAD) error {
		blob = aead.Seal(head, nil, plain.Reveal(), head)
		return nil
	})
	runtime.KeepAlive(plain)
	runtime.KeepAlive(key)
	return blob, err
}

// Unseal implements vault.Sealer.
func (s *Sealer) Unseal(blob []byte, key secret.Secret) (secret.Secret, error) {
	if _, err := parse(blob); err != nil {
		return secret.Secret{}, corrupt(err)
	}
	recipe, bare, err := s.split(key)
	if err != nil {
		return secret.Secret{}, err
	}
	if !bytes.Equal(recipe, blob[1:sealedAt]) {
		return secret.Secret{}, wrong("the passphrase was stretched for another seal")
	}
	var plain secret.Secret
	err = with(bare, func(aead cipher.AEAD) (err error) {
		plain, err = secret.Make(len(blob)-sealedAt-gcmOverhead, func(out []byte) error {
			_, err := aead.Open(out[:0], nil, blob[sealedAt:], blob[:sealedAt])
			return err
		})
		return err
	})
	runtime.KeepAlive(key)
	if err != nil {
		return secret.Secret{}, wrong("the passphrase does not open it")
	}
	return plain, nil
}

func wrong(why string) error {
	return &vault.StateError{State: vault.StateWrongPassphrase, Err: errors.New(why), Cure: "give the passphrase that it was sealed with"}
}

func corrupt(err error) error {
	return &vault.StateError{State: vault.StateCorrupt, Err: fmt.Errorf("cannot unseal: %w", err), Cure: "put back a backup of the vault"}
}

// parse checks a blob's form and returns its recipe.
func parse(blob []byte) (stretch.Recipe, error) {
	if len(blob) <= sealedAt+gcmOverhead || len(blob) > maxBlob {
		return stretch.Recipe{}, fmt.Errorf("the sealed key has %d bytes", len(blob))
	}
	if blob[0] != blobVersion {
		return stretch.Recipe{}, fmt.Errorf("the sealed key has version %d, this program knows %d", blob[0], blobVersion)
	}
	return stretch.Decode(blob[1:sealedAt])
}

// with lends the cipher of a key.
func with(key []byte, f func(cipher.AEAD) error) (err error) {
	secret.Do(func() {
		var block cipher.Block
		if block, err = aes.NewCipher(key); err != nil {
			return
		}
		var aead cipher.AEAD
		if aead, err = cipher.NewGCMWithRandomNonce(block); err == nil {
			err = f(aead)
		}
	})
	return err
}
