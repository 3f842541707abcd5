package nitrokey

import (
	"context"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"tokendesk/device"
	"tokendesk/vault/secret"
)

// Layout of a slot.
const (
	slotCount   = 3
	firstSlot   = 0x10
	label       = "tokendesk" // shown by other programs; one without a name is refused
	labelSize   = 15
	tokenIDSize = 13
	seedSize    = 40
	oldSeedSize = 20
	pieceSize   = 30 // of a name or a seed in one report
)

// Flags of a slot.
const (
	flagEightDigits = 0x01
	flagEnter       = 0x02 // where the user has told the device to type codes
)

// Firmware that features need, of a Pro or Librem Key and of a Storage.
var (
	needZeroSeed    = [2]device.Version{{Minor: 8}, {Minor: 43}} // before, a first byte of zero meant: keep the seed that is there
	needWideCounter = [2]device.Version{{}, {Minor: 54}}         // before, a Storage takes digits
)

// maxNarrowCounter is the largest start counter in 7 digits and a zero byte.
const maxNarrowCounter = 9_999_999

// Slot is one of the three HOTP slots of a device: a device.HOTPToken whose codes are calculated.
type Slot struct {
	session *Session
	number  int // from 1
}

var _ device.HOTPToken = (*Slot)(nil)

func (s *Slot) name() string { return "hotp" + strconv.Itoa(s.number) }

func (s *Slot) wire() byte { return byte(firstSlot + s.number - 1) }

func (s *Slot) cannot(do string, err error) error {
	return fmt.Errorf("cannot %s HOTP slot %d: %w", do, s.number, err)
}

// Describe implements device.HOTPToken. It needs no PIN.
func (s *Slot) Describe(ctx context.Context) (device.State, error) {
	if err := s.session.identify(ctx); err != nil {
		return device.State{}, err
	}
	configured, err := s.configured(ctx)
	if err != nil {
		return device.State{}, s.cannot("read", err)
	}
	return device.State{Serial: s.session.serial, Firmware: s.session.firmware, Configured: configured}, nil
}

func (s *Slot) configured(ctx context.Context) (bool, error) {
	_, err := s.session.ask(ctx, commandSlotName, []byte{s.wire()})
	if errors.Is(err, resultNotProgrammed) {
		return false, nil
	}
	return err == nil, err
}

// Emission implements device.HOTPToken.
func (s *Slot) Emission() device.Emission { return device.Calculated }

// Unlock implements device.HOTPToken: it shows the device its admin PIN.
func (s *Slot) Unlock(ctx context.Context, pin secret.Secret) error {
	temporary, err := s.session.authenticate(ctx, pin)
	temporary.Wipe()
	if err != nil {
		return fmt.Errorf("cannot unlock the device: %w", err)
	}
	return nil
}

// Code implements device.HOTPToken.
func (s *Slot) Code(ctx context.Context) (string, error) {
	data, err := s.session.ask(ctx, commandCode, []byte{s.wire()})
	defer clear(data[:])
	if errors.Is(err, resultNotAuthorized) {
		err = &device.CureError{
			Err:  fmt.Errorf("%w: it gives codes only after its user PIN", device.ErrLocked),
			Cure: `switch that off in the Nitrokey App ("protect OTP with user PIN")`,
		}
	}
	if err != nil {
		return "", s.cannot("get a code of", err)
	}
	code, err := parseCode(data[:])
	if err != nil {
		return "", s.cannot("get a code of", err)
	}
	return code, nil
}

// Delete implements device.HOTPToken. Nothing is asked of a slot that is empty.
func (s *Slot) Delete(ctx context.Context, pin secret.Secret) error {
	if err := s.erase(ctx, pin); err != nil {
		return s.cannot("erase", err)
	}
	return nil
}

