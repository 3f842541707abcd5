// Package pivcard is the PIV application of YubiKeys over PC/SC: the seam device.PIV that provisioning programs against.
//
// Commands go as APDUs of our own through one exclusively opened card, piv-go verifies what they attest. piv-go could send
// them as well, but not for a desk: it keeps PINs and management keys in memory that nobody erases, and as it calls C it
// must not run within secret.Do; and when a card is pulled while it is being opened, it leaves a connection behind that
// keeps the reader from everybody else for as long as this process runs. Here secrets are in locked memory until
// they are sent, and what is computed from them is computed within secret.Do.
//
// Which roots an attestation may end in depends on the card: Yubico's, or the one of the emulator, which is accepted for
// emulated cards only, and those accept no other.
package pivcard

import (
	"context"
	"errors"
	"fmt"

	"tokendesk/device"
	"tokendesk/device/apdu"
	"tokendesk/device/management"
	"tokendesk/device/pcsc"
)

// Card is the PIV application of an opened card. It is used by one goroutine at a time.
type Card struct {
	card     device.Card
	emulated bool
	info     management.Info // its firmware is that of the PIV application
	proven   bool            // a PIN or key was shown: the card has to forget that
}

var _ device.PIV = (*Card)(nil)

// Open opens the card in a reader exclusively, and selects its PIV application. Besides the errors of a device.CardBus it
// fails with management.ErrNotYubiKey, or with a *device.CureError if there is no PIV application. Who expects a certain
// card asks Expect.
func Open(ctx context.Context, reader string, emulated bool) (*Card, error) {
	card, err := pcsc.Bus{}.Open(ctx, reader)
	if err != nil {
		return nil, fmt.Errorf("cannot open the card: %w", err)
	}
	c, err := New(ctx, card, emulated)
	if err != nil {
		card.Close()
		return nil, err
	}
	return c, nil
}

// New selects the PIV application of a card, which it takes over if it succeeds.
func New(ctx context.Context, card device.Card, emulated bool) (*Card, error) {
	info, err := management.Read(ctx, card)
	if err != nil {
		return nil, err
	}
	c := &Card{card: card, emulated: emulated, info: info}
	err = c.choose(ctx, apdu.PIV)
	if apdu.IsUnknown(err) {
		return nil, &device.CureError{
			Err:  errors.New("the key has no PIV application, or has it switched off"),
			Cure: "switch it on: ykman config usb --enable PIV",
		}
	}
	if err != nil {
		return nil, err
	}
	version, err := c.do(ctx, "ask for the version", insVersion, 0, 0, nil)
	if err != nil {
		return nil, err
	}
	if len(version) != 3 {
		return nil, fmt.Errorf("%w: a version of %d bytes", device.ErrCorrupt, len(version))
	}
	c.info.Firmware = device.Version{Major: version[0], Minor: version[1], Build: version[2]}
	return c, nil
}

// choose selects an application.
func (c *Card) choose(ctx context.Context, id []byte) error {
	_, err := apdu.Select(ctx, c.card, id)
	err = failed(fmt.Sprintf("select application %X", id), err)
	return err
}

// forget makes the card forget every PIN and key that it was shown, by selecting another application in between.
func (c *Card) forget(ctx context.Context) error {
	if !c.proven {
		return nil
	}
	if err := c.choose(ctx, apdu.Management); err != nil && !apdu.IsUnknown(err) {
		return err
	}
	err := c.choose(ctx, apdu.PIV)
	c.proven = err != nil
	return err
}

// Info is what the card has told of itself when it was opened.
func (c *Card) Info() management.Info { return c.info }

// Expect fails if the card is another one than the caller means: two readers can have one name, and a reader's name can
// come to be another's.
func (c *Card) Expect(serial device.Serial) error {
	if c.info.Serial == serial {
		return nil
	}
	return &device.CureError{
		Err:  fmt.Errorf("the reader has another card than expected: serial %s, not %s", c.info.Serial, serial),
		Cure: "leave only the key that is meant plugged in, and try again",
	}
}

// Close lets others have the card, which forgets every PIN and key that it was shown. A second Close does nothing.
func (c *Card) Close() error {
	if r, ok := c.card.(interface{ Reset() }); ok && c.proven {
		r.Reset()
	}
	return c.card.Close()
}
