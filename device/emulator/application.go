package emulator

import (
	"encoding/binary"
	"encoding/hex"

	"tokendesk/device"
)

// Slot commands (ykdef.h).
const (
	cmdConfig1    = 0x01
	cmdConfig2    = 0x03
	cmdUpdate1    = 0x04
	cmdUpdate2    = 0x05
	cmdSwap       = 0x06
	cmdSerial     = 0x10
	cmdScanMap    = 0x12
	cmdDeviceInfo = 0x13

	cmdChallengeOTP1  = 0x20
	cmdChallengeOTP2  = 0x28
	cmdChallengeHMAC1 = 0x30
	cmdChallengeHMAC2 = 0x38
)

const scanMapSize = 45

// defaultScanMap has the usages of cbdefghijklnrtuv, CBDEFGHIJKLNRTUV, 0–9, "!", Tab and Enter;
// bit 7 means shift.
var defaultScanMap = func() (m [scanMapSize]byte) {
	b, err := hex.DecodeString("06050708090a0b0c0d0e0f111517181986858788898a8b8c8d8e8f9195979899271e1f202122232425269e2b28")
	if err != nil || copy(m[:], b) != scanMapSize {
		panic("emulator: the default scan map is damaged")
	}
	return m
}()

// application is the OTP application: what survives pulling the key. A copy is independent.
type application struct {
	serial   device.Serial
	firmware device.Version
	slots    [2]slot
	scanMap  [scanMapSize]byte
	sequence byte // pgmSeq

	smartcard bool // the key has one
}

func newApplication(serial device.Serial, fw device.Version) application {
	return application{serial: serial, firmware: fw, scanMap: defaultScanMap}
}

func isWrite(command byte) bool {
	switch command {
	case cmdConfig1, cmdConfig2, cmdUpdate1, cmdUpdate2, cmdSwap, cmdScanMap:
		return true
	}
	return false
}

// write carries out a command that changes the application; false means refused, without a reason.
func (a application) write(command byte, payload [payloadSize]byte) (application, bool) {
	ok := false
	switch command {
	case cmdConfig1:
		ok = a.configure(0, payload)
	case cmdConfig2:
		ok = a.configure(1, payload)
	case cmdUpdate1:
		ok = a.update(0, payload)
	case cmdUpdate2:
		ok = a.update(1, payload)
	case cmdSwap:
		ok = a.swap()
	case cmdScanMap:
		ok = a.setScanMap(payload)
	}
	if ok {
		a.sequence++
		if !a.slots[0].configured && !a.slots[1].configured {
			a.sequence = 0
		}
	}
	return a, ok
}

func currentCode(payload [payloadSize]byte) (code [codeSize]byte) {
	copy(code[:], payload[configSize:])
	return code
}

// locked reports whether slot i may not be changed with the code in payload.
func (a *application) locked(i int, payload [payloadSize]byte) bool {
	if !a.slots[i].opens(currentCode(payload)) {
		return true
	}
	// ykdef.h, TKTFLAG_PROTECT_CFG2: set in slot 1 it blocks slot 2, unless that is configured with it too.
	protects := func(s *slot) bool { return s.configured && s.tkt&tktProtectSlot2 != 0 }
	return i == 1 && protects(&a.slots[0]) && !protects(&a.slots[1])
}

func (a *application) configure(i int, payload [payloadSize]byte) bool {
	if i == 1 && a.firmware.Less(fwSlot2) || a.locked(i, payload) {
		return false
	}
	if [configSize]byte(payload[:configSize]) == [configSize]byte{} {
		a.slots[i] = slot{}
		return true
	}
	s, ok := parseSlot(payload[:configSize], a.firmware)
	if ok {
		a.slots[i] = s
	}
	return ok
}

func (a *application) update(i int, payload [payloadSize]byte) bool {
	s := &a.slots[i]
	if a.firmware.Less(fwUpdate) || !s.configured || s.ext&extAllowUpdate == 0 || a.locked(i, payload) {
		return false
	}
	if crc16(payload[:configSize]) != crcResidual {
		return false
	}
	n := slot{ext: payload[offEXT], tkt: payload[offTKT], cfg: payload[offCFG]}
	copy(n.accessCode[:], payload[offAccessCode:])
	s.update(n, a.firmware)
	return true
}

func (a *application) swap() bool {
	if a.firmware.Less(fwUpdate) || !a.slots[0].configured && !a.slots[1].configured {
		return false
	}
	for i := range a.slots {
		if s := &a.slots[i]; s.configured && s.ext&extAllowUpdate == 0 {
			return false
		}
	}
	a.slots[0], a.slots[1] = a.slots[1], a.slots[0]
	return true
}

func (a *application) setScanMap(payload [payloadSize]byte) bool {
	if a.firmware.Less(fwScanMap) {
		return false
	}
	copy(a.scanMap[:], payload[:])
	if a.scanMap == [scanMapSize]byte{} {
		a.scanMap = defaultScanMap // libykpers: an empty map restores it
	}
	return true
}

// serialVisible: some slot allows the API to read it, or both are empty.
func (a *application) serialVisible() bool {
	any := false
	for i := range a.slots {
		s := &a.slots[i]
		if s.configured && s.ext&extSerialAPI != 0 {
			return true
		}
		any = any || s.configured
	}
	return !any
}

// read answers a command that changes nothing; nil means no response.
func (a *application) read(command byte, hideSerial bool) []byte {
	serial := binary.BigEndian.AppendUint32(nil, uint32(a.serial))
	visible := a.serialVisible() && !hideSerial && !a.firmware.Less(fwSerial)
	switch {
	case command == cmdSerial && visible:
		return serial
	case command == cmdDeviceInfo && !a.firmware.Less(fwDeviceInfo):
		// Length, then tags (yubikit management.py): supported 01 and enabled 03 applications (01 is OTP, 10 is PIV, 20 is OATH),
		// serial 02, form factor 04 (01 keychain), version 05, configuration lock 0A.
		applications := byte(0x01)
		if a.smartcard {
			applications |= 0x10 | 0x20
		}
		info := []byte{0x01, 1, applications, 0x03, 1, applications, 0x04, 1, 0x01, 0x05, 3, a.firmware.Major, a.firmware.Minor, a.firmware.Build, 0x0A, 1, 0}
		if visible {
			info = append(append(info, 0x02, 4), serial...)
		}
		return append([]byte{byte(len(info))}, info...)
	}
	return nil
}

// touchLevel is the low byte of the touch level in the status (ykdef.h, CONFIG1_VALID and its neighbours).
func (a *application) touchLevel() (level byte) {
	for i := range a.slots {
		s := &a.slots[i]
		if s.configured && !a.firmware.Less(fwStatus) {
			level |= 0x01 << i
		}
		if s.needsTouch() && !a.firmware.Less(fwTouchStatus) {
			level |= 0x04 << i
		}
		if s.configured && s.ext&extLEDInverted != 0 && !a.firmware.Less(fwTouchStatus) {
			level |= 0x10
		}
	}
	return level
}

// powerUp is what plugging in does to the application.
func (a *application) powerUp() {
	for i := range a.slots {
		a.slots[i].used = false
	}
	if !a.slots[0].configured && !a.slots[1].configured {
		a.sequence = 0
	}
}
