package vault

import (
	"errors"
	"fmt"

	"tokendesk/device"
	"tokendesk/vault/secret"
)

// PIVSecret is one of the secrets of a PIV application.
type PIVSecret byte

// Secrets. The card keeps its management key and PUK, so the vault does, too; a PIN is the holder's, and here only until that
// has it.
const (
	ManagementKey PIVSecret = 'm'
	PUK           PIVSecret = 'u'
	PIN           PIVSecret = 'p'
)

func (k PIVSecret) String() string {
	switch k {
	case ManagementKey:
		return "management key"
	case PUK:
		return "PUK"
	case PIN:
		return "PIN"
	}
	return fmt.Sprintf("secret %d", byte(k))
}

func (k PIVSecret) valid() bool { return k == ManagementKey || k == PUK || k == PIN }

// A key is that of a seed of the same token and generation, and the kind.

func pivKey(id device.TokenID, generation int, kind PIVSecret) []byte {
	return append(seedKey(id, generation), byte(kind))
}

func parsePIVKey(k []byte) (id device.TokenID, generation int, kind PIVSecret, err error) {
	n := max(1, len(k)) - 1
	if id, generation, err = parseSeedKey(k[:n]); err != nil {
		return "", 0, 0, errors.New("it is not the key of a PIV application's secret")
	}
	kind = PIVSecret(k[n])
	if !id.PIV() || !kind.valid() || !validGeneration(generation) {
		err = errors.New("it is not the key of a PIV application's secret")
	}
	return id, generation, kind, err
}

// SetPIVSecret seals a secret of a token's generation. A PIN takes the place of any other; another management key or PUK for the
// same generation is refused, for the card may have the first one.
func (tx *Tx) SetPIVSecret(id device.TokenID, generation int, kind PIVSecret, s secret.Secret) error {
	_, err := device.ParseTokenID(string(id))
	switch {
	case err != nil:
		return fmt.Errorf("cannot set a %v: %w", kind, err)
	case !id.PIV():
		return fmt.Errorf("cannot set a %v of %s: it is no PIV application", kind, id)
	case !kind.valid():
		return fmt.Errorf("cannot set %v of %s: there is none", kind, id)
	case !validGeneration(generation):
		return fmt.Errorf("cannot set the %v of %s: generations start at 1, this is %d", kind, id, generation)
	case kind == ManagementKey && s.Len() != device.ManagementKeySize:
		return fmt.Errorf("cannot set the %v of %s: it has %d bytes, not %d", kind, id, s.Len(), device.ManagementKeySize)
	case kind != ManagementKey && (s.Len() < device.MinPINSize || s.Len() > device.MaxPINSize):
		return fmt.Errorf("cannot set the %v of %s: it has %d bytes, not %d to %d", kind, id, s.Len(), device.MinPINSize, device.MaxPINSize)
	}
	key := pivKey(id, generation, kind)
	old, there, err := tx.unseal(bucketPIV, key)
	if err != nil {
		return err
	}
	if there {
		defer old.Wipe()
		switch {
		case old.Equal(s):
			return nil
		case kind != PIN:
			return fmt.Errorf("cannot set the %v of generation %d of %s: another one is there already; use the next generation", kind, generation, id)
		}
		if err := tx.shred(bucketPIV, key); err != nil {
			return err
		}
	} else if err := tx.checkGeneration(id, generation); err != nil {
		return fmt.Errorf("cannot set a %v: %w", kind, err)
	}
	tx.touch(id)
	return tx.seal(bucketPIV, key, s)
}

// PIVSecret returns a fresh copy of a secret of a token, or of one that was buried, for the caller to wipe, or ErrNotFound.
func (tx *Tx) PIVSecret(id device.TokenID, generation int, kind PIVSecret) (secret.Secret, error) {
	if !validGeneration(generation) {
		return secret.Secret{}, fmt.Errorf("%v of generation %d of %s: %w", kind, generation, id, ErrNotFound)
	}
	s, ok, err := tx.unseal(bucketPIV, pivKey(id, generation, kind))
	if err == nil && !ok {
		err = fmt.Errorf("%v of generation %d of %s: %w", kind, generation, id, ErrNotFound)
	}
	return s, err
}

