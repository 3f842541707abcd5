package oathapplet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"tokendesk/device"
	"tokendesk/device/apdu"
	"tokendesk/vault/secret"
)

// Type is how a credential's moving factor moves.
type Type byte

// Types. A Nitrokey 3 has others, which are listed, and with which nothing can be done.
const (
	HOTP Type = 0x10 // RFC 4226
	TOTP Type = 0x20 // RFC 6238
)

// Algorithm is the hash of a credential.
type Algorithm byte

// Algorithms.
const (
	SHA1   Algorithm = 1
	SHA256 Algorithm = 2
	SHA512 Algorithm = 3 // YubiKey 4.3.1 or newer
)

// Credential is what is known of a credential, besides its seed.
type Credential struct {
	// Name has 1 to 64 bytes: "issuer:account", before which a TOTP credential has its period if that is not 30 s:
	// "60/issuer:account".
	Name      string
	Type      Type
	Algorithm Algorithm
	// The rest is not told by List.
	Digits  int    // 6 to 8
	Counter uint32 // the first moving factor of an HOTP credential
	Touch   bool   // each code takes a touch; YubiKey 4.2.6 or newer
}

// Sizes in bytes (YKOATH protocol; yubikit, oath.py: HMAC_MINIMUM_KEY_SIZE).
const (
	maxName = 64
	// MaxSeedSize is at most the block of every hash, so that HMAC uses seeds as they are.
	MaxSeedSize = 64
	minKey      = 14 // shorter seeds are padded with zeros, which HMAC does as well
)

const propertyTouch = 0x02

func (s *Session) check(c Credential, seed secret.Secret) error {
	switch {
	case c.Name == "" || len(c.Name) > maxName:
		return fmt.Errorf("a name has 1 to %d bytes, this one has %d", maxName, len(c.Name))
	case c.Type != HOTP && c.Type != TOTP || c.Algorithm < SHA1 || c.Algorithm > SHA512:
		return fmt.Errorf("no type of credential is %02x with hash %02x", byte(c.Type), byte(c.Algorithm))
	case c.Digits < 6 || c.Digits > 8:
		return fmt.Errorf("codes have 6 to 8 digits, not %d", c.Digits)
	case seed.Len() == 0 || seed.Len() > MaxSeedSize:
		return fmt.Errorf("a seed has 1 to %d bytes, this one has %d", MaxSeedSize, seed.Len())
	case c.Counter != 0 && c.Type != HOTP:
		return errors.New("only HOTP has a counter")
	case c.Algorithm == SHA512 && s.about.nitrokey:
		return errors.New("a Nitrokey 3 has no SHA-512")
	case c.Algorithm == SHA512:
		return s.needs("SHA-512", 4, 3, 1)
	case c.Touch:
		return s.needs("a credential that takes a touch", 4, 2, 6)
	}
	return nil
}

// Put writes a credential in place of any other of that name, and returns when the key has confirmed it. If it is interrupted on
// a Nitrokey 3, neither may be there. It fails with device.ErrFull, device.ErrLocked and device.ErrNoTouch.
func (s *Session) Put(ctx context.Context, c Credential, seed secret.Secret) error {
	return s.put(ctx, c, seed, secret.Secret{})
}

// put is Put with the PIN, in case a Nitrokey 3 has protected what is to be replaced.
func (s *Session) put(ctx context.Context, c Credential, seed, pin secret.Secret) error {
	if err := s.check(c, seed); err != nil {
		return err
	}
	if err := s.keepLongerNames(ctx, c.Name); err != nil {
		return err
	}
	err := s.write(ctx, c, seed)
	taken := apdu.Is(err, apdu.Blocked, apdu.Conditions) // of a Nitrokey 3, and of a CanoKey
	if s.about.nitrokey && apdu.Is(err, apdu.Full) {     // it looks for room before it looks for the name
		var unknown error
		if taken, unknown = s.has(ctx, c.Name); unknown != nil {
			return unknown
		}
	}
	if taken {
		if err := s.makeRoom(ctx, c.Name, pin); err != nil {
			return err
		}
		err = s.write(ctx, c, seed)
	}
	switch {
	case apdu.Is(err, apdu.Full):
		return &device.CureError{
			Err:  fmt.Errorf("cannot write the credential: %w", device.ErrFull),
			Cure: "delete a credential that nobody needs",
		}
	case err != nil:
		return s.refused(err, c.Touch && s.about.nitrokey)
	}
	return nil
}

// keepLongerNames refuses a name with which another one begins, on a YubiKey 4 that would write over that one instead: firmware
// above 4.0.0 and below 4.3.5 (ykman, cli/oath.py: firmware_overwrite_issue).
func (s *Session) keepLongerNames(ctx context.Context, name string) error {
	v := s.about.version
	if s.about.nitrokey || v.Major != 4 || v == (device.Version{Major: 4}) || !v.Less(device.Version{Major: 4, Minor: 3, Build: 5}) {
		return nil
	}
	all, err := s.List(ctx)
	for _, c := range all {
		if c.Name != name && strings.HasPrefix(c.Name, name) {
			return &device.CureError{
				Err:  fmt.Errorf("firmware %s would overwrite credential %s, whose name begins with %s", v, c.Name, name),
				Cure: "choose a name that is the beginning of no other",
			}
		}
	}
	return err
}

