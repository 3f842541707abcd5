package emulator

import (
	"context"
	"time"

	"tokendesk/device"
	"tokendesk/device/emulator/smartcard"
)

// otpOnCard is the OTP application as the smart card has it: the same as that behind the keyboard.
type otpOnCard struct{ key *YubiKey }

var _ smartcard.OTP = otpOnCard{}

// Firmware whose status does not follow what is written over the card: the sequence falls to 0 instead of moving, and what it
// tells of the slots is what they held when the key was plugged in (yubikit, yubiotp.py; yubikey-manager,
// tests/device/test_otp.py, where it is restarted for that). What real ones have after that is not known; this one moves on
// from 0.
var (
	fwCardStatusBroken = device.Version{Major: 5}
	fwCardStatusFixed  = device.Version{Major: 5, Minor: 4, Build: 3}
)

// followsCard tells whether the status follows what is written over the card.
func (a *application) followsCard() bool {
	return a.firmware.Less(fwCardStatusBroken) || !a.firmware.Less(fwCardStatusFixed)
}

// writeOverCard is write, with the status as it is after writes over the card.
func (a application) writeOverCard(command byte, payload [payloadSize]byte) (application, bool) {
	before := a.sequence
	a, ok := a.write(command, payload)
	if ok && !a.followsCard() {
		a.sequence = 0
		if before == 0 {
			a.sequence = 1
		}
	}
	return a, ok
}

// Status implements smartcard.OTP.
func (o otpOnCard) Status() (status [smartcard.OTPStatusSize]byte) {
	k := o.key
	k.mu.Lock()
	defer k.mu.Unlock()
	k.settle()
	v, s := k.app.firmware, k.summary()
	if !k.app.followsCard() {
		s.touchLevel = k.pluggedIn
	}
	return [smartcard.OTPStatusSize]byte{v.Major, v.Minor, v.Build, s.sequence, s.touchLevel}
}

// TellsSerial implements smartcard.OTP.
func (o otpOnCard) TellsSerial() bool {
	k := o.key
	k.mu.Lock()
	defer k.mu.Unlock()
	k.settle()
	return k.app.serialVisible() && !k.faults.active(FaultSerialHidden)
}

// Write implements smartcard.OTP.
func (o otpOnCard) Write(ctx context.Context, command byte, payload [payloadSize]byte) (answers bool) {
	k := o.key
	gone, d, ok := k.beginCardWrite(command, payload)
	if !ok {
		return gone != nil
	}
	if pause(ctx, gone, d) != nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gone != gone {
		return false
	}
	k.app, _ = k.app.writeOverCard(command, payload)
	if k.faults.use(FaultUnplugAfterWrite) {
		k.remove()
		return false
	}
	return true
}

// beginCardWrite tells how long an accepted write takes; ok is false if nothing comes of it.
func (k *YubiKey) beginCardWrite(command byte, payload [payloadSize]byte) (gone <-chan struct{}, d time.Duration, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.settle()
	if k.gone == nil || k.faults.use(FaultRejectWrite) {
		return k.gone, 0, false
	}
	_, ok = k.app.write(command, payload)
	if command == cmdSwap {
		return k.gone, k.timing.Swap, ok
	}
	return k.gone, k.timing.Commit, ok
}
