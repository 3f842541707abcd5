// Package management asks a smart card who it is: by the management application of YubiKeys, or where that does not tell,
// by their PIV and OTP applications. It changes nothing on the card, except which application is selected.
package management

import (
	"context"
	"errors"
	"fmt"

	"tokendesk/device"
	"tokendesk/device/apdu"
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

// Instructions.
const (
	insReadConfig = 0x1D // of the management application
	insVersion    = 0xFD // of PIV
	insSerial     = 0xF8 // of PIV, from firmware 5 on
	insOTP        = 0x01 // with the command in P1
	otpSerial     = 0x10
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

// choose selects an application. It is not ok if the card refuses.
func (s session) choose(aid []byte) (answer []byte, ok bool, err error) {
	return granted(apdu.Select(s.ctx, s.card, aid))
}

// ask sends a command without data. It is not ok if the card refuses.
func (s session) ask(ins, p1 byte) (answer []byte, ok bool, err error) {
	return granted(apdu.Send(s.ctx, s.card, apdu.Command{Ins: ins, P1: p1}, nil))
}

func granted(answer []byte, err error) ([]byte, bool, error) {
	if _, refused := errors.AsType[apdu.Status](err); refused {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("cannot ask the card who it is: %w", err)
	}
	return answer, true, nil
}

// management asks the management application. Those before firmware 4.1 only have a version.
func (s session) management() (info Info, told bool, err error) {
	text, ok, err := s.choose(apdu.Management)
	if err != nil || !ok {
		return Info{}, false, err
	}
	version, ok := parseVersion(string(text))
	if !ok {
		return Info{}, false, nil
	}
	info.Firmware = version
	config, ok, err := s.ask(insReadConfig, 0)
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
	if _, ok, err = s.choose(apdu.PIV); err != nil || !ok {
		return Info{}, false, err
	}
	version, ok, err := s.ask(insVersion, 0)
	if err != nil || !ok || len(version) != 3 {
		return Info{}, false, err // another vendor's PIV card
	}
	info.Firmware = device.Version{Major: version[0], Minor: version[1], Build: version[2]}
	serial, ok, err := s.ask(insSerial, 0)
	if err == nil && ok {
		info.Serial, _ = parseSerial(serial)
	}
	return info, true, err
}

// otp asks the OTP application, whose status begins with the version.
func (s session) otp() (info Info, ok bool, err error) {
	status, ok, err := s.choose(apdu.OTP)
	if err != nil || !ok || len(status) < 3 {
		return Info{}, false, err
	}
	info.Firmware = device.Version{Major: status[0], Minor: status[1], Build: status[2]}
	serial, ok, err := s.ask(insOTP, otpSerial)
	if err == nil && ok {
		info.Serial, _ = parseSerial(serial)
	}
	return info, true, err
}
