package vault

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"tokendesk/vault/secret"
)

// A stored value is its schema (1 byte), the data key version (4 bytes, big endian) and a body:
// for records an HMAC and readable JSON, for secrets an AES-256-GCM nonce, ciphertext and tag.
const (
	schema     = 1
	prefixSize = 1 + 4
)

var errShort = errors.New("it is too short")

type value struct {
	schema byte
	dek    uint32
	body   []byte
}

func splitValue(b []byte) (value, error) {
	if len(b) < prefixSize {
		return value{}, errShort
	}
	return value{b[0], binary.BigEndian.Uint32(b[1:]), b[prefixSize:]}, nil
}

func prefix(dek uint32) []byte { return binary.BigEndian.AppendUint32([]byte{schema}, dek) }

// context is what a value is bound to: it opens nowhere else.
func (r *keyring) context(kind, bucket string, key []byte, v value) []byte {
	return frame(kind, r.vault, bucket, key, uint32(v.schema), v.dek)
}

// encodeRecord authenticates a record's JSON.
func (r *keyring) encodeRecord(bucket string, key, json []byte) []byte {
	v := value{schema: schema, dek: r.current}
	m := mac(r.keys[v.dek].record, r.context("record", bucket, key, v), json)
	return append(append(prefix(v.dek), m...), json...)
}

// decodeRecord returns a record's JSON, which it checks first.
func (r *keyring) decodeRecord(bucket string, key, b []byte) ([]byte, error) {
	v, err := splitValue(b)
	if err != nil {
		return nil, err
	}
	if len(v.body) < sha256.Size {
		return nil, errShort
	}
	k, ok := r.keys[v.dek]
	sum, json := v.body[:sha256.Size], v.body[sha256.Size:]
	if !ok || !hmac.Equal(sum, mac(k.record, r.context("record", bucket, key, v), json)) {
		return nil, errUnauthentic
	}
	if v.schema > schema {
		return nil, newer("a record", uint32(v.schema), schema)
	}
	return json, nil
}

// encodeSecret seals a secret.
func (r *keyring) encodeSecret(bucket string, key []byte, s secret.Secret) ([]byte, error) {
	v := value{schema: schema, dek: r.current}
	sealed, err := encrypt(r.keys[v.dek].secret, s.Reveal(), r.context("secret", bucket, key, v))
	return append(prefix(v.dek), sealed...), err
}

// decodeSecret opens a secret.
func (r *keyring) decodeSecret(bucket string, key, b []byte) (secret.Secret, error) {
	v, err := splitValue(b)
	if err != nil {
		return secret.Secret{}, err
	}
	k, ok := r.keys[v.dek]
	if !ok {
		return secret.Secret{}, errUnauthentic
	}
	s, err := decrypt(k.secret, v.body, r.context("secret", bucket, key, v))
	if err == nil && v.schema > schema {
		s.Wipe()
		return secret.Secret{}, newer("a secret", uint32(v.schema), schema)
	}
	return s, err
}