func (s *Slot) erase(ctx context.Context, pin secret.Secret) error {
	if err := s.session.identify(ctx); err != nil {
		return err
	}
	if configured, err := s.configured(ctx); err != nil || !configured {
		return err
	}
	temporary, err := s.session.authenticate(ctx, pin)
	if err != nil {
		return err
	}
	defer temporary.Wipe()
	var payload [1 + passwordSize]byte
	defer clear(payload[:])
	payload[0] = s.wire()
	if s.session.legacy() {
		return refusal("erase the slot", s.session.authorized(ctx, commandErase, payload[:1], temporary))
	}
	copy(payload[1:], temporary.Reveal())
	if _, err = s.session.ask(ctx, commandErase, payload[:]); err != nil || !s.session.storage {
		return refusal("erase the slot", err)
	}
	if configured, err := s.configured(ctx); err != nil || !configured { // it can answer without having erased anything
		return err
	}
	return refusal("erase the slot", resultNotAuthorized)
}

// Program implements device.HOTPToken. The slot changes as a whole, with the last command; only a loss of power in its middle
// can leave the seed of before with the new counter.
func (s *Slot) Program(ctx context.Context, c device.HOTPConfig) error {
	if err := s.program(ctx, c); err != nil {
		return s.cannot("program", err)
	}
	return nil
}

func (s *Slot) program(ctx context.Context, c device.HOTPConfig) error {
	if err := s.session.identify(ctx); err != nil {
		return err
	}
	if err := s.check(c); err != nil {
		return err
	}
	temporary, err := s.session.authenticate(ctx, c.CurrentAccessCode)
	if err != nil {
		return err
	}
	defer temporary.Wipe()
	if s.session.legacy() {
		err = s.writeAtOnce(ctx, c, temporary)
	} else {
		err = s.write(ctx, c, temporary)
	}
	return refusal("program the slot", err)
}

// check refuses what the slot does not take.
func (s *Slot) check(c device.HOTPConfig) error {
	if err := c.Validate(); err != nil {
		return err
	}
	switch {
	case c.TokenIdentifier:
		return errors.New("it types no token identifier")
	case !c.NewAccessCode.IsZero():
		return errors.New("it has no access code of its own: the admin PIN protects it")
	case c.StartCounter > 1<<63-1:
		return fmt.Errorf("a start counter is at most %d, not %d", uint64(1<<63-1), c.StartCounter)
	case allZero(c.Seed):
		return errors.New("a seed of nothing but zero bytes means to the device that the one before stays: draw another one")
	case c.Seed.Reveal()[0] == 0:
		return s.session.require("a seed that begins with a zero byte", needZeroSeed, "draw another seed, or update the firmware")
	case c.StartCounter > maxNarrowCounter:
		feature := fmt.Sprintf("a start counter above %d", maxNarrowCounter)
		return s.session.require(feature, needWideCounter, "take a smaller one, or update the firmware")
	}
	return nil
}

func allZero(seed secret.Secret) bool {
	return subtle.ConstantTimeCompare(seed.Reveal(), make([]byte, seed.Len())) == 1
}

// require fails with a FirmwareError if the firmware is older than need.
func (s *Session) require(feature string, need [2]device.Version, cure string) error {
	n := need[0]
	if s.storage {
		n = need[1]
	}
	if s.version().Less(n) {
		return &device.CureError{Err: &device.FirmwareError{Feature: feature, Need: n, Have: s.firmware}, Cure: cure}
	}
	return nil
}

func flags(c device.HOTPConfig) (f byte) {
	if c.Digits == 8 {
		f |= flagEightDigits
	}
	if c.Enter {
		f |= flagEnter
	}
	return f
}

