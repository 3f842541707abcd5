package vault

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"tokendesk/device"
	"tokendesk/vault/secret"
)

// A seed's key is the token's name, a zero byte (which no name contains) and the generation in 4 bytes.

func seedPrefix(id device.TokenID) []byte {
	return append(append(make([]byte, 0, len(id)+5), id...), 0)
}

func seedKey(id device.TokenID, generation int) []byte {
	return binary.BigEndian.AppendUint32(seedPrefix(id), uint32(generation))
}

func parseSeedKey(k []byte) (device.TokenID, int, error) {
	n := len(k) - 5
	if n < 0 || k[n] != 0 {
		return "", 0, errors.New("it is not a seed's key")
	}
	id, err := device.ParseTokenID(string(k[:n]))
	return id, int(binary.BigEndian.Uint32(k[n+1:])), err
}

// validGeneration: generations start at 1 and have 4 bytes in the key.
func validGeneration(g int) bool { return g >= 1 && g <= math.MaxInt32 }

// SetSeed seals the seed of a token's generation. Another seed for the same generation is refused; the same one is not. A
// seed that the vault has held before, of whatever token, is ErrSeedSeen.
func (tx *Tx) SetSeed(id device.TokenID, generation int, s secret.Secret) error {
	if !validGeneration(generation) {
		return fmt.Errorf("cannot set a seed of %s: generations start at 1, this is %d", id, generation)
	}
	if _, err := device.ParseTokenID(string(id)); err != nil {
		return fmt.Errorf("cannot set a seed: %w", err)
	}
	if s.IsZero() {
		return fmt.Errorf("cannot set a seed of %s: it is empty", id)
	}
	if id.PIV() {
		return fmt.Errorf("cannot set a seed of %s: a PIV application has none", id)
	}
	key := seedKey(id, generation)
	old, there, err := tx.unseal(bucketSeeds, key)
	if err != nil {
		return err
	}
	if there {
		defer old.Wipe()
		if !old.Equal(s) {
			return fmt.Errorf("cannot set seed %d of %s: another one is there already; use the next generation", generation, id)
		}
		return nil
	}
	if err := tx.checkGeneration(id, generation); err != nil {
		return fmt.Errorf("cannot set a seed: %w", err)
	}
	if err := tx.noteSeed(id, generation, s); err != nil {
		return err
	}
	tx.touch(id)
	return tx.seal(bucketSeeds, key, s)
}

// Seed returns a fresh copy of a seed, for the caller to wipe, or ErrNotFound.
func (tx *Tx) Seed(id device.TokenID, generation int) (secret.Secret, error) {
	s, ok, err := tx.unseal(bucketSeeds, seedKey(id, generation))
	if err == nil && (!ok || !validGeneration(generation)) {
		err = fmt.Errorf("seed %d of %s: %w", generation, id, ErrNotFound)
	}
	return s, err
}

// Generations lists the generations that a token has seeds of, ascending.
func (tx *Tx) Generations(id device.TokenID) ([]int, error) {
	var out []int
	err := tx.scan(bucketSeeds, seedPrefix(id), nil, func(p pair) (bool, error) {
		_, g, err := parseSeedKey(p.key)
		if err != nil {
			return false, tx.refuse(bucketSeeds, p.key, err)
		}
		out = append(out, g)
		return true, nil
	})
	return out, err
}

// DeleteSeed removes a seed. A seed that is not there is no error. Pages of the file hold it, sealed, until Rotate.
func (tx *Tx) DeleteSeed(id device.TokenID, generation int) error {
	tx.touch(id)
	return tx.shred(bucketSeeds, seedKey(id, generation))
}

// shred takes a secret out, and notes that older pages still hold it.
func (tx *Tx) shred(bucket string, key []byte) error {
	if val, err := tx.get(bucket, key); val == nil || err != nil {
		return err
	}
	tx.weigh(heavy)
	if tx.ledger.Shred.IsZero() {
		tx.ledger.Shred = time.Now().UTC()
	}
	if bucket == bucketSeeds {
		tx.ledger.Destroyed++
	}
	return tx.delete(bucket, key)
}

// SetAccessCode seals the access code that protects a token's slot, in place of any other.
func (tx *Tx) SetAccessCode(id device.TokenID, s secret.Secret) error {
	if _, err := device.ParseTokenID(string(id)); err != nil {
		return fmt.Errorf("cannot set an access code: %w", err)
	}
	if s.IsZero() {
		return fmt.Errorf("cannot set the access code of %s: it is empty", id)
	}
	tx.touch(id)
	return tx.seal(bucketCodes, []byte(id), s)
}

// DeleteAccessCode removes a token's access code, as its slot is empty. A code that is not there is no error.
func (tx *Tx) DeleteAccessCode(id device.TokenID) error {
	tx.touch(id)
	return tx.shred(bucketCodes, []byte(id))
}

// AccessCode returns a fresh copy of the access code of a token, or of one that was buried, for the caller to wipe, or ErrNotFound.
func (tx *Tx) AccessCode(id device.TokenID) (secret.Secret, error) {
	s, ok, err := tx.unseal(bucketCodes, []byte(id))
	if err == nil && !ok {
		err = fmt.Errorf("access code of %s: %w", id, ErrNotFound)
	}
	return s, err
}

func (tx *Tx) seal(bucket string, key []byte, s secret.Secret) error {
	tx.weigh(heavy)
	return tx.put(bucket, key, tx.coder.encodeSecret(bucket, key, tx.version(), s))
}

func (tx *Tx) unseal(bucket string, key []byte) (s secret.Secret, ok bool, err error) {
	sealed, err := tx.get(bucket, key)
	if sealed == nil || err != nil {
		return s, false, err
	}
	if s, err = tx.coder.decodeSecret(bucket, key, sealed); err != nil {
		return secret.Secret{}, false, tx.refuse(bucket, key, err)
	}
	return s, true, nil
}
