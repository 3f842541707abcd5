package otpslot

import (
	"context"
	"errors"
	"fmt"

	"tokendesk/device"
)

var _ device.Session = (*Session)(nil)

// Identify implements device.Session.
func (s *Session) Identify(ctx context.Context) (device.Identity, error) {
	status, err := s.Status(ctx)
	if err != nil {
		return device.Identity{}, err
	}
	serial, err := s.toldSerial(ctx)
	if err != nil {
		return device.Identity{}, err
	}
	id := device.Identity{Serial: serial, Firmware: status.Firmware, Holds: []device.Holding{
		{Name: "otp1", Configured: status.Configured(1)}, {Name: "otp2", Configured: status.Configured(2)},
	}}
	if s.hasSerial {
		id.ID = device.YubiKeyID(serial)
	}
	return id, nil
}

// toldSerial is Serial; but over a card, where other applications tell it as well, one that is hidden is 0.
func (s *Session) toldSerial(ctx context.Context) (device.Serial, error) {
	serial, err := s.Serial(ctx)
	if s.keys == nil && errors.Is(err, ErrSerialHidden) {
		return 0, nil
	}
	return serial, err
}

// Token implements device.Session.
func (s *Session) Token(_ context.Context, id device.TokenID) (device.HOTPToken, error) {
	if id.Device().Family() != device.YubiKey || id.Slot() == 0 {
		return nil, fmt.Errorf("%s: %w", id, device.ErrNoApplication)
	}
	return s.Slot(id.Slot())
}
