package tpmseal

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"

	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/stretch"
)

const (
	rawAuthSize = 24
	authSize    = 32 // rawAuthSize in base64url: as many bytes as the authorization value of a SHA-256 object may have
	halfSize    = 32
)

// Key implements vault.Sealer. It takes 64 MiB and a tenth of a second with the default costs, and does not try the PIN.
func (t *TPM) Key(pin secret.Secret, from []byte) (secret.Secret, error) {
	var recipe stretch.Recipe
	if from == nil {
		if pin.IsZero() {
			return secret.Secret{}, nil
		}
		var err error
		if recipe, err = stretch.New(t.costs); err != nil {
			return secret.Secret{}, err
		}
	} else {
		b, err := decodeBlob(from)
		if err != nil {
			return secret.Secret{}, corrupt(fmt.Errorf("cannot unseal: %w", err))
		}
		switch {
		case !b.hasPIN() && pin.IsZero():
			return secret.Secret{}, nil
		case b.hasPIN() == pin.IsZero():
			return secret.Secret{}, t.mismatch(b)
		}
		if recipe, err = stretch.Decode(b.recipe); err != nil {
			return secret.Secret{}, corrupt(fmt.Errorf("cannot unseal: %w", err))
		}
	}
	derived := recipe.Derive(pin, rawAuthSize+halfSize)
	defer derived.Wipe()
	return secret.Concat(secret.New(recipe.Encode()), derived), nil
}

// mismatch is what a PIN for a blob without one gets, and the reverse. It costs no guess.
func (t *TPM) mismatch(b *blob) error {
	left, _, err := t.Guesses()
	if err != nil {
		return err
	}
	e := &vault.StateError{State: vault.StateWrongPIN, Left: left,
		Err: errors.New("a PIN is given, and it is sealed without one"), Cure: "give no PIN"}
	if b.hasPIN() {
		e.Err, e.Cure = errors.New("no PIN is given, and it is sealed with one"), "give its PIN"
	}
	return e
}

// pinKey is a key taken apart. The zero pinKey is that of no PIN.
type pinKey struct {
	recipe []byte
	auth   secret.Secret // what the TPM asks for; free of zero bytes
	half   secret.Secret // what the TPM never sees
}

func splitKey(key secret.Secret) (pinKey, error) {
	defer runtime.KeepAlive(key)
	if key.IsZero() {
		return pinKey{}, nil
	}
	if key.Len() != stretch.Size+rawAuthSize+halfSize {
		return pinKey{}, fmt.Errorf("a key of %d bytes does not come from this sealer", key.Len())
	}
	b := key.Reveal()
	recipe, raw, half := b[:stretch.Size], b[stretch.Size:stretch.Size+rawAuthSize], b[stretch.Size+rawAuthSize:]
	return pinKey{recipe: bytes.Clone(recipe), auth: printable(raw), half: secret.New(bytes.Clone(half))}, nil
}

func (k pinKey) isZero() bool { return len(k.recipe) == 0 }

// wipe has a pointer, so that a deferred call finds what was put in later.
func (k *pinKey) wipe() {
	k.auth.Wipe()
	k.half.Wipe()
}

// printable is free of zero bytes, at which go-tpm v0.9.8 would cut an authorization value (go-tpm#446).
func printable(raw []byte) secret.Secret {
	s, _ := secret.Make(base64.RawURLEncoding.EncodedLen(len(raw)), func(b []byte) error {
		base64.RawURLEncoding.Encode(b, raw)
		return nil
	})
	return s
}

func randomAuth() secret.Secret {
	raw := secret.Random(rawAuthSize)
	defer raw.Wipe()
	return printable(raw.Reveal())
}

func checkAuth(auth []byte) error {
	if len(auth) != authSize || bytes.IndexByte(auth, 0) >= 0 {
		return fmt.Errorf("an authorization value must have %d bytes and none of them zero", authSize)
	}
	return nil
}
