// Package nitrokey speaks to the HOTP slots of the Nitrokey Pro, the Nitrokey Storage and the Librem Key: commands in feature
// reports of 64 bytes, the serial number of the smart card in the device, its admin PIN, and three slots whose codes are
// calculated on demand.
//
// Protocol facts follow libnitrokey 3 (device_proto.h, stick10_commands.h, stick10_commands_0.8.h, stick20_commands.h,
// NitrokeyManager.cc) and the firmware of the Pro (0.7 to 0.15) and of the Storage (0.53 to 0.57). Firmware before 0.8 and 0.54
// is written to in another way, which is known here too.
//
// The admin PIN is the user's. It is shown to the device when something is to be written, and only if more than one try is left
// for it: a device whose admin PIN is blocked has to be reset, and loses its keys.
package nitrokey

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tokendesk/device"
)

// Bounds of the protocol. libnitrokey waits 100 ms between two looks for an answer, 40 ms with a Storage, and takes no setting
// below 20 ms.
const (
	shortPoll     = 20 * time.Millisecond
	proPoll       = 100 * time.Millisecond
	storagePoll   = 40 * time.Millisecond
	answerTimeout = 10 * time.Second // the smart card can take seconds
	heardTimeout  = 2 * time.Second  // after which a command that the device has not begun with is lost
	sendTries     = 3                // of a command that arrives damaged, or is lost
)

// What keeps an answer from being one.
var (
	errBusy     = fmt.Errorf("%w: it is busy with another command; wait, or pull it, insert it again and repeat", device.ErrTimeout)
	errUnheard  = fmt.Errorf("%w: it answers something else, as if another program used it", device.ErrTimeout)
	errNoSerial = errors.New("the device does not tell the serial number of the smart card in it")
)

// Session is a conversation with one opened device. It is used by one goroutine at a time.
type Session struct {
	report  device.Report
	storage bool
	poll    time.Duration
	mark    byte
	ready   bool   // no command is under way
	shown   uint32 // the checksum of the command that the device answered last

	firmware device.Version
	serial   device.Serial // 0 until both were read
}

var _ device.Session = (*Session)(nil)

// New starts a session on an opened interface of a model with NitrokeySlots. The caller closes r.
func New(r device.Report, m device.Model) *Session {
	s := &Session{report: r, poll: proPoll, storage: m.Vendor == device.NitrokeyVendor && m.Product == 0x4109}
	if s.storage {
		s.poll = storagePoll
	}
	return s
}

// Identify implements device.Session.
func (s *Session) Identify(ctx context.Context) (device.Identity, error) {
	if err := s.identify(ctx); err != nil {
		return device.Identity{}, err
	}
	id := device.Identity{ID: device.NitrokeyID(s.serial), Serial: s.serial, Firmware: s.firmware}
	for n := 1; n <= slotCount; n++ {
		slot := &Slot{s, n}
		configured, err := slot.configured(ctx)
		if err != nil {
			return device.Identity{}, fmt.Errorf("cannot read HOTP slot %d: %w", n, err)
		}
		id.Holds = append(id.Holds, device.Holding{Name: slot.name(), Configured: configured})
	}
	return id, nil
}

// Token implements device.Session.
func (s *Session) Token(_ context.Context, id device.TokenID) (device.HOTPToken, error) {
	for n := 1; n <= slotCount; n++ {
		if slot := (&Slot{s, n}); id == device.AppToken(id.Device(), slot.name()) && id.Device().Family() == device.Nitrokey {
			return slot, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", id, device.ErrNoApplication)
}

// identify reads serial number and firmware, once.
func (s *Session) identify(ctx context.Context) error {
	if s.serial != 0 {
		return nil
	}
	firmware, serial, err := s.status(ctx)
	if err != nil {
		return fmt.Errorf("cannot read the status: %w", err)
	}
	if serial == 0 {
		return &device.CureError{Err: errNoSerial, Cure: "end other programs that use the card, pull the device and insert it again"}
	}
	s.firmware, s.serial = firmware, serial
	return nil
}

func (s *Session) status(ctx context.Context) (device.Version, device.Serial, error) {
	if s.storage {
		status, err := s.storageStatus(ctx)
		return status.firmware, status.serial, err
	}
	data, err := s.ask(ctx, commandStatus, nil)
	if err != nil {
		return device.Version{}, 0, err
	}
	firmware, serial := parseStatus(data[:])
	return firmware, serial, nil
}

// storageStatus reads what only a Storage tells. It does so in one answer; whoever looks too early misses it.
func (s *Session) storageStatus(ctx context.Context) (storageStatus, error) {
	for range sendTries {
		data, err := s.ask(ctx, commandStorageStatus, nil)
		if err != nil {
			return storageStatus{}, err
		}
		if status, ok := parseStorageStatus(data[:]); ok {
			return status, nil
		}
	}
	return storageStatus{}, fmt.Errorf("%w: it does not tell its status", device.ErrCorrupt)
}

// version is what the firmware can be expected to do. A Storage with a number of build is on its way to the next version
// (libnitrokey, get_minor_firmware_version).
func (s *Session) version() device.Version {
	v := s.firmware
	if s.storage && v.Build != 0 {
		v.Minor++
	}
	return v
}

// legacy tells of firmware that takes a slot in one report, which another one authorizes (libnitrokey,
// is_authorization_command_supported).
func (s *Session) legacy() bool {
	if !s.storage {
		return s.version().Less(device.Version{Minor: 8})
	}
	return s.version().Less(device.Version{Minor: 54})
}
