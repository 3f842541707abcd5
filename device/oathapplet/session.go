package oathapplet

import (
	"context"
	"errors"
	"fmt"

	"tokendesk/device"
	"tokendesk/device/apdu"
)

// Session is a conversation with the OATH application of an opened card, which stays selected: nobody else may use the card as
// long as the session is used, nor may two goroutines. The caller closes the card.
type Session struct {
	card   device.Card
	about  about
	locked bool // it wants its password
}

var _ device.Session = (*Session)(nil)

// Open selects the OATH application of a card. It fails with device.ErrNoApplication if the card has none.
func Open(ctx context.Context, card device.Card) (*Session, error) {
	s := &Session{card: card}
	if err := s.choose(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// choose selects the application, which then forgets that it was shown its password.
func (s *Session) choose(ctx context.Context) error {
	const what = "select the OATH application"
	answer, err := apdu.Select(ctx, s.card, apdu.OATH)
	if apdu.IsUnknown(err) {
		return &device.CureError{
			Err:  fmt.Errorf("cannot %s: %w", what, device.ErrNoApplication),
			Cure: "if the key has it switched off, switch it on: ykman config usb --enable OATH",
		}
	}
	if err == nil {
		s.about, err = parseSelect(answer)
	}
	if err != nil {
		return failed(what, err)
	}
	s.locked = s.about.challenge != nil
	return nil
}

// Nitrokey tells whether the card is a Nitrokey 3.
func (s *Session) Nitrokey() bool { return s.about.nitrokey }

// Locked tells whether the application wants its password before it does anything.
func (s *Session) Locked() bool { return s.locked }

// Capacity is how many credentials the application holds; 0 if that is not known: no command tells it.
func (s *Session) Capacity() int {
	switch v := s.about.version; {
	case s.about.nitrokey || v.Major < 4: // the version of a YubiKey NEO is one of its application
		return 0
	case v.Less(device.Version{Major: 5, Minor: 7}):
		return 32 // docs.yubico.com, YubiKey Technical Manual: OATH
	}
	return 64
}

// Identify implements device.Session. A YubiKey does not tell its serial number here. The version of a Nitrokey 3 is that of the
// application. One that wants its password is named as locked, without counts.
func (s *Session) Identify(ctx context.Context) (device.Identity, error) {
	id := device.Identity{Serial: s.about.serial, Firmware: s.about.version}
	if s.about.nitrokey {
		id.ID = device.NitrokeyID(s.about.serial)
	}
	oath := device.Holding{Name: "oath", Locked: s.locked, Capacity: s.Capacity()}
	if !s.locked {
		all, err := s.List(ctx)
		switch {
		case errors.Is(err, device.ErrLocked):
			oath.Locked = true
		case err != nil:
			return device.Identity{}, err
		}
		oath.Used, oath.Configured = len(all), len(all) > 0
	}
	id.Holds = []device.Holding{oath}
	return id, nil
}

// needs fails if a YubiKey is older than a feature.
func (s *Session) needs(feature string, major, minor, build uint8) error {
	need := device.Version{Major: major, Minor: minor, Build: build}
	if !s.about.nitrokey && s.about.version.Less(need) {
		return &device.CureError{
			Err:  &device.FirmwareError{Feature: feature, Need: need, Have: s.about.version},
			Cure: "use a newer key; the firmware of a YubiKey cannot be changed",
		}
	}
	return nil
}