func (s *Session) write(ctx context.Context, c Credential, seed secret.Secret) error {
	key := 2 + max(seed.Len(), minKey)
	size := 2 + len(c.Name) + 2 + key
	if c.Touch {
		size += 2
	}
	if c.Counter != 0 {
		size += 2 + 4
	}
	return s.doSecretly(ctx, "write the credential", insPut, size, func(b []byte) []byte {
		b = appendField(b, tagName, []byte(c.Name))
		b = append(b, tagKey, byte(key), byte(c.Type)|byte(c.Algorithm), byte(c.Digits))
		b = append(b, seed.Reveal()...)
		for range key - 2 - seed.Len() {
			b = append(b, 0)
		}
		if c.Touch {
			b = append(b, tagProperty, propertyTouch) // without a length
		}
		if c.Counter != 0 {
			b = append(b, tagCounter, 4)
			b = binary.BigEndian.AppendUint32(b, c.Counter)
		}
		return b
	})
}

// makeRoom deletes a credential whose name is taken. If a Nitrokey 3 does not find it, it is protected by the PIN.
func (s *Session) makeRoom(ctx context.Context, name string, pin secret.Secret) error {
	err := s.remove(ctx, name)
	if !apdu.Is(err, apdu.NotUsable, apdu.NotFound) {
		return err
	}
	const what = "erase a credential that is protected by the key's PIN"
	if pin.IsZero() {
		return fmt.Errorf("cannot %s: %w", what, device.ErrLocked)
	}
	if err := s.choose(ctx); err != nil {
		return err
	}
	if err := s.verifyPIN(ctx, pin); err != nil {
		return err
	}
	return s.remove(ctx, name)
}

// Delete erases a credential. One that is not there is no error. A Nitrokey 3 waits for a touch; device.ErrNoTouch means that none
// came.
func (s *Session) Delete(ctx context.Context, name string) error {
	return s.delete(ctx, name, secret.Secret{})
}

// delete is Delete with the PIN, in case a Nitrokey 3 has protected it, which is seen right after the PIN was shown only.
func (s *Session) delete(ctx context.Context, name string, pin secret.Secret) error {
	if s.about.nitrokey { // it would wait for a touch before it looks
		if there, err := s.has(ctx, name); err != nil || !there {
			return err
		}
		return s.makeRoom(ctx, name, pin)
	}
	err := s.remove(ctx, name)
	if apdu.Is(err, apdu.NotUsable, apdu.NotFound) {
		return nil
	}
	return err
}

func (s *Session) remove(ctx context.Context, name string) error {
	_, err := s.do(ctx, "delete the credential", insDelete, 0, appendField(nil, tagName, []byte(name)))
	return s.refused(err, s.about.nitrokey)
}

// Rename gives a credential another name. YubiKeys have that from 5.3.1 on; a Nitrokey 3 waits for a touch.
func (s *Session) Rename(ctx context.Context, name, to string) error {
	if to == "" || len(to) > maxName {
		return fmt.Errorf("a name has 1 to %d bytes, this one has %d", maxName, len(to))
	}
	if err := s.needs("renaming a credential", 5, 3, 1); err != nil {
		return err
	}
	ins := byte(insRename)
	if s.about.nitrokey {
		ins = insUpdate
	}
	names := appendField(appendField(nil, tagName, []byte(name)), tagName, []byte(to))
	_, err := s.do(ctx, "rename the credential", ins, 0, names)
	return s.refused(err, s.about.nitrokey)
}

// List tells of all credentials, except those that a Nitrokey 3 protects by its PIN. It fails with device.ErrLocked.
func (s *Session) List(ctx context.Context) ([]Credential, error) {
	const what = "list the credentials"
	answer, err := s.do(ctx, what, insList, 0, nil)
	if err != nil {
		return nil, s.refused(err, false)
	}
	all, err := parseList(answer)
	if err != nil {
		return nil, fmt.Errorf("cannot %s: %w", what, err)
	}
	return all, nil
}

// has tells whether there is a credential of a name.
func (s *Session) has(ctx context.Context, name string) (bool, error) {
	all, err := s.List(ctx)
	return slices.ContainsFunc(all, func(c Credential) bool { return c.Name == name }), err
}

func parseList(answer []byte) ([]Credential, error) {
	all, err := fields(answer)
	if err != nil {
		return nil, err
	}
	credentials := make([]Credential, 0, len(all))
	for _, f := range all {
		if f.tag != tagListed || len(f.value) < 2 {
			return nil, fmt.Errorf("%w: field %02x of %d bytes in a list", device.ErrCorrupt, f.tag, len(f.value))
		}
		credentials = append(credentials, Credential{
			Name: string(f.value[1:]), Type: Type(f.value[0] & 0xF0), Algorithm: Algorithm(f.value[0] & 0x0F),
		})
	}
	return credentials, nil
}
