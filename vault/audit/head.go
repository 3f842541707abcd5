package audit

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"tokendesk/vault/secret"
)

const (
	headDomain = "tokendesk audit head v1"
	headLine   = headDomain + " vault=%s seq=%d hash=%s epoch=%d counter=%d time=%s key=%s signature=%s"
	maxHead    = 1024 // bytes; the longest headLine is shorter
	maxVault   = 64   // bytes of a vault's ID
)

// Head is the vault's signed word for its history up to a point. Shipped elsewhere, it keeps whoever holds the signing
// key from rewriting that history unseen.
type Head struct {
	Vault string `json:"vault"` // the vault's ID: at most 64 letters, digits, "-" and "_"
	Point
	Epoch     uint64    `json:"epoch"`   // of the vault, when it signed
	Counter   uint64    `json:"counter"` // of the TPM, when the vault signed; 0 without one
	Time      time.Time `json:"time"`    // of signing
	Key       Key       `json:"key"`
	Signature []byte    `json:"signature"` // in text, base64
}

// Sign returns h with the seed's key and a signature by it.
func (h Head) Sign(seed secret.Secret) (Head, error) {
	err := checkVault(h.Vault)
	if err == nil {
		err = withPrivate(seed, func(priv ed25519.PrivateKey) {
			h.Time, h.Key = normalTime(h.Time), Key(priv[SeedSize:])
			h.Signature = ed25519.Sign(priv, h.signed())
		})
	}
	if err != nil {
		return Head{}, fmt.Errorf("cannot sign an audit head: %w", err)
	}
	return h, nil
}

// Verify says why h is not signed with key, or returns nil.
func (h Head) Verify(key Key) error {
	switch {
	case key == (Key{}):
		return errors.New("there is no audit key to verify with")
	case h.Key != key:
		return otherKey(h.Key, key)
	case h.Time != normalTime(h.Time):
		return errors.New("the head has a time that the desk would not have written")
	case !ed25519.Verify(key[:], h.signed(), h.Signature):
		return errors.New("the head's signature is wrong: it was changed, or is not the desk's")
	}
	return checkVault(h.Vault)
}

func otherKey(have, want Key) error {
	return fmt.Errorf("it belongs to another audit key, %s, and not to %s", have.Fingerprint(), want.Fingerprint())
}

// signed must never change.
func (h Head) signed() frame {
	return frame(nil).text(headDomain).text(h.Vault).number(h.Seq).text(string(h.Hash[:])).
		number(h.Epoch).number(h.Counter).time(h.Time).text(string(h.Key[:]))
}

func checkVault(id string) error {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	if id == "" || len(id) > maxVault || strings.Trim(id, letters) != "" {
		return errors.New("the vault's ID is not one")
	}
	return nil
}

// String is one line for the system's journal. ParseHead reads it.
func (h Head) String() string {
	return fmt.Sprintf(headLine, h.Vault, h.Seq, h.Hash, h.Epoch, h.Counter, h.Time.Format(time.RFC3339Nano), h.Key,
		base64.StdEncoding.EncodeToString(h.Signature))
}

// ParseHead reads a line that ends in what Head.String wrote; a journal puts things before it. It does not verify the
// signature.
func ParseHead(line string) (Head, error) {
	at := strings.Index(line, headDomain+" ")
	if at < 0 || len(line)-at > maxHead {
		return Head{}, fmt.Errorf("this is not a line with %q", headDomain)
	}
	line = strings.TrimRight(line[at:], "\r\n")
	var h Head
	var hash, when, key, signature string
	_, err := fmt.Sscanf(line, headLine, &h.Vault, &h.Seq, &hash, &h.Epoch, &h.Counter, &when, &key, &signature)
	errs := []error{err, h.Hash.UnmarshalText([]byte(hash)), h.Key.UnmarshalText([]byte(key)), checkVault(h.Vault), nil, nil}
	h.Time, errs[4] = time.Parse(time.RFC3339Nano, when)
	h.Signature, errs[5] = base64.StdEncoding.DecodeString(signature)
	if errors.Join(errs...) != nil || h.String() != line {
		return Head{}, fmt.Errorf("the line with %q is damaged", headDomain)
	}
	return h, nil
}
