package vault

import (
	"errors"
	"fmt"

	"tokendesk/device"
	"tokendesk/vault/secret"
)

// MaxPassword is how long a password of an application can be, in bytes.
const MaxPassword = 128

var errKeeper = errors.New("it is no application with a password")

// SetPassword seals the password or PIN that an application wants before it is programmed, in place of any other. It is the
// application's, whatever tokens it has or had, and named as device.TokenID.Keeper does.
func (tx *Tx) SetPassword(keeper device.TokenID, s secret.Secret) error {
	switch {
	case !keeper.IsKeeper():
		return fmt.Errorf("cannot set the password of %s: %w", keeper, errKeeper)
	case s.IsZero() || s.Len() > MaxPassword:
		return fmt.Errorf("cannot set the password of %s: it has %d bytes, not 1 to %d", keeper, s.Len(), MaxPassword)
	}
	if err := tx.shred(bucketPasswords, []byte(keeper)); err != nil {
		return err
	}
	return tx.seal(bucketPasswords, []byte(keeper), s)
}

// Password returns a fresh copy of the password of an application, for the caller to wipe, or ErrNotFound.
func (tx *Tx) Password(keeper device.TokenID) (secret.Secret, error) {
	s, ok, err := tx.unseal(bucketPasswords, []byte(keeper))
	if err == nil && !ok {
		err = fmt.Errorf("password of %s: %w", keeper, ErrNotFound)
	}
	return s, err
}

// DeletePassword forgets the password of an application. One that is not there is no error.
func (tx *Tx) DeletePassword(keeper device.TokenID) error {
	return tx.shred(bucketPasswords, []byte(keeper))
}

// checkPasswords checks that the passwords of applications open, and are of such as have one.
func (c *contents) checkPasswords() error {
	return c.scan(bucketPasswords, nil, nil, func(p pair) (bool, error) {
		if err := c.coder.checkSecret(bucketPasswords, p.key, p.val); err != nil {
			return false, c.refuse(bucketPasswords, p.key, err)
		}
		if !device.TokenID(p.key).IsKeeper() {
			return false, c.refuse(bucketPasswords, p.key, errKeeper)
		}
		return true, nil
	})
}
