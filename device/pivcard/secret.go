package pivcard

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/rand"
	"errors"
	"fmt"

	"tokendesk/device"
	"tokendesk/device/apdu"
	"tokendesk/vault/secret"
)

// What a card has when it leaves the factory, before which a secret need not be kept.
const (
	factoryPIN        = "123456"
	factoryPUK        = "12345678"
	factoryManagement = "\x01\x02\x03\x04\x05\x06\x07\x08\x01\x02\x03\x04\x05\x06\x07\x08\x01\x02\x03\x04\x05\x06\x07\x08"
)

// or returns s, or what the factory gave in its place if it is zero; the caller wipes it. Only what a card has may be zero: what it
// is to get would, by an empty or wiped secret, be what everybody knows.
func or(s secret.Secret, factory string) secret.Secret {
	if s.IsZero() {
		return secret.New([]byte(factory))
	}
	return s.Clone()
}

// appendPIN adds a PIN or PUK as cards take it: 8 bytes, filled up with FF (SP 800-73-4 part 2, section 2.4.3).
func appendPIN(b []byte, pin secret.Secret) []byte {
	b = append(b, pin.Reveal()...)
	for range device.MaxPINSize - pin.Len() {
		b = append(b, 0xFF)
	}
	return b
}

func checkSize(name string, s secret.Secret) error {
	if n := s.Len(); n < device.MinPINSize || n > device.MaxPINSize {
		return fmt.Errorf("a %s has %d to %d characters, not %d", name, device.MinPINSize, device.MaxPINSize, n)
	}
	return nil
}

// pinError says that a PIN or PUK was refused, if that is why.
func pinError(err error, name string) error {
	code, ok := errors.AsType[apdu.Status](err)
	switch {
	case !ok:
		return err
	case code == apdu.Blocked:
		return &device.PINError{Name: name}
	case code&^0xF == apdu.Retries, code&^0xF == apdu.Warning: // the latter of old firmware (go-piv/piv-go#60)
		return &device.PINError{Name: name, Retries: int(code & 0xF)}
	}
	return err
}

// VerifyPIN implements device.PIV.
func (c *Card) VerifyPIN(ctx context.Context, pin secret.Secret) error {
	pin = or(pin, factoryPIN)
	defer pin.Wipe()
	if err := checkSize("PIN", pin); err != nil {
		return err
	}
	c.proven = true
	err := c.doSecretly(ctx, "verify the PIN", insVerify, 0, refPIN, device.MaxPINSize, func(b []byte) []byte { return appendPIN(b, pin) })
	return pinError(err, "PIN")
}

// ChangePIN implements device.PIV.
func (c *Card) ChangePIN(ctx context.Context, current, next secret.Secret) error {
	return c.replace(ctx, insChangeReference, refPIN, or(current, factoryPIN), next, "PIN", "PIN")
}

// ChangePUK implements device.PIV.
func (c *Card) ChangePUK(ctx context.Context, current, next secret.Secret) error {
	return c.replace(ctx, insChangeReference, refPUK, or(current, factoryPUK), next, "PUK", "PUK")
}

// Unblock implements device.PIV.
func (c *Card) Unblock(ctx context.Context, puk, pin secret.Secret) error {
	return c.replace(ctx, insResetRetry, refPIN, or(puk, factoryPUK), pin, "PUK", "PIN")
}

// replace sends a secret that the card has, by its name, which it wipes, and one that it is to have.
func (c *Card) replace(ctx context.Context, ins, ref byte, current, next secret.Secret, has, gets string) error {
	defer current.Wipe()
	if err := errors.Join(checkSize(has, current), checkSize(gets, next)); err != nil {
		return err
	}
	c.proven = true
	err := c.doSecretly(ctx, "set the "+gets, ins, 0, ref, 2*device.MaxPINSize, func(b []byte) []byte {
		return appendPIN(appendPIN(b, current), next)
	})
	if apdu.Is(err, apdu.WrongData, apdu.Conditions) {
		return &device.CureError{Err: err, Cure: "choose another " + gets + ": the card may refuse simple ones"}
	}
	return pinError(err, has)
}

// Algorithms of management keys (SP 800-78-4, table 6-2).
const (
	tripleDES = 0x03
	aes128    = 0x08
	aes192    = 0x0A
	aes256    = 0x0C
)

var managementSize = map[byte]int{tripleDES: device.ManagementKeySize, aes128: 16, aes192: device.ManagementKeySize, aes256: 32}

// defaultAlgorithm is that of a new management key.
func (c *Card) defaultAlgorithm() byte {
	if c.needs("", 5, 7, 0) == nil {
		return aes192
	}
	return tripleDES
}

