package otpslot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"tokendesk/device"
	"tokendesk/vault/secret"
)

// Layout of a slot configuration; the current access code follows it.
const (
	configSize    = 52
	offsetUID     = 16
	offsetKey     = 22
	offsetNewCode = 38
	offsetFixed   = 44 // size of the fixed part, then EXT, TKT and CFG flags
	offsetCRC     = 50
)

// Flags of a slot configuration.
const (
	extSerialAPIVisible = 0x04 // without it, a write hides the serial number
	extAllowUpdate      = 0x20
	tktEnter            = 0x20
	tktOATHHOTP         = 0x40
	cfgEightDigits      = 0x02
	cfgModhexTwo        = 0x40 // the first two bytes of the fixed part are typed in modhex, the rest as digits
)

// Firmware that features need.
var (
	needSlot2        = device.Version{Major: 2}
	needHOTP         = device.Version{Major: 2, Minor: 1}
	needStartCounter = device.Version{Major: 2, Minor: 2}
	needSerial       = needStartCounter
	needStatus       = needHOTP // to tell which slots are configured
)

// maxIdentifierSerial is the largest serial that fits into the 8 digits of a token identifier.
const maxIdentifierSerial = 99_999_999

// Slot is one of the two slots of a key: a device.HOTPToken whose codes are typed.
type Slot struct {
	session *Session
	number  int
}

var _ device.HOTPToken = (*Slot)(nil)

// Slot returns slot 1 or 2.
func (s *Session) Slot(number int) (*Slot, error) {
	if number != 1 && number != 2 {
		return nil, fmt.Errorf("a YubiKey has slots 1 and 2, not %d", number)
	}
	return &Slot{s, number}, nil
}

// Describe reads serial number, firmware and whether the slot is configured. Over a card, a serial that is not told is 0, as
// other applications of the card tell it; and firmware before 5.4.3 tells what the slot held when the key was inserted.
func (s *Slot) Describe(ctx context.Context) (device.State, error) {
	status, err := s.session.Status(ctx)
	if err != nil {
		return device.State{}, err
	}
	serial, err := s.session.toldSerial(ctx)
	if err != nil {
		return device.State{}, err
	}
	return device.State{
		Serial: serial, Firmware: status.Firmware, Configured: status.Configured(s.number), Stale: !s.session.link.tells(status.Firmware),
	}, nil
}

// Program writes an HOTP configuration.
func (s *Slot) Program(ctx context.Context, c device.HOTPConfig) error {
	if err := checkConfig(c); err != nil {
		return err
	}
	const op = "program the slot"
	for _, gate := range []struct {
		applies bool
		feature string
		need    device.Version
	}{
		{s.number == 2, "slot 2", needSlot2},
		{true, "HOTP", needHOTP},
		{c.StartCounter != 0, "a start counter", needStartCounter},
	} {
		if !gate.applies {
			continue
		}
		if err := s.session.require(ctx, gate.feature, gate.need); err != nil {
			return fmt.Errorf("cannot %s: %w", op, err)
		}
	}
	var serial device.Serial
	if c.TokenIdentifier {
		var err error
		if serial, err = s.session.Serial(ctx); err != nil {
			return fmt.Errorf("cannot %s: %w", op, err)
		}
		if serial > maxIdentifierSerial {
			return fmt.Errorf("serial %s does not fit into the 8 digits of a token identifier: program it without one", serial)
		}
	}
	payload := hotpConfig(c, serial)
	defer clear(payload)
	return s.configure(ctx, op, payload, c.CurrentAccessCode)
}

// checkConfig refuses what no slot takes.
func checkConfig(c device.HOTPConfig) error {
	if c.StartCounter%device.StartCounterStep != 0 || c.StartCounter > device.MaxStartCounter {
		return fmt.Errorf("a start counter is a multiple of %d up to %d, not %d", device.StartCounterStep, device.MaxStartCounter, c.StartCounter)
	}
	for _, code := range []secret.Secret{c.NewAccessCode, c.CurrentAccessCode} {
		if n := code.Len(); n != 0 && n != device.AccessCodeSize {
			return fmt.Errorf("an access code has %d bytes, this one has %d", device.AccessCodeSize, n)
		}
	}
	return c.Validate()
}

