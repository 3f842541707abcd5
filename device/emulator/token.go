package emulator

import (
	"tokendesk/device"
	"tokendesk/device/bussocket"
)

// Token is an emulated device that a Server can have: a *YubiKey, a *NitrokeyPro or a *Nitrokey3. None may be given twice.
type Token interface {
	// ID names the device.
	ID() device.ID
	Serial() device.Serial
	Firmware() device.Version
	// Insert plugs the device in; nothing happens if it is.
	Insert()
	// Remove pulls it; nothing happens if it is out.
	Remove()
	// SetFault makes the device misbehave.
	SetFault(kind Fault, n int) error

	base() *plug
	// carries is the device as one that has a smart card; nil if it cannot have one.
	carries() *carrier
	touch(long bool) (bussocket.Touch, error)
	// describe tells what only a device of this kind has.
	describe(k *bussocket.Key)

	// For Attach; see there.
	fitsUSB() error
	moveToUSB() (present bool)
	newFace() *usbFace
}

var _, _, _ Token = (*YubiKey)(nil), (*NitrokeyPro)(nil), (*Nitrokey3)(nil)

// bench are tokens of one kind or of several.
func bench[T Token](tokens []T) []Token {
	all := make([]Token, len(tokens))
	for i, t := range tokens {
		all[i] = t
	}
	return all
}

func (p *plug) carries() *carrier { return nil }

func (c *carrier) carries() *carrier { return c }