// CheckManagementKey implements device.PIV. The card knows then that it was shown, until it is closed.
func (c *Card) CheckManagementKey(ctx context.Context, key secret.Secret) error {
	return c.authenticate(ctx, key)
}

// SetManagementKey implements device.PIV.
func (c *Card) SetManagementKey(ctx context.Context, current, next secret.Secret) error {
	if next.Len() != device.ManagementKeySize {
		return fmt.Errorf("a management key has %d bytes, not %d", device.ManagementKeySize, next.Len())
	}
	if err := c.authenticate(ctx, current); err != nil {
		return err
	}
	const header = 3
	return c.doSecretly(ctx, "set the management key", insSetManagement, 0xFF, 0xFF, header+next.Len(), func(b []byte) []byte {
		return append(append(b, c.defaultAlgorithm(), refManagement, byte(next.Len())), next.Reveal()...)
	})
}

// authenticate shows the management key: the card's witness is decrypted, and the card encrypts a challenge of ours, so
// that each proves to have the key (SP 800-73-4 part 2, appendix A.1).
func (c *Card) authenticate(ctx context.Context, key secret.Secret) error {
	key = or(key, factoryManagement)
	defer key.Wipe()
	algorithm := byte(tripleDES)
	if c.hasMetadata() {
		about, err := c.metadata(ctx, refManagement)
		if err != nil {
			return err
		}
		if len(about[metaAlgorithm]) == 1 {
			algorithm = about[metaAlgorithm][0]
		}
	}
	if key.Len() != managementSize[algorithm] {
		return fmt.Errorf("%w: one of another kind (algorithm %02x)", device.ErrManagementKey, algorithm)
	}
	c.proven = true
	const what = "show the management key"
	answer, err := c.do(ctx, what, insAuthenticate, algorithm, refManagement, element(0x7C, 0x80, 0))
	if err != nil {
		return err
	}
	block := aes.BlockSize
	if algorithm == tripleDES {
		block = des.BlockSize
	}
	witness, err := dynamic(answer, 0x80, block)
	if err != nil {
		return err
	}
	challenge, expected := make([]byte, block), make([]byte, block)
	rand.Read(challenge)
	secret.Do(func() {
		var cipher cipher.Block
		if algorithm == tripleDES {
			cipher, err = des.NewTripleDESCipher(key.Reveal())
		} else {
			cipher, err = aes.NewCipher(key.Reveal())
		}
		if err == nil {
			cipher.Decrypt(witness, witness)
			cipher.Encrypt(expected, challenge)
		}
	})
	if err != nil {
		return err
	}
	proof := element(0x7C, append(element(0x80, witness...), element(0x81, challenge...)...)...)
	answer, err = c.do(ctx, what, insAuthenticate, algorithm, refManagement, proof)
	if apdu.Is(err, apdu.Denied, apdu.WrongData) {
		return device.ErrManagementKey
	}
	if err != nil {
		return err
	}
	response, err := dynamic(answer, 0x82, block)
	if err == nil && !bytes.Equal(response, expected) {
		err = fmt.Errorf("%w: it takes ours, but does not have it", device.ErrManagementKey)
	}
	return err
}

// dynamic reads one element, of n bytes if that is not 0, of a dynamic authentication template.
func dynamic(answer []byte, tag, n int) ([]byte, error) {
	template, err := inside(answer, 0x7C)
	if err != nil {
		return nil, err
	}
	all, err := elements(template)
	if err != nil {
		return nil, err
	}
	value := all[tag]
	if len(value) == 0 || n != 0 && len(value) != n {
		return nil, fmt.Errorf("%w: an authentication of %d bytes", device.ErrCorrupt, len(value))
	}
	return value, nil
}

// maxTries is more than any card gives.
const maxTries = 300

// Reset implements device.PIV.
func (c *Card) Reset(ctx context.Context) error {
	block := func(what string, ins, ref byte, size int) error {
		for range maxTries {
			wrong := rand.Text()[:size] // somebody's with a chance of 1 in 2^40
			_, err := c.do(ctx, what, ins, 0, ref, []byte(wrong))
			wrongOne, refused := errors.AsType[*device.PINError](pinError(err, ""))
			switch {
			case refused && wrongOne.Retries == 0:
				return nil
			case err != nil && !refused:
				return err
			}
		}
		return fmt.Errorf("cannot %s: the card gives no end of tries", what)
	}
	c.proven = true
	if err := block("block the PIN, which resetting takes", insVerify, refPIN, device.MaxPINSize); err != nil {
		return err
	}
	if err := block("block the PUK, which resetting takes", insChangeReference, refPUK, 2*device.MaxPINSize); err != nil {
		return err
	}
	_, err := c.do(ctx, "reset the PIV application", insReset, 0, 0, nil)
	return err
}
