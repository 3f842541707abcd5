package vault

import (
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

// sentinelKey keys the fingerprints. It stays unsealed until the transaction ends.
func (tx *Tx) sentinelKey() (secret.Secret, error) {
	if !tx.sentinel.IsZero() {
		return tx.sentinel, nil
	}
	key, ok, err := tx.unseal(bucketSystem, []byte(keySentinel))
	if err != nil {
		return secret.Secret{}, err
	}
	if !ok {
		return secret.Secret{}, corrupt("%s has lost the key of its seed fingerprints", tx.s.path)
	}
	tx.sentinel = key
	return key, nil
}

// noteSeed refuses a seed that was seen before, and remembers it.
func (tx *Tx) noteSeed(id device.TokenID, generation int, seed secret.Secret) error {
	key, err := tx.sentinelKey()
	if err != nil {
		return err
	}
	fingerprint := mac(key, "seed", seed.Reveal())
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
