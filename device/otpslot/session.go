// Package otpslot speaks the OTP application of YubiKeys: frames over feature reports, the status, the
// serial number, and two slots that can be configured, deleted and asked for typed codes.
//
// Connection, protocol and session are separate: a device.Report moves bytes, frame.go packs them, a
// Session keeps the order of question and answer, a Slot is a device.HOTPToken. Protocol facts follow
// yubikey-manager (core/otp.py, yubiotp.py) and libykpers. A write returns only after the device has
// confirmed it; the device gives no reason when it refuses, so errors list what it can have been.
package otpslot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"tokendesk/device"
	"tokendesk/device/keyboard"
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

// Session is a conversation with one opened key. It is used by one goroutine at a time.
type Session struct {
	report    device.Report
	lastWrite time.Time
	firmware  device.Version // zero until the status was read
	serial    device.Serial
	hasSerial bool
	decoder   keyboard.Decoder
	typed     strings.Builder // of a line whose end has not come yet; it outlives a wait that was ended in its middle
	typedAt   time.Time
}

// New starts a session on an opened interface. The caller closes r.
func New(r device.Report) *Session { return &Session{report: r} }

// Status reads the status report.
func (s *Session) Status(ctx context.Context) (Status, error) {
	status, err := s.status(ctx)
	if err != nil {
		return Status{}, fmt.Errorf("cannot read the status: %w", err)
	}
	return status, nil
}

func (s *Session) status(ctx context.Context) (Status, error) {
	began := time.Now()
	for {
		r, err := s.get()
		if err != nil {
			return Status{}, err
		}
		switch flags := r[7]; {
		case flags == 0:
			s.firmware = device.Version{Major: r[1], Minor: r[2], Build: r[3]}
			return Status{Firmware: s.firmware, Sequence: r[4], slots: r[5]}, nil
		case flags == neoStarting || flags&flagWrite != 0:
			// busy: look again
		default: // somebody left an answer or a touch request behind
			if err := s.reset(ctx); err != nil {
				return Status{}, err
			}
		}
		if err := s.lookAgain(ctx, began); err != nil {
			return Status{}, err
		}
	}
}

// Serial reads the serial number, trying again while the key is still busy with another interface.
func (s *Session) Serial(ctx context.Context) (device.Serial, error) {
	if s.hasSerial {
		return s.serial, nil
	}
	if err := s.require(ctx, "the serial number", needSerial); err != nil {
		return 0, fmt.Errorf("cannot read the serial number: %w", err)
	}
	var err error
	for try := range reclaimTries {
		if try > 0 {
			if err := pause(ctx, reclaimGap); err != nil {
				return 0, fmt.Errorf("cannot read the serial number: %w", err)
			}
		}
		var data []byte
		if data, err = s.ask(ctx, commandSerial, 4); err == nil {
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

// ask sends a command without payload and reads an answer of n bytes.
func (s *Session) ask(ctx context.Context, command byte, n int) ([]byte, error) {
	if _, err := s.send(ctx, command, nil); err != nil {
		return nil, err
	}
	var data []byte
	began := time.Now()
	for {
		r, err := s.get()
		if err != nil {
			return nil, err
		}
		switch flags := r[7]; {
		case flags&(flagWrite|flagResponse) == flagResponse:
			seq := int(flags & sequenceMask)
			if seq == 0 && len(data) > 0 { // the end
				if err := s.reset(ctx); err != nil {
					return nil, err
				}
				return checkResponse(data, n)
			}
			if seq*chunkSize != len(data) || len(data) > payloadSize {
				return nil, s.abandon(ctx, device.ErrCorrupt)
			}
			data = append(data, r[:7]...)
			continue // the next chunk is there at once
		case flags == 0 && len(data) == 0:
			return nil, ErrSerialHidden // taken, and nothing to say
		case flags == 0:
			return nil, device.ErrCorrupt // ended early
		}
		if err := s.lookAgain(ctx, began); errors.Is(err, errStuck) {
			return nil, s.abandon(ctx, err)
		} else if err != nil {
			return nil, err
		}
	}
}

// abandon makes the device forget an answer that went wrong. That it cannot be reached is worse news than err.
func (s *Session) abandon(ctx context.Context, err error) error {
	if unreachable := s.reset(ctx); unreachable != nil {
		return unreachable
	}
	return err
}

// errStuck means that a flag in the status does not clear.
var errStuck = fmt.Errorf("%w: pull the key, insert it again, and repeat", device.ErrTimeout)

// errRejected means that the device took a write and changed nothing.
var errRejected = errors.New("rejected")

// configure writes a slot and waits until the device has confirmed it.
func (s *Session) configure(ctx context.Context, slot int, payload []byte) error {
	command := byte(commandConfigure1)
	if slot == 2 {
		command = commandConfigure2
	}
	before, err := s.send(ctx, command, payload)
	if err != nil {
		return err
	}
	after, err := s.status(ctx)
	if err != nil {
		return err
	}
	emptied := after.Sequence == 0 && !after.Configured(1) && !after.Configured(2)
	if after.Sequence != before.Sequence+1 && !(emptied && before.Sequence != 0) {
		return errRejected
	}
	return nil
}

// send writes a frame, chunk by chunk, each when the one before was taken. It returns the status that
// the device had right before the first. That the last chunk was taken is for the caller to see: looking
// for it here could swallow the first chunk of an answer.
func (s *Session) send(ctx context.Context, command byte, payload []byte) (before Status, err error) {
	reports := frame(command, payload)
	defer clear(reports)
	if before, err = s.status(ctx); err != nil {
		return before, err
	}
	for i := range reports {
		if i > 0 {
			if err := s.awaitTaken(ctx); err != nil {
				return before, err
			}
		}
		if err := s.set(ctx, reports[i][:]); err != nil {
			return before, err
		}
	}
	return before, nil
}

// awaitTaken waits until the device has taken the chunk before.
func (s *Session) awaitTaken(ctx context.Context) error {
	began := time.Now()
	for {
		r, err := s.get()
		if err != nil {
			return err
		}
		if r[7]&flagWrite == 0 {
			return nil
		}
		if err := s.lookAgain(ctx, began); err != nil {
			return err
		}
	}
}

// lookAgain pauses between two looks at the flags, the longer the more time has passed since the wait
// began: a look costs 1 to 2 ms of the bus. No look is worth it before the next write is allowed.
func (s *Session) lookAgain(ctx context.Context, began time.Time) error {
	waited := time.Since(began)
	if waited > writeTimeout {
		return errStuck
	}
	return pause(ctx, max(pollGap, waited/pollShare, time.Until(s.lastWrite.Add(writeGap))))
}

func (s *Session) reset(ctx context.Context) error {
	var r [device.ReportSize]byte
	r[device.ReportSize-1] = resetReport
	return s.set(ctx, r[:])
}

func (s *Session) set(ctx context.Context, r []byte) error {
	if err := pause(ctx, time.Until(s.lastWrite.Add(writeGap))); err != nil {
		return err
	}
	defer func() { s.lastWrite = time.Now() }()
	return s.report.SetFeature(r)
}

// get reads the 8 bytes of a feature report.
func (s *Session) get() (r [device.ReportSize - 1]byte, err error) {
	var p [device.ReportSize]byte
	if err := s.report.GetFeature(p[:]); err != nil {
		return r, err
	}
	copy(r[:], p[1:])
	return r, nil
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
