package oathapplet

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1"
	"errors"
	"fmt"

	"tokendesk/device"
	"tokendesk/device/apdu"
	"tokendesk/vault/secret"
)

const (
	keySize       = 16   // what a YubiKey keeps of its password
	keyRounds     = 1000 // of PBKDF2-HMAC-SHA1
	challengeSize = 8
)

// Unlock shows the application its password, or a Nitrokey 3 its PIN, which waits for a touch. Where there is neither, it does
// nothing. A wrong one fails with a *device.PINError; one that is missing with device.ErrLocked, except that a Nitrokey 3 does
// without. The last try of a PIN is not spent.
func (s *Session) Unlock(ctx context.Context, password secret.Secret) error {
	if err := s.choose(ctx); err != nil { // for a challenge that was not answered yet, and the tries that are left
		return err
	}
	switch {
	case s.about.challenge != nil:
		return s.validate(ctx, password)
	case s.about.pin && !password.IsZero():
		return s.verifyPIN(ctx, password)
	}
	return nil
}

// open is Unlock where that is needed to do anything at all.
func (s *Session) open(ctx context.Context, password secret.Secret) error {
	if !s.locked {
		return nil
	}
	return s.Unlock(ctx, password)
}

// validate proves the password, and has the application prove that it knows it as well (YKOATH, VALIDATE).
func (s *Session) validate(ctx context.Context, password secret.Secret) error {
	const what = "show the key its password"
	if password.IsZero() {
		return fmt.Errorf("cannot %s: %w", what, device.ErrLocked)
	}
	challenge := make([]byte, challengeSize)
	device.Draw(s.card, challenge)
	var response, expected []byte
	var err error
	secret.Do(func() {
		var key []byte
		if key, err = pbkdf2.Key(sha1.New, string(password.Reveal()), s.about.salt, keyRounds, keySize); err == nil {
			response, expected = mac(key, s.about.challenge), mac(key, challenge)
		}
	})
	if err != nil {
		return fmt.Errorf("cannot %s: %w", what, err)
	}
	if r, ok := s.card.(interface{ Reset() }); ok { // so that it is locked again once the card is closed
		r.Reset()
	}
	answer, err := s.do(ctx, what, insValidate, 0, appendField(appendField(nil, tagResponse, response), tagChallenge, challenge))
	switch {
	case apdu.Is(err, apdu.WrongData, apdu.Denied, apdu.NotUsable):
		return fmt.Errorf("cannot %s: %w", what, &device.PINError{Name: "password", Retries: device.Unlimited})
	case err != nil:
		return err
	}
	proof, err := only(answer, tagResponse)
	if err == nil && !hmac.Equal(proof, expected) {
		err = fmt.Errorf("%w: it takes the password, but does not know it", device.ErrCorrupt)
	}
	if err != nil {
		return fmt.Errorf("cannot %s: %w", what, err)
	}
	s.locked = false
	return nil
}

func mac(key, message []byte) []byte {
	h := hmac.New(sha1.New, key)
	h.Write(message)
	return h.Sum(nil)
}

// maxPIN is how long a PIN can be (trussed-auth: MAX_PIN_LENGTH).
const maxPIN = 128

// verifyPIN shows a Nitrokey 3 its PIN, which it forgets with the next command.
func (s *Session) verifyPIN(ctx context.Context, pin secret.Secret) error {
	const what = "show the key its PIN"
	if n := pin.Len(); n > maxPIN {
		return fmt.Errorf("cannot %s: it has at most %d bytes, this one has %d", what, maxPIN, n)
	}
	switch tries := s.about.tries; tries {
	case 0:
		return &device.CureError{
			Err:  fmt.Errorf("cannot %s: %w", what, &device.PINError{Name: "PIN"}),
			Cure: "reset the secrets application, which erases it: nitropy nk3 secrets reset",
		}
	case 1:
		return &device.CureError{
			Err:  fmt.Errorf("cannot %s, as one try is left: %w", what, &device.PINError{Name: "PIN", Retries: tries}),
			Cure: "the desk does not spend the last try: use the PIN with Nitrokey's own program first",
		}
	}
	size := 2 + pin.Len()
	err := s.doSecretly(ctx, what, insVerifyPIN, size, func(b []byte) []byte { return appendField(b, tagPIN, pin.Reveal()) })
	if !apdu.Is(err, apdu.Warning) {
		return s.refused(err, true)
	}
	left := s.about.tries - 1
	if left < 0 {
		left = device.Unlimited
	}
	if err := s.choose(ctx); err == nil {
		left = s.about.tries
	} else if errors.Is(err, device.ErrGone) {
		return err
	}
	return fmt.Errorf("cannot %s: %w", what, &device.PINError{Name: "PIN", Retries: left})
}
