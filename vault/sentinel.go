package vault

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"tokendesk/device"
	"tokendesk/vault/secret"
)

// ErrSeedSeen means that the vault has held a seed before: two tokens with one seed type the same codes.
var ErrSeedSeen = errors.New("this seed has been here before")

// sighting is what is remembered of a seed, for ever: whose it was. Its key is a keyed fingerprint, which tells nothing of
// the seed to whoever has not opened the vault.
type sighting struct {
	Token      device.TokenID `json:"token"`
	Generation int            `json:"generation"`
}

// fingerprint is a seed's. What makes it is kept until the transaction ends.
func (tx *Tx) fingerprint(seed secret.Secret) ([]byte, error) {
	if tx.sentinel == nil {
		key, ok, err := tx.unseal(bucketSystem, []byte(keySentinel))
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, corrupt("%s has lost the key of its seed fingerprints", tx.s.path)
		}
		defer key.Wipe()
		secret.Do(func() { tx.sentinel = hmac.New(sha256.New, key.Reveal()) })
	}
	tx.sentinel.Reset()
	tx.sentinel.Write(binary.BigEndian.AppendUint64(frame("seed"), uint64(seed.Len()))) // in front of the seed, as frame would: see mac
	tx.sentinel.Write(seed.Reveal())
	return tx.sentinel.Sum(nil), nil
}

// noteSeed refuses a seed that was seen before, and remembers it.
func (tx *Tx) noteSeed(id device.TokenID, generation int, seed secret.Secret) error {
	fingerprint, err := tx.fingerprint(seed)
	if err != nil {
		return err
	}
	var old sighting
	seen, err := tx.load(bucketSeen, fingerprint, &old)
	switch {
	case err != nil:
		return err
	case seen && (old.Token != id || old.Generation != generation):
		return fmt.Errorf("cannot set a seed of %s: %w, as that of %s (generation %d); take a fresh one", id, ErrSeedSeen, old.Token, old.Generation)
	case seen:
		return nil
	}
	return tx.store(bucketSeen, fingerprint, sighting{id, generation})
}
