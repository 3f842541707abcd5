package smartcard

import "encoding/binary"

// management is the management application, as far as it tells who the key is (yubikit management.py).
type management struct{ card *Card }

const insReadConfig = 0x1D

// Tags of the configuration.
const (
	tagUSBSupported  = 0x01
	tagSerial        = 0x02
	tagUSBEnabled    = 0x03
	tagFormFactor    = 0x04
	tagVersion       = 0x05
	tagEjectTimeout  = 0x06
	tagTouchTimeout  = 0x07
	tagDeviceFlags   = 0x08
	tagConfigLock    = 0x0A
	tagFIPSCapable   = 0x14
	tagFIPSApproved  = 0x15
	tagPINComplexity = 0x16
	tagResetBlocked  = 0x18
)

// applications of this key, as the configuration tells them: OTP, PIV and OATH.
const applications = 0x01 | 0x10 | 0x20

func (m management) selected() []byte {
	return []byte("Virtual mgr - FW version " + m.card.firmware.String())
}

func (m management) command(a apdu) ([]byte, status) {
	switch {
	case a.ins != insReadConfig || !m.card.atLeast(4, 1, 0):
		return nil, swInstruction
	case a.p1 != 0 || a.p2 != 0: // there is one page of it
		return nil, swP1P2
	}
	return m.card.config(), swOK
}

// config tells the configuration: its length, and elements.
func (c *Card) config() []byte {
	var b []byte
	serial := binary.BigEndian.AppendUint32(nil, uint32(c.serial))
	if !c.atLeast(5, 0, 0) { // a YubiKey 4 tells one byte of applications, and no version
		b = appendTLV(b, tagUSBSupported, applications)
		b = appendTLV(b, tagSerial, serial...)
		b = appendTLV(b, tagUSBEnabled, applications)
		b = appendTLV(b, tagFormFactor, byte(c.form))
		b = appendTLV(b, tagConfigLock, 0)
		return append([]byte{byte(len(b))}, b...)
	}
	b = appendTLV(b, tagUSBSupported, 0, applications)
	b = appendTLV(b, tagSerial, serial...)
	b = appendTLV(b, tagUSBEnabled, 0, applications)
	b = appendTLV(b, tagFormFactor, byte(c.form))
	b = appendTLV(b, tagVersion, c.firmware.Major, c.firmware.Minor, c.firmware.Build)
	b = appendTLV(b, tagEjectTimeout, 0, 0)
	b = appendTLV(b, tagTouchTimeout, 15)
	b = appendTLV(b, tagDeviceFlags, 0)
	b = appendTLV(b, tagConfigLock, 0)
	if c.atLeast(5, 7, 0) {
		b = appendTLV(b, tagFIPSCapable, 0, 0)
		b = appendTLV(b, tagFIPSApproved, 0, 0)
		b = appendTLV(b, tagPINComplexity, 0)
		b = appendTLV(b, tagResetBlocked, 0, 0)
	}
	return append([]byte{byte(len(b))}, b...)
}
