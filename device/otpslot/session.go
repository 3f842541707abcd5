// Package otpslot speaks the OTP application of YubiKeys: the status, the serial number, and two slots that can be configured,
// deleted and asked for typed codes. It is reached by frames over the feature reports of the keyboard, or by the APDUs of the
// smart card, where no codes are seen.
//
// Connection, protocol and session are separate: a device.Report or a device.Card moves bytes; a link says how a command is
// packed into them, and what the status after it means (reports.go with frame.go, card.go); a Session keeps what the key has
// told; a Slot is a device.HOTPToken. Protocol facts follow yubikey-manager (core/otp.py, core/smartcard, yubiotp.py) and
// libykpers. A write returns only after the device has confirmed it; the device gives no reason when it refuses, so errors
// list what it can have been.
package otpslot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"tokendesk/device"
)

// Slot commands.
const (
	commandConfigure1 = 0x01
	commandConfigure2 = 0x03
	commandSerial     = 0x10
)

// Bounds of the protocol.
const (
	writeGap     = time.Millisecond        // least time between two writes
	pollGap      = 200 * time.Microsecond  // least time between two looks at the flags
	pollShare    = 32                      // a longer wait is noticed late by this part of it at most
	writeTimeout = 1150 * time.Millisecond // a swap can keep the write flag for 920 ms
	reclaimTries = 6                       // after another interface was used, commands can fail for 3 s
	reclaimGap   = 500 * time.Millisecond
	serialSize   = 4
)

// ErrSerialHidden means that the key does not tell its serial number over USB. It stays silent for two
// reasons that cannot be told apart, so the text has the cure for both.
var ErrSerialHidden = errors.New("the key does not tell its serial number over USB: if another program has just " +
	"used the key, repeat in a few seconds; otherwise set SERIAL_API_VISIBLE on one of its slots (ykman otp settings), " +
	"or erase both slots")

// Status is the status report.
type Status struct {
	Firmware device.Version
	Sequence byte // moves by one with every accepted write; 0 with both slots empty
	slots    byte
}

// Configured reports whether slot 1 or 2 holds something. Firmware before 2.1 does not tell.
func (s Status) Configured(slot int) bool { return s.slots&(1<<(slot-1)) != 0 }

// statusSize is that of a status without flags: version, sequence, touch level.
const statusSize = 6

func parseStatus(b [statusSize]byte) Status {
	return Status{Firmware: device.Version{Major: b[0], Minor: b[1], Build: b[2]}, Sequence: b[3], slots: b[4]}
}

// Session is a conversation with the OTP application of one opened key. It is used by one goroutine at a time.
type Session struct {
	link      link
	keys      *typist        // nil: over a card
	firmware  device.Version // zero until the status was read
	serial    device.Serial
	hasSerial bool
}

// New starts a session on an opened interface. The caller closes r.
func New(r device.Report) *Session {
	return &Session{link: &reports{report: r}, keys: &typist{report: r}}
}

// Status reads the status report.
func (s *Session) Status(ctx context.Context) (Status, error) {
	status, err := s.status(ctx)
	if err != nil {
		return Status{}, fmt.Errorf("cannot read the status: %w", err)
	}
	return status, nil
}

func (s *Session) status(ctx context.Context) (Status, error) {
	status, err := s.link.status(ctx)
	if err == nil {
		s.firmware = status.Firmware
	}
	return status, err
}

// Serial reads the serial number, trying again while the key is still busy with another interface.
func (s *Session) Serial(ctx context.Context) (device.Serial, error) {
	if s.hasSerial {
		return s.serial, nil
	}
	if err := s.require(ctx, "the serial number", needSerial); err != nil {
		return 0, fmt.Errorf("cannot read the serial number: %w", err)
	}
	tries := 1
	if s.link.reclaims() {
		tries = reclaimTries
	}
	var err error
	for try := range tries {
		if try > 0 {
			if err := pause(ctx, reclaimGap); err != nil {
				return 0, fmt.Errorf("cannot read the serial number: %w", err)
			}
		}
		var data []byte
		if data, err = s.link.ask(ctx, commandSerial, serialSize); err == nil {
			s.serial, s.hasSerial = device.Serial(binary.BigEndian.Uint32(data)), true
			return s.serial, nil
		}
		if errors.Is(err, device.ErrGone) || ctx.Err() != nil {
			break
		}
	}
	return 0, fmt.Errorf("cannot read the serial number: %w", err)
}

// require fails with a FirmwareError if the key is older than need.
func (s *Session) require(ctx context.Context, feature string, need device.Version) error {
	if s.firmware == (device.Version{}) {
		if _, err := s.status(ctx); err != nil {
			return err
		}
	}
	if s.firmware.Less(need) {
		return &device.CureError{
			Err:  &device.FirmwareError{Feature: feature, Need: need, Have: s.firmware},
			Cure: "use a newer key; the firmware of a YubiKey cannot be changed",
		}
	}
	return nil
}

// errRejected means that the device took a write and changed nothing.
var errRejected = errors.New("rejected")

// configure writes a slot and waits until the device has confirmed it.
func (s *Session) configure(ctx context.Context, slot int, payload []byte) error {
	command := byte(commandConfigure1)
	if slot == 2 {
		command = commandConfigure2
	}
	before, after, err := s.link.write(ctx, command, payload)
	if err != nil {
		return err
	}
	if !s.link.took(before, after) {
		return errRejected
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
