package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"tokendesk/vault/secret"
)

const keySize = 32

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
	k, err := hkdf.Key(sha256.New, from.Reveal(), []byte(vault), string(frame(info...)), keySize)
	if err != nil {
		panic(err) // only for a length above 255 hashes
	}
	return secret.New(k)
}

// encrypt seals plain under key; aad is authenticated with it.
func encrypt(key secret.Secret, plain, aad []byte) ([]byte, error) {
	a, err := aead(key)
	if err != nil {
		return nil, err
	}
	return a.Seal(nil, nil, plain, aad), nil
}

// decrypt opens what encrypt made.
func decrypt(key secret.Secret, sealed, aad []byte) (secret.Secret, error) {
	a, err := aead(key)
	if err != nil {
		return secret.Secret{}, err
	}
	plain, err := a.Open(nil, nil, sealed, aad)
	if err != nil {
		return secret.Secret{}, errUnauthentic
	}
	return secret.New(plain), nil
}

func aead(key secret.Secret) (cipher.AEAD, error) {
	b, err := aes.NewCipher(key.Reveal())
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(b) // random nonces: good for 2^32 records per key (SP 800-38D, 8.3)
}

func mac(key secret.Secret, parts ...any) []byte {
	h := hmac.New(sha256.New, key.Reveal())
	h.Write(frame(parts...))
	return h.Sum(nil)
}

// keyring holds the keys that one data key version gives rise to, for every version in the header.
type keyring struct {
	vault   string // the vault's ID
	current uint32 // the version that new records are written under
	keys    map[uint32]purposes
}

// purposes are the keys derived from one data key.
type purposes struct{ header, record, secret secret.Secret }

func (r *keyring) add(version uint32, dek secret.Secret) {
	r.keys[version] = purposes{
		header: derive(dek, r.vault, "tokendesk header", version),
		record: derive(dek, r.vault, "tokendesk record", version),
		secret: derive(dek, r.vault, "tokendesk secret", version),
	}
	r.current = max(r.current, version)
}

func (r *keyring) wipe() {
	for _, k := range r.keys {
		k.header.Wipe()
		k.record.Wipe()
		k.secret.Wipe()
	}
	clear(r.keys)
}
