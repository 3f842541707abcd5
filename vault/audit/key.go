package audit

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"

	"tokendesk/vault/secret"
)

// SeedSize is the length of the secret that a vault signs its heads with, in bytes (RFC 8032, section 5.1.5).
const SeedSize = ed25519.SeedSize

const keyPrefix = "tokendesk-audit-key:"

// Key is the Ed25519 public key of a vault. It lives as long as the vault. In text it is "tokendesk-audit-key:" and
// unpadded base64url. The zero Key is none: no head verifies with it.
type Key [ed25519.PublicKeySize]byte

// KeyOf is the public key that belongs to a seed of SeedSize random bytes.
func KeyOf(seed secret.Secret) (Key, error) {
	var k Key
	err := withPrivate(seed, func(priv ed25519.PrivateKey) { k = Key(priv[SeedSize:]) })
	return k, err
}

// withPrivate lends the key to sign with. The copies inside crypto/ed25519 are erased when the collector takes them.
func withPrivate(seed secret.Secret, fn func(ed25519.PrivateKey)) error {
	if seed.Len() != SeedSize {
		return fmt.Errorf("the audit key's seed has %d bytes instead of %d", seed.Len(), SeedSize)
	}
	secret.Do(func() {
		priv := ed25519.NewKeyFromSeed(seed.Reveal())
		defer clear(priv)
		fn(priv)
	})
	return nil
}

// ParseKey reads what Key.String writes, with or without white space around it.
func ParseKey(text string) (Key, error) {
	var k Key
	err := k.UnmarshalText([]byte(strings.TrimSpace(text)))
	return k, err
}

func (k Key) String() string { return keyPrefix + base64.RawURLEncoding.EncodeToString(k[:]) }

// Fingerprint is short enough to compare by eye: 128 bits of a hash, in eight groups of four hexadecimal digits.
func (k Key) Fingerprint() string {
	sum := frame(nil).text("tokendesk audit key v1").text(string(k[:])).sum()
	var groups []string
	for i := range 8 {
		groups = append(groups, fmt.Sprintf("%x", sum[2*i:2*i+2]))
	}
	return strings.Join(groups, "-")
}

// MarshalText implements encoding.TextMarshaler.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It takes the one form that String writes.
func (k *Key) UnmarshalText(text []byte) error {
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(string(text), keyPrefix))
	if err != nil || len(b) != len(k) || Key(b) == (Key{}) || Key(b).String() != string(text) {
		return fmt.Errorf("this is not an audit key: one is %q and %d letters and digits", keyPrefix, base64.RawURLEncoding.EncodedLen(len(k)))
	}
	*k = Key(b)
	return nil
}
