package otpslot

import (
	"context"
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
	serial, err := s.Serial(ctx)
	if err != nil {
		return device.Identity{}, err
	}
	return device.Identity{ID: device.YubiKeyID(serial), Serial: serial, Firmware: status.Firmware, Holds: []device.Holding{
		{Name: "otp1", Configured: status.Configured(1)}, {Name: "otp2", Configured: status.Configured(2)},
	}}, nil
}

// Token implements device.Session.
func (s *Session) Token(id device.TokenID) (device.HOTPToken, error) {
	if id.Device().Family() != device.YubiKey || id.Slot() == 0 {
		return nil, fmt.Errorf("%s: %w", id, device.ErrNoApplication)
	}
	return s.Slot(id.Slot())
}