// HasPIVSecret tells whether there is one, and opens nothing.
func (tx *Tx) HasPIVSecret(id device.TokenID, generation int, kind PIVSecret) (bool, error) {
	if !validGeneration(generation) {
		return false, nil
	}
	val, err := tx.get(bucketPIV, pivKey(id, generation, kind))
	return val != nil, err
}

// DeletePIVSecret removes a secret. One that is not there is no error. Pages of the file hold it, sealed, until Rotate.
func (tx *Tx) DeletePIVSecret(id device.TokenID, generation int, kind PIVSecret) error {
	if !validGeneration(generation) {
		return nil
	}
	tx.touch(id)
	return tx.shred(bucketPIV, pivKey(id, generation, kind))
}

// PIVGenerations lists the generations that a token has secrets of, ascending.
func (tx *Tx) PIVGenerations(id device.TokenID) (out []int, err error) {
	err = tx.pivSecrets(id, func(generation int, _ PIVSecret) error {
		if n := len(out); n == 0 || out[n-1] != generation {
			out = append(out, generation)
		}
		return nil
	})
	return out, err
}

// ForgetPIV removes all secrets of a token but those of one generation; 0: all of them.
func (tx *Tx) ForgetPIV(id device.TokenID, but int) error {
	return tx.pivSecrets(id, func(generation int, kind PIVSecret) error {
		if generation == but {
			return nil
		}
		return tx.DeletePIVSecret(id, generation, kind)
	})
}

// forgetPINs removes the PINs of a token that goes: what is left is of use to the desk alone.
func (tx *Tx) forgetPINs(id device.TokenID) error {
	return tx.pivSecrets(id, func(generation int, kind PIVSecret) error {
		if kind != PIN {
			return nil
		}
		return tx.DeletePIVSecret(id, generation, kind)
	})
}

// pivSecrets calls fn for the secrets of a token.
func (tx *Tx) pivSecrets(id device.TokenID, fn func(generation int, kind PIVSecret) error) error {
	if !id.PIV() {
		return nil
	}
	return tx.scan(bucketPIV, seedPrefix(id), nil, func(p pair) (bool, error) {
		_, generation, kind, err := parsePIVKey(p.key)
		if err != nil {
			return false, tx.refuse(bucketPIV, p.key, err)
		}
		return true, fn(generation, kind)
	})
}

// needPIV checks that what the desk needs to manage a card is there.
func (tx *Tx) needPIV(id device.TokenID, generation int) error {
	for _, kind := range []PIVSecret{ManagementKey, PUK} {
		if there, err := tx.HasPIVSecret(id, generation, kind); err != nil {
			return err
		} else if !there {
			return fmt.Errorf("the %v of generation %d of %s is missing: the token is at this generation", kind, generation, id)
		}
	}
	return nil
}

// unreferencedPIV checks that a token which is not there has left none, or what its card may still have.
func (tx *Tx) unreferencedPIV(id device.TokenID, buried bool) error {
	return tx.pivSecrets(id, func(generation int, kind PIVSecret) error {
		if buried && kind != PIN {
			return nil
		}
		return fmt.Errorf("the %v of generation %d is of token %s, which does not exist", kind, generation, id)
	})
}

// checkPIV checks that the secrets of PIV applications open, and belong to tokens.
func (c *contents) checkPIV() error {
	var last device.TokenID
	return c.scan(bucketPIV, nil, nil, func(p pair) (bool, error) {
		if err := c.coder.checkSecret(bucketPIV, p.key, p.val); err != nil {
			return false, c.refuse(bucketPIV, p.key, err)
		}
		id, _, _, err := parsePIVKey(p.key)
		if err != nil {
			return false, c.refuse(bucketPIV, p.key, err)
		}
		if id == last {
			return true, nil
		}
		last = id
		return true, c.settleToken(id, nil)
	})
}

// dropPINs removes the PINs from a file that is being written: those of a backup were perhaps taken since, and are their holders'.
// Those of unfinished work stay, which needs them.
func dropPINs(in commit) error {
	return inBatches(in, bucketPIV, func(tx *Tx, p pair) error {
		id, generation, kind, err := parsePIVKey(p.key)
		if err != nil {
			return tx.refuse(bucketPIV, p.key, err)
		}
		if kind != PIN {
			return nil
		}
		if _, working, err := tx.JobFor(id); err != nil || working {
			return err
		}
		return tx.DeletePIVSecret(id, generation, kind)
	})
}
