package smartcard

import (
	"context"
	"encoding/binary"
)

// OTP is the OTP application of a key, as far as its card shares it with its keyboard. Its methods are called from within
// Transmit, and must call no method of the card.
type OTP interface {
	// Status is the version, the sequence and the touch level.
	Status() [OTPStatusSize]byte
	// TellsSerial tells whether the slots let the serial be read.
	TellsSerial() bool
	// Write carries out a slot command that changes the application; one that is refused, or is none of those, changes nothing.
	// Either takes its time, which ends with ctx. answers is false if the key has vanished over it.
	Write(ctx context.Context, command byte, payload [OTPPayloadSize]byte) (answers bool)
}

// Sizes of what the OTP application takes and tells.
const (
	OTPStatusSize  = 6
	OTPPayloadSize = 64
)

// otp is the OTP application over this interface.
type otp struct{ card *Card }

const (
	insOTP       = 0x01 // P1 is a slot command, see ykdef.h
	insOTPStatus = 0x03
)

// Slot commands. Challenges are for the keyboard: over a smart card only NFC has them (yubikey-manager, otp calculate).
const (
	otpConfigure1 = 0x01
	otpConfigure2 = 0x03
	otpUpdate1    = 0x04
	otpUpdate2    = 0x05
	otpSwap       = 0x06
	otpNDEF1      = 0x08
	otpNDEF2      = 0x09
	otpSerial     = 0x10
	otpScanMap    = 0x12
	otpConfig     = 0x13

	otpChallengeOTP1  = 0x20
	otpChallengeOTP2  = 0x28
	otpChallengeHMAC1 = 0x30
	otpChallengeHMAC2 = 0x38
)

// hasOTP tells whether the OTP application can be selected over USB: NEOs have it here, and keys from firmware 5.3 on
// (yubikey-manager, tests/device/test_otp.py).
func (c *Card) hasOTP() bool { return !c.atLeast(4, 0, 0) || c.atLeast(5, 3, 0) }

func (o otp) selected() []byte {
	status := o.card.otp.Status()
	return status[:]
}

func (o otp) command(a apdu) ([]byte, status) {
	switch {
	case a.ins == insOTPStatus:
		return o.selected(), swOK
	case a.ins != insOTP:
		return nil, swInstruction
	case len(a.data) > OTPPayloadSize:
		return nil, swWrongLength
	}
	switch a.p1 {
	case otpSerial:
		if !o.card.otp.TellsSerial() {
			return nil, swConditions
		}
		return binary.BigEndian.AppendUint32(nil, uint32(o.card.serial)), swOK
	case otpConfig:
		if o.card.atLeast(4, 1, 0) {
			return o.card.config(), swOK
		}
	case otpConfigure1, otpConfigure2, otpUpdate1, otpUpdate2, otpSwap, otpNDEF1, otpNDEF2, otpScanMap:
		var payload [OTPPayloadSize]byte
		copy(payload[:], a.data)
		if !o.card.otp.Write(o.card.powered, a.p1, payload) {
			o.card.off = true
		}
		return o.selected(), swOK
	case otpChallengeOTP1, otpChallengeOTP2, otpChallengeHMAC1, otpChallengeHMAC2:
		return nil, swConditions
	}
	return nil, swP1P2
}

// emptyOTP is the OTP application of a card that has no key around it: both slots are empty, and stay so.
type emptyOTP struct{ card *Card }

func (o emptyOTP) Status() [OTPStatusSize]byte {
	v := o.card.firmware
	return [OTPStatusSize]byte{v.Major, v.Minor, v.Build}
}

func (emptyOTP) TellsSerial() bool { return true }

func (emptyOTP) Write(context.Context, byte, [OTPPayloadSize]byte) bool { return true }