// write sends name and seed, and then what makes a slot of them.
func (s *Slot) write(ctx context.Context, c device.HOTPConfig, temporary secret.Secret) (err error) {
	var name, seed [2 * pieceSize]byte
	defer clear(seed[:])
	copy(name[:], label)
	copy(seed[:], c.Seed.Reveal())
	if err := s.stage(ctx, temporary, 'N', 0, name[:], labelSize); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.session.cover(ctx)
		}
	}()
	// Both pieces, although the second one is empty: it may be there from another program that was interrupted.
	for piece, shown := range []int{pieceSize, seedSize} {
		if err := s.stage(ctx, temporary, 'S', piece, seed[:], shown); err != nil {
			return err
		}
	}
	var payload [passwordSize + 1 + 8 + 1 + tokenIDSize]byte
	defer clear(payload[:])
	copy(payload[:], temporary.Reveal())
	payload[passwordSize] = s.wire()
	binary.LittleEndian.PutUint64(payload[passwordSize+1:], c.StartCounter)
	payload[passwordSize+9] = flags(c)
	if _, err := s.session.ask(ctx, commandWriteSlot, payload[:]); err != nil {
		return err
	}
	// A new name makes the device forget the seed that it was sent, and shows that the temporary password is still the right one.
	// Only a Storage needs that: it can answer without having written anything.
	err = s.stage(ctx, temporary, 'N', 0, name[:], labelSize)
	var res result
	switch {
	case !s.session.storage:
		return nil
	case errors.As(err, &res): // is not about the write
		return fmt.Errorf("%w: it is not known whether it has taken the seed (%v)", device.ErrCorrupt, res)
	}
	return err
}

// stage sends a piece of a name or a seed. The device shows how much of it it has then, of which the first bytes are compared: a
// Storage can answer without having taken it.
func (s *Slot) stage(ctx context.Context, temporary secret.Secret, kind byte, piece int, whole []byte, shown int) error {
	var payload [passwordSize + 2 + pieceSize]byte
	defer clear(payload[:])
	copy(payload[:], temporary.Reveal())
	payload[passwordSize], payload[passwordSize+1] = kind, byte(piece)
	copy(payload[passwordSize+2:], whole[piece*pieceSize:])
	data, err := s.session.ask(ctx, commandOTPData, payload[:])
	defer clear(data[:])
	if err == nil && subtle.ConstantTimeCompare(data[:shown], whole[:shown]) != 1 {
		return fmt.Errorf("%w: it has taken something else than it was sent", device.ErrCorrupt)
	}
	return err
}

// cover replaces the last answer, in which the device shows the seed to whoever asks.
func (s *Session) cover(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, _ = s.ask(ctx, commandStatus, nil)
}

// writeAtOnce writes a slot of old firmware.
func (s *Slot) writeAtOnce(ctx context.Context, c device.HOTPConfig, temporary secret.Secret) error {
	payload := make([]byte, 0, payloadSize)
	defer func() { clear(payload[:cap(payload)]) }()
	payload = append(payload, s.wire())
	payload = append(payload, label...)
	payload = payload[:1+labelSize]
	payload = append(payload, c.Seed.Reveal()...)
	payload = payload[:1+labelSize+oldSeedSize]
	payload = append(payload, flags(c))
	payload = payload[:len(payload)+tokenIDSize]
	if s.session.storage {
		payload = strconv.AppendUint(payload, c.StartCounter, 10)
	} else {
		payload = binary.LittleEndian.AppendUint64(payload, c.StartCounter)
	}
	return s.session.authorized(ctx, commandWriteSlot, payload, temporary)
}

// authorized carries out a command of old firmware, after telling its checksum together with the temporary password.
func (s *Session) authorized(ctx context.Context, c command, payload []byte, temporary secret.Secret) error {
	r, err := s.command(ctx, c, payload)
	if err != nil {
		return err
	}
	defer clear(r[:])
	var authority [4 + passwordSize]byte
	defer clear(authority[:])
	binary.LittleEndian.PutUint32(authority[:], r.crc())
	copy(authority[4:], temporary.Reveal())
	if _, err := s.ask(ctx, commandAuthorize, authority[:]); err != nil {
		return err
	}
	_, err = s.carryOut(ctx, &r)
	return err
}

// refusal says what it can have been when a device does not do what the admin PIN allows.
func refusal(op string, err error) error {
	var res result
	if !errors.As(err, &res) {
		return err
	}
	return &device.RejectedError{Op: op, Reasons: []string{
		res.Error(), "another program has shown the device a PIN meanwhile", "the firmware does not support this configuration",
	}}
}
