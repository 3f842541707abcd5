package tpmseal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/stretch"
)

// A blob: version (1 byte) and fields, each with its length in 2 bytes, big endian. Version 1, which is only read,
// has the first three and auth, and its object holds what was sealed. Version 2 is
//
//	srk, public, private, counter, value (8 bytes, without a length), recipe, auth, sealed
//
// where sealed is nonce, ciphertext and tag of AES-256-GCM, which authenticates all that stands before it. Its key is
// HKDF-SHA-256 of the object's secret and the PIN's half. Either recipe (with a PIN) or auth (without) is empty.
const (
	oldVersion  = 1
	blobVersion = 2
	maxField    = 1024 // the largest, the private part, has about 200 bytes
	maxPlain    = 1024
	gcmOverhead = 12 + 16
	kekInfo     = "tokendesk vault tpmseal 2"
)

// blob is a sealed object with what is needed to load and open it.
type blob struct {
	version byte
	srk     []byte // Name of the storage root key above it
	public  []byte // TPM2B_PUBLIC's content
	private []byte // TPM2B_PRIVATE's content
	mark    vault.Mark
	recipe  []byte // stretch.Recipe of the PIN
	// auth is the object's authorization value where there is no PIN. It lies beside the object and keeps nobody out
	// who has both file and TPM; it only means that the object alone, and a look at the bus, are not enough.
	auth   []byte
	sealed []byte
}

func (b *blob) hasPIN() bool { return len(b.recipe) != 0 }

// head is the encoding up to sealed.
func (b *blob) head() []byte {
	out := []byte{b.version}
	for _, f := range [][]byte{b.srk, b.public, b.private} {
		out = appendField(out, f)
	}
	if b.version == oldVersion {
		return appendField(out, b.auth)
	}
	out = appendField(out, b.mark.Counter)
	out = binary.BigEndian.AppendUint64(out, b.mark.Value)
	return appendField(appendField(out, b.recipe), b.auth)
}

func (b *blob) encode() []byte {
	if b.version == oldVersion {
		return b.head()
	}
	return appendField(b.head(), b.sealed)
}

func decodeBlob(p []byte) (*blob, error) {
	if len(p) == 0 {
		return nil, errors.New("the sealed key is empty")
	}
	b := &blob{version: p[0]}
	r := reader{rest: p[1:]}
	b.srk, b.public, b.private = r.field(maxField), r.field(maxField), r.field(maxField)
	switch b.version {
	case oldVersion:
		b.auth = r.field(maxField)
	case blobVersion:
		b.mark.Counter = r.field(counterSize)
		b.mark.Value = r.uint64()
		b.recipe = r.field(stretch.Size)
		b.auth = r.field(authSize)
		b.sealed = r.field(maxPlain + gcmOverhead)
	default:
		return nil, fmt.Errorf("the sealed key has version %d, this program knows up to %d", b.version, blobVersion)
	}
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("the sealed key %w", err)
	}
	return b, b.check()
}

// check refuses what the TPM need not be asked about.
func (b *blob) check() error {
	if len(b.srk) != nameSize || len(b.public) == 0 || len(b.private) == 0 {
		return errors.New("the sealed key lacks a part")
	}
	if b.version == oldVersion {
		if len(b.auth) == 0 {
			return errors.New("the sealed key lacks its authorization value")
		}
		return nil
	}
	if len(b.sealed) <= gcmOverhead {
		return errors.New("the sealed key holds nothing")
	}
	if b.hasPIN() == (len(b.auth) != 0) {
		return errors.New("the sealed key has both a PIN and none")
	}
	if b.hasPIN() {
		if _, err := stretch.Decode(b.recipe); err != nil {
			return err
		}
	} else if err := checkAuth(b.auth); err != nil {
		return err
	}
	if len(b.mark.Counter) == 0 {
		if b.mark.Value != 0 {
			return errors.New("the sealed key has a time without a counter")
		}
	} else if _, err := parseCounter(b.mark.Counter); err != nil {
		return err
	}
	return b.checkPublic()
}

// seal encrypts plain under the object's secret and the PIN's half, once all other fields are there.
func (b *blob) seal(plain, object, half secret.Secret) error {
	return b.with(object, half, func(aead cipher.AEAD) error {
		b.sealed = aead.Seal(nil, nil, plain.Reveal(), b.head())
		return nil
	})
}

func (b *blob) open(object, half secret.Secret) (plain secret.Secret, err error) {
	err = b.with(object, half, func(aead cipher.AEAD) (err error) {
		plain, err = secret.Make(len(b.sealed)-gcmOverhead, func(out []byte) error {
			_, err := aead.Open(out[:0], nil, b.sealed, b.head())
			return err
		})
		return err
	})
	if err != nil {
		return secret.Secret{}, corrupt(fmt.Errorf("the TPM opens the sealed key, but what it guards was altered: %w", err))
	}
	return plain, nil
}

// with lends the blob's own cipher.
func (b *blob) with(object, half secret.Secret, f func(cipher.AEAD) error) (err error) {
	secret.Do(func() {
		var aead cipher.AEAD
		if aead, err = b.aead(object, half); err == nil {
			err = f(aead)
		}
	})
	return err
}

func (b *blob) aead(object, half secret.Secret) (cipher.AEAD, error) {
	if object.Len() != objectSize {
		return nil, fmt.Errorf("the TPM guards %d bytes, not %d", object.Len(), objectSize)
	}
	both := secret.Concat(object, half)
	defer both.Wipe()
	kek, err := hkdf.Key(sha256.New, both.Reveal(), nil, kekInfo, 32)
	if err != nil {
		return nil, err
	}
	defer clear(kek)
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func appendField(out, f []byte) []byte {
	return append(binary.BigEndian.AppendUint16(out, uint16(len(f))), f...)
}

// reader takes fields off a byte string. After the first that is not there it gives only nothing, and end tells.
type reader struct {
	rest []byte
	err  error
}

// field takes a field of 0 to most bytes, without copying it.
func (r *reader) field(most int) []byte {
	b := r.take(2)
	if b == nil {
		return nil
	}
	n := int(binary.BigEndian.Uint16(b))
	if n > most {
		r.err = fmt.Errorf("claims %d bytes where at most %d belong", n, most)
		return nil
	}
	return r.take(n)
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) take(n int) []byte {
	if r.err == nil && n > len(r.rest) {
		r.err = errors.New("is cut short")
	}
	if r.err != nil {
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) end() error {
	if r.err == nil && len(r.rest) != 0 {
		return errors.New("has bytes left over")
	}
	return r.err
}
