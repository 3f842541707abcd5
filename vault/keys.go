package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"tokendesk/vault/secret"
)

const (
	keySize   = 32
	nonceSize = 12
	tagSize   = 16
)

var errUnauthentic = errors.New("it does not authenticate")

// frame joins parts so that no two lists of parts give the same bytes: each is preceded by its length.
func frame(parts ...any) []byte {
	var out []byte
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			out = append(binary.BigEndian.AppendUint64(out, uint64(len(p))), p...)
		case []byte:
			out = append(binary.BigEndian.AppendUint64(out, uint64(len(p))), p...)
		case uint32:
			out = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(out, 4), p)
		default:
			panic(fmt.Sprintf("vault: cannot frame a %T", p))
		}
	}
	return out
}

// derive makes a key from another one by HKDF-SHA256 (RFC 5869); vault salts it, info separates purposes.
func derive(from secret.Secret, vault string, info ...any) secret.Secret {
	out, err := secret.Make(keySize, func(out []byte) (err error) {
		secret.Do(func() {
			var k []byte
			k, err = hkdf.Key(sha256.New, from.Reveal(), []byte(vault), string(frame(info...)), keySize)
			copy(out, k)
		})
		return err
	})
	if err != nil {
		panic(err) // only for a length above 255 hashes
	}
	return out
}

// encrypt seals plain under key; aad is authenticated with it.
func encrypt(key secret.Secret, plain, aad []byte) []byte {
	out := make([]byte, nonceSize, nonceSize+len(plain)+tagSize)
	rand.Read(out)
	secret.Do(func() { out = newAEAD(key).Seal(out, out, plain, aad) })
	return out
}

// decrypt opens what encrypt made.
func decrypt(key secret.Secret, sealed, aad []byte) (secret.Secret, error) {
	if len(sealed) < nonceSize+tagSize {
		return secret.Secret{}, errShort
	}
	plain, err := secret.Make(len(sealed)-nonceSize-tagSize, func(out []byte) (err error) {
		secret.Do(func() { _, err = newAEAD(key).Open(out[:0], sealed[:nonceSize], sealed[nonceSize:], aad) })
		return err
	})
	if err != nil {
		return secret.Secret{}, errUnauthentic
	}
	return plain, nil
}

// newAEAD is AES-256-GCM. Its nonces are random: good for 2^32 uses of a key (SP 800-38D, 8.3).
func newAEAD(key secret.Secret) cipher.AEAD {
	a, err := cipher.NewGCM(newCipher(key))
	if err != nil {
		panic(err) // only for a cipher with another block size
	}
	return a
}

// newCipher is AES-256.
func newCipher(key secret.Secret) cipher.Block {
	b, err := aes.NewCipher(key.Reveal())
	if err != nil {
		panic(err) // only for a key of another size
	}
	return b
}

func mac(key secret.Secret, parts ...any) []byte {
	out := make([]byte, 0, sha256.Size)
	secret.Do(func() {
		h := hmac.New(sha256.New, key.Reveal())
		h.Write(frame(parts...))
		out = h.Sum(out)
	})
	return out
}

// keyring holds what comes from the data key: a key for each purpose. Everything in the file is under one data key; a
// rotation writes the file anew.
type keyring struct {
	vault   string // the vault's ID
	version uint32 // of the data key
	record  cipher.AEAD
	secret  cipher.AEAD
	ledger  cipher.AEAD
	element [2]cipher.Block // see summer
}

func newKeyring(vault string, version uint32, dek secret.Secret) *keyring {
	r := &keyring{vault: vault, version: version}
	secret.Do(func() {
		for _, p := range []struct {
			purpose string
			aead    *cipher.AEAD
		}{{"tokendesk record", &r.record}, {"tokendesk secret", &r.secret}, {"tokendesk ledger", &r.ledger}} {
			k := derive(dek, vault, p.purpose, version)
			*p.aead = newAEAD(k)
			k.Wipe()
		}
		for i := range r.element {
			k := derive(dek, vault, "tokendesk element", version, uint32(i))
			r.element[i] = newCipher(k)
			k.Wipe()
		}
	})
	return r
}

// wipe destroys the keys. The ciphers' own copies are erased when the collector takes them: see secret.Do.
func (r *keyring) wipe() {
	r.record, r.secret, r.ledger, r.element = nil, nil, nil, [2]cipher.Block{}
}
