package emulator

import "tokendesk/device"

// Configuration structure (libykpers ykdef.h, struct config_st), followed by the current access code.
const (
	offFixed      = 0
	offUID        = 16
	offKey        = 22
	offAccessCode = 38
	offFixedSize  = 44
	offEXT        = 45
	offTKT        = 46
	offCFG        = 47
	configSize    = 52
	fixedMax      = 16
	codeSize      = 6
)

// Flags (ykdef.h).
const (
	tktTabFirst     = 0x01
	tktTabFixed     = 0x02
	tktTabOTP       = 0x04
	tktDelayFixed   = 0x08
	tktDelayOTP     = 0x10
	tktEnter        = 0x20
	tktHOTP         = 0x40 // with cfgChallenge it means challenge-response instead
	tktProtectSlot2 = 0x80
	tktUpdateMask   = 0x3F

	cfg8Digits    = 0x02
	cfgPacing10   = 0x04
	cfgPacing20   = 0x08
	cfgModhex1    = 0x10
	cfgChallenge  = 0x20
	cfgModhex2    = 0x40
	cfgUpdateMask = 0x0C

	// With cfgChallenge:
	cfgChallengeHMAC   = 0x02 // otherwise a Yubico OTP
	cfgChallengeLess64 = 0x04
	cfgChallengeTouch  = 0x08

	extSerialAPI   = 0x04
	extKeypad      = 0x08
	extAllowUpdate = 0x20
	extDormant     = 0x40
	extLEDInverted = 0x80
)

// Firmware versions that brought something.
var (
	fwSlot2     = device.Version{Major: 2}
	fwHOTP      = device.Version{Major: 2, Minor: 1}
	fwStatus    = fwHOTP // which slots are configured
	fwStart     = device.Version{Major: 2, Minor: 2}
	fwSerial    = fwStart
	fwUpdate    = device.Version{Major: 2, Minor: 3} // and swap, keypad
	fwChallenge = fwStart
	fwScanMap   = device.Version{Major: 3}
	// which slots need a touch; NEOs, which are 3, were the first
	fwTouchStatus = fwScanMap
	fwDeviceInfo  = device.Version{Major: 5}

	// From 4.3.2 up to this, an update leaves the access code as it was (yubikey-manager#126).
	fwCodeUpdateBroken = device.Version{Major: 4, Minor: 3, Build: 2}
	fwCodeUpdateFixed  = device.Version{Major: 4, Minor: 3, Build: 6}
)

// slot is what one of the two OTP slots holds.
type slot struct {
	configured    bool
	fixed         [fixedMax]byte
	fixedSize     int
	uid           [6]byte
	key           [16]byte
	accessCode    [codeSize]byte // all zero: not protected
	ext, tkt, cfg byte
	movingFactor  uint64

	// Counters of Yubico OTPs; used and session begin anew when the key is plugged in.
	uses    uint16
	session uint8
	used    bool
}

func (s *slot) isHOTP() bool { return s.tkt&tktHOTP != 0 && s.cfg&cfgChallenge == 0 }

func (s *slot) isChallengeResponse() bool { return s.tkt&tktHOTP != 0 && s.cfg&cfgChallenge != 0 }

// opens reports whether code may change the slot.
func (s *slot) opens(code [codeSize]byte) bool {
	return !s.configured || s.accessCode == [codeSize]byte{} || s.accessCode == code
}

// parseSlot reads a configuration; false if a key with firmware fw refuses it.
func parseSlot(c []byte, fw device.Version) (slot, bool) {
	s := slot{
		configured: true,
		fixedSize:  int(c[offFixedSize]),
		ext:        c[offEXT],
		tkt:        c[offTKT],
		cfg:        c[offCFG],
	}
	copy(s.fixed[:], c[offFixed:])
	copy(s.uid[:], c[offUID:])
	copy(s.key[:], c[offKey:])
	copy(s.accessCode[:], c[offAccessCode:])
	if crc16(c[:configSize]) != crcResidual || s.fixedSize > fixedMax {
		return slot{}, false
	}
	if s.ext&extKeypad != 0 && fw.Less(fwUpdate) {
		return slot{}, false
	}
	if s.isChallengeResponse() && fw.Less(fwChallenge) {
		return slot{}, false
	}
	if s.isHOTP() {
		// The initial moving factor is stored in steps of 16, behind the tail of the HMAC key.
		s.movingFactor = (uint64(s.uid[4])<<8 | uint64(s.uid[5])) * 16
		if fw.Less(fwHOTP) || s.movingFactor != 0 && fw.Less(fwStart) {
			return slot{}, false
		}
	}
	return s, true
}

// update applies the settings that may change without a rewrite.
func (s *slot) update(n slot, fw device.Version) {
	s.tkt = s.tkt&^tktUpdateMask | n.tkt&tktUpdateMask
	s.cfg = s.cfg&^cfgUpdateMask | n.cfg&cfgUpdateMask
	s.ext = n.ext
	if fw.Less(fwCodeUpdateBroken) || !fw.Less(fwCodeUpdateFixed) {
		s.accessCode = n.accessCode
	}
}
