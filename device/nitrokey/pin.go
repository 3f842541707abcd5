package nitrokey

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"tokendesk/device"
	"tokendesk/vault/secret"
)

// adminPIN is its name for people.
const adminPIN = "admin PIN"

// Sizes of PINs. The smart card takes none that is shorter (OpenPGP card specification 3.4, section 4.2).
const (
	minPIN       = 8
	passwordSize = 25
	maxTries     = 15 // devices that cannot ask their card give higher numbers: 77, 88, 255
)

// errNotJudged means that the card in the device was not asked, or did not answer.
var errNotJudged = &device.CureError{
	Err:  errors.New("the smart card in the device does not answer"),
	Cure: "end other programs that use it, such as gpg, and repeat",
}

// lastTryError is a PINError about a PIN that was not shown.
type lastTryError struct{ device.PINError }

func (e *lastTryError) Error() string {
	return fmt.Sprintf("only one try is left for the %s, and the desk does not use it up", e.Name)
}

func (e *lastTryError) Unwrap() error { return &e.PINError }

// authenticate shows the device its admin PIN and returns a temporary password that stands for it until the device loses power.
func (s *Session) authenticate(ctx context.Context, pin secret.Secret) (secret.Secret, error) {
	if pin.IsZero() {
		return secret.Secret{}, &device.CureError{Err: device.ErrLocked, Cure: "tell the desk the admin PIN of the device"}
	}
	left, err := s.tries(ctx)
	if err != nil {
		return secret.Secret{}, err
	}
	switch {
	case left <= 1:
		return secret.Secret{}, fewTries(left)
	case !possible(pin):
		return secret.Secret{}, &device.PINError{Name: adminPIN, Retries: left}
	}
	temporary, err := secret.Make(passwordSize, func(p []byte) error { device.Draw(s.report, p); return nil })
	if err != nil {
		return secret.Secret{}, err
	}
	var payload [2 * passwordSize]byte
	defer clear(payload[:])
	copy(payload[:], pin.Reveal())
	copy(payload[passwordSize:], temporary.Reveal())
	_, err = s.ask(ctx, commandAuthenticate, payload[:])
	if err == nil {
		return temporary, nil
	}
	temporary.Wipe()
	if !errors.Is(err, resultWrongPassword) {
		return secret.Secret{}, err
	}
	now, err := s.tries(ctx)
	switch {
	case err != nil:
		return secret.Secret{}, err
	case now >= left: // devices say the same when they cannot ask
		return secret.Secret{}, errNotJudged
	}
	return secret.Secret{}, &device.PINError{Name: adminPIN, Retries: now}
}

// possible tells whether this can be an admin PIN. One that cannot is not worth a try.
func possible(pin secret.Secret) bool {
	return pin.Len() >= minPIN && pin.Len() <= passwordSize && bytes.IndexByte(pin.Reveal(), 0) < 0
}

// fewTries refuses to show a PIN.
func fewTries(left int) error {
	e := device.PINError{Name: adminPIN, Retries: left}
	if left == 0 {
		return &device.CureError{
			Err:  &e,
			Cure: "only a factory reset helps, which erases everything on the device (gpg --card-edit: admin, factory-reset)",
		}
	}
	return &device.CureError{
		Err:  &lastTryError{e},
		Cure: "show the device the right one in another program, such as gpg --card-edit (admin, passwd), which gives it all tries back",
	}
}

// tries reads how many wrong admin PINs the device still takes.
func (s *Session) tries(ctx context.Context) (int, error) {
	left := 0
	if s.storage {
		status, err := s.storageStatus(ctx) // before 0.54, only this asks the card
		if err != nil {
			return 0, fmt.Errorf("cannot read how many tries are left for the %s: %w", adminPIN, err)
		}
		left = status.tries
	} else {
		data, err := s.ask(ctx, commandTries, nil)
		if err != nil {
			return 0, fmt.Errorf("cannot read how many tries are left for the %s: %w", adminPIN, err)
		}
		left = int(data[0])
	}
	if left > maxTries {
		return 0, errNotJudged
	}
	return left, nil
}