// Unlock implements device.HOTPToken: an access code cannot be tried without a write.
func (s *Slot) Unlock(context.Context, secret.Secret) error { return nil }

// Emission implements device.HOTPToken.
func (s *Slot) Emission() device.Emission {
	switch {
	case s.session.keys == nil:
		return device.Elsewhere
	case s.number == 2:
		return device.LongTouch
	}
	return device.ShortTouch
}

// Delete erases the slot. Nothing is written to a slot that is empty: a key with nothing in it could not
// confirm the write, because its sequence stays 0.
func (s *Slot) Delete(ctx context.Context, current secret.Secret) error {
	const op = "delete the slot"
	if n := current.Len(); n != 0 && n != device.AccessCodeSize {
		return fmt.Errorf("cannot %s: an access code has %d bytes, this one has %d", op, device.AccessCodeSize, n)
	}
	if s.number == 2 {
		if err := s.session.require(ctx, "slot 2", needSlot2); err != nil {
			return fmt.Errorf("cannot %s: %w", op, err)
		}
	}
	status, err := s.session.status(ctx)
	if err != nil {
		return fmt.Errorf("cannot %s: %w", op, err)
	}
	if !status.Configured(s.number) && s.session.link.tells(status.Firmware) {
		return nil
	}
	payload := make([]byte, configSize+device.AccessCodeSize)
	copy(payload[configSize:], current.Reveal())
	defer clear(payload)
	err = s.configure(ctx, op, payload, current)
	if rejected, ok := errors.AsType[*device.RejectedError](err); ok && !status.Configured(s.number) {
		rejected.Reasons = append(rejected.Reasons,
			"there is nothing in it, which this firmware does not tell for sure over this interface")
	}
	return err
}

func (s *Slot) configure(ctx context.Context, op string, payload []byte, current secret.Secret) error {
	err := s.session.configure(ctx, s.number, payload)
	if !errors.Is(err, errRejected) {
		if err != nil {
			return fmt.Errorf("cannot %s: %w", op, err)
		}
		return nil
	}
	reasons := []string{"the slot is protected by an access code that the desk does not know"}
	if !current.IsZero() {
		reasons[0] = "the slot is protected by another access code than the one in the vault"
	}
	return &device.RejectedError{Op: op, Reasons: append(reasons,
		"the slot is locked against changes by the other slot's settings",
		"the firmware does not support this configuration")}
}

// hotpConfig lays out a slot configuration, followed by the current access code.
func hotpConfig(c device.HOTPConfig, serial device.Serial) []byte {
	p := make([]byte, configSize+device.AccessCodeSize)
	var fixed int
	var cfg byte
	if c.TokenIdentifier {
		// OATH token identifier of class A: manufacturer "ub", type "he", 8-digit serial as BCD
		p[0], p[1] = 0xE1, 0x63
		n := uint32(serial)
		for i := 5; i >= 2; i-- {
			p[i] = byte(n%10 | n/10%10<<4)
			n /= 100
		}
		fixed, cfg = 6, cfgModhexTwo
	}
	seed := c.Seed.Reveal()
	copy(p[offsetKey:offsetKey+16], seed)
	if len(seed) > 16 {
		copy(p[offsetUID:], seed[16:])
	}
	binary.BigEndian.PutUint16(p[offsetUID+4:], uint16(c.StartCounter/device.StartCounterStep))
	copy(p[offsetNewCode:], c.NewAccessCode.Reveal())
	tkt := byte(tktOATHHOTP)
	if c.Enter {
		tkt |= tktEnter
	}
	if c.Digits == 8 {
		cfg |= cfgEightDigits
	}
	p[offsetFixed] = byte(fixed)
	p[offsetFixed+1] = extSerialAPIVisible | extAllowUpdate
	p[offsetFixed+2] = tkt
	p[offsetFixed+3] = cfg
	binary.LittleEndian.PutUint16(p[offsetCRC:], ^crc16(p[:offsetCRC]))
	copy(p[configSize:], c.CurrentAccessCode.Reveal())
	return p
}
