package vault

import (
	"crypto/rand"
	"encoding/binary"
	"errors"

	"tokendesk/vault/secret"
)

// A stored value is its schema (1 byte), the data key version (4 bytes, big endian), the record version (8 bytes), a
// nonce (12 bytes), a body and the tag of AES-256-GCM (16 bytes). A record's body is readable JSON, which the tag
// authenticates; a secret's is ciphertext. Both are bound to vault, bucket, key and all that stands before the nonce.
const (
	schema     = 2
	prefixSize = 1 + 4 + 8
	bodyAt     = prefixSize + nonceSize
	minValue   = bodyAt + tagSize
)

var errShort = errors.New("it is too short")

// coder encodes and decodes values with a keyring. It is used by one goroutine.
type coder struct {
	*keyring
	aad          []byte
	kind, bucket string // what the first bytes of aad are for
	framed       int    // how many those are
	scratch      []byte
	nonces       []byte // random bytes, of which each is used once
}

const (
	kindRecord = "record"
	kindSecret = "secret"
)

// context begins the additional data for a value: what it is bound to.
func (c *coder) context(kind, bucket string, key, prefix []byte) {
	if c.kind != kind || c.bucket != bucket {
		c.aad = c.aad[:0]
		for _, p := range [...]string{kind, c.vault, bucket} {
			c.aad = append(binary.BigEndian.AppendUint64(c.aad, uint64(len(p))), p...)
		}
		c.kind, c.bucket, c.framed = kind, bucket, len(c.aad)
	}
	c.aad = binary.BigEndian.AppendUint64(c.aad[:c.framed], uint64(len(key)))
	c.aad = append(append(c.aad, key...), prefix...)
}

func (c *coder) start(version uint64, size int) []byte {
	out := make([]byte, bodyAt, minValue+size)
	out[0] = schema
	binary.BigEndian.PutUint32(out[1:], c.version)
	binary.BigEndian.PutUint64(out[5:], version)
	c.nonce(out[prefixSize:])
	return out
}

// nonce fills one. The kernel is asked for many at a time: a batch writes ten thousands.
func (c *coder) nonce(out []byte) {
	if len(c.nonces) < nonceSize {
		c.nonces = make([]byte, 64*nonceSize)
		rand.Read(c.nonces)
	}
	c.nonces = c.nonces[copy(out, c.nonces[:nonceSize]):]
}

// encodeRecord authenticates a record's JSON.
func (c *coder) encodeRecord(bucket string, key []byte, version uint64, json []byte) []byte {
	out := append(c.start(version, len(json)), json...)
	c.context(kindRecord, bucket, key, out[:prefixSize])
	c.aad = append(c.aad, json...)
	return c.record.Seal(out, out[prefixSize:bodyAt], nil, c.aad)
}

// encodeSecret seals a secret.
func (c *coder) encodeSecret(bucket string, key []byte, version uint64, s secret.Secret) []byte {
	out := c.start(version, s.Len())
	c.context(kindSecret, bucket, key, out[:prefixSize])
	return c.secret.Seal(out, out[prefixSize:bodyAt], s.Reveal(), c.aad)
}

// check refuses what cannot be a value under these keys.
func (c *coder) check(b []byte) error {
	switch {
	case len(b) < minValue:
		return errShort
	case binary.BigEndian.Uint32(b[1:]) != c.version:
		return errUnauthentic
	}
	return nil
}

// newerSchema is asked only of what has authenticated.
func newerSchema(what string, b []byte) error {
	if b[0] > schema {
		return newer(what, uint32(b[0]), schema)
	}
	return nil
}

// decodeRecord returns a record's JSON, a part of b, which it checks first.
func (c *coder) decodeRecord(bucket string, key, b []byte) ([]byte, error) {
	if err := c.check(b); err != nil {
		return nil, err
	}
	json, tag := b[bodyAt:len(b)-tagSize], b[len(b)-tagSize:]
	c.context(kindRecord, bucket, key, b[:prefixSize])
	c.aad = append(c.aad, json...)
	if _, err := c.record.Open(nil, b[prefixSize:bodyAt], tag, c.aad); err != nil {
		return nil, errUnauthentic
	}
	return json, newerSchema("a record", b)
}

// decodeSecret opens a secret.
func (c *coder) decodeSecret(bucket string, key, b []byte) (secret.Secret, error) {
	if len(b) <= minValue { // no secret is empty
		return secret.Secret{}, errShort
	}
	return secret.Make(len(b)-minValue, func(out []byte) error {
		_, err := c.openSecret(out[:0], bucket, key, b)
		return err
	})
}

// checkSecret checks that a secret opens, and keeps nothing of it.
func (c *coder) checkSecret(bucket string, key, b []byte) error {
	if need := len(b) - minValue; cap(c.scratch) < need {
		c.scratch = make([]byte, 0, max(256, need))
	}
	plain, err := c.openSecret(c.scratch, bucket, key, b)
	clear(plain)
	return err
}

// openSecret appends a secret to dst.
func (c *coder) openSecret(dst []byte, bucket string, key, b []byte) ([]byte, error) {
	if err := c.check(b); err != nil {
		return nil, err
	}
	c.context(kindSecret, bucket, key, b[:prefixSize])
	plain, err := c.secret.Open(dst, b[prefixSize:bodyAt], b[bodyAt:], c.aad)
	if err != nil {
		return nil, errUnauthentic
	}
	return plain, newerSchema("a secret", b)
}
