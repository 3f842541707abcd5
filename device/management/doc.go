// Package management asks a smart card who it is: by the management application of YubiKeys, or where that does not tell,
// by their PIV and OTP applications. It changes nothing on the card, except which application is selected.
package management

import (
	"context"
	"errors"
	"fmt"

	"tokendesk/device"
)

// Info is what a YubiKey tells of itself.
type Info struct {
	Serial     device.Serial // 0: it does not tell
	Firmware   device.Version
	FormFactor string // "USB-A Keychain"; empty: it does not tell
	PIV        bool   // it has the PIV application, and that is switched on
}

// ErrNotYubiKey means that a card has none of the applications by which a YubiKey tells who it is.
var ErrNotYubiKey = errors.New("the card is no YubiKey")

// Identifiers of applications (yubikit, core/smartcard: AID).
var (
	aidManagement = []byte{0xA0, 0x00, 0x00, 0x05, 0x27, 0x47, 0x11, 0x17}
	aidOTP        = []byte{0xA0, 0x00, 0x00, 0x05, 0x27, 0x20, 0x01}
	aidPIV        = []byte{0xA0, 0x00, 0x00, 0x03, 0x08}
)

// Instructions.
const (
	insSelect     = 0xA4
	insReadConfig = 0x1D // of the management application
	insVersion    = 0xFD // of PIV
	insSerial     = 0xF8 // of PIV, from firmware 5 on
	insOTP        = 0x01 // with the command in P1
	otpSerial     = 0x10
)

const (
	statusOK = 0x9000
)

// Read asks a card who it is. It fails with ErrNotYubiKey if the card has none of a YubiKey's applications.
func Read(ctx context.Context, card device.Card) (Info, error) {
	s := session{ctx, card}
	info, told, err := s.management()
	if err != nil {
		return Info{}, err
	}
	if told && info.Serial != 0 {
		return info, nil
	}
	piv, isPIV, err := s.piv()
	if err != nil {
		return Info{}, err
	}
	otp, isOTP, err := s.otp()
	if err != nil {
		return Info{}, err
	}
	switch {
	case !told && !isPIV && !isOTP:
		return Info{}, &device.CureError{Err: ErrNotYubiKey, Cure: "insert a YubiKey; the desk leaves other cards alone"}
	case !told:
		info = piv
		if !isPIV {
			info.Firmware = otp.Firmware
		}
		info.PIV = isPIV
	}
	for _, other := range []Info{piv, otp} {
		if info.Serial == 0 {
			info.Serial = other.Serial
		}
	}
	return info, nil
}

type session struct {
	ctx  context.Context
	card device.Card
}

// send transmits a command without P2 and returns the answer if its status is good.
func (s session) send(ins, p1 byte, data []byte) (answer []byte, ok bool, err error) {
	if err := s.ctx.Err(); err != nil {
		return nil, false, err
	}
	apdu := append([]byte{0, ins, p1, 0, byte(len(data))}, data...)
	answer, status, err := s.card.Transmit(apdu)
	if err != nil {
		return nil, false, fmt.Errorf("cannot ask the card who it is: %w", err)
	}
	return answer, status == statusOK, nil
}

// management asks the management application. Those before firmware 4.1 only have a version.
func (s session) management() (info Info, told bool, err error) {
	text, ok, err := s.send(insSelect, 4, aidManagement)
	if err != nil || !ok {
		return Info{}, false, err
	}
	version, ok := parseVersion(string(text))
	if !ok {
		return Info{}, false, nil
	}
	info.Firmware = version
	config, ok, err := s.send(insReadConfig, 0, nil)
	if err != nil || !ok {
		return info, false, err
	}
	if err := info.read(config); err != nil {
		return Info{}, false, err
	}
	return info, true, nil
}

// piv asks the PIV application for its version, which from firmware 4 on is that of the key, and for the serial.
func (s session) piv() (info Info, ok bool, err error) {
	if _, ok, err = s.send(insSelect, 4, aidPIV); err != nil || !ok {
		return Info{}, false, err
	}
	version, ok, err := s.send(insVersion, 0, nil)
	if err != nil || !ok || len(version) != 3 {
		return Info{}, false, err // another vendor's PIV card
	}
	info.Firmware = device.Version{Major: version[0], Minor: version[1], Build: version[2]}
	serial, ok, err := s.send(insSerial, 0, nil)
	if err == nil && ok {
		info.Serial, _ = parseSerial(serial)
	}
	return info, true, err
}

// otp asks the OTP application, whose status begins with the version.
func (s session) otp() (info Info, ok bool, err error) {
	status, ok, err := s.send(insSelect, 4, aidOTP)
	if err != nil || !ok || len(status) < 3 {
		return Info{}, false, err
	}
	info.Firmware = device.Version{Major: status[0], Minor: status[1], Build: status[2]}
	serial, ok, err := s.send(insOTP, otpSerial, nil)
	if err == nil && ok {
		info.Serial, _ = parseSerial(serial)
	}
	return info, true, err
}
