package emulator

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"tokendesk/device"
	"tokendesk/device/bussocket"
	"tokendesk/device/emulator/nitrokeypro"
	"tokendesk/device/emulator/smartcard"
)

const productStorage = 0x4109

// NitrokeyPro is one emulated Nitrokey Pro, Nitrokey Storage or Librem Key: the slots behind its HID interface (package
// nitrokeypro). Its OpenPGP card and its storage are left out. It keeps its slots, PINs and faults while pulled.
type NitrokeyPro struct {
	plug
	slots *nitrokeypro.Token
}

// NewNitrokeyPro makes a Nitrokey with empty slots. Zero options: product 20a0:4108, the firmware that it has today, real timing.
func NewNitrokeyPro(o Options) *NitrokeyPro {
	vendor, product := cmp.Or(o.Vendor, device.NitrokeyVendor), cmp.Or(o.Product, 0x4108)
	model, _ := device.FindModel(vendor, product)
	core := nitrokeypro.Options{Model: model, Serial: o.Serial, Firmware: o.Firmware}
	if o.Timing != nil && *o.Timing == (Timing{}) {
		core.Timing = &nitrokeypro.Timing{}
	}
	n := &NitrokeyPro{slots: nitrokeypro.New(core)}
	n.fill(n, o.Serial, n.slots.Firmware(), o.Timing)
	n.vendor, n.product, n.reportSize = vendor, product, nitrokeypro.ReportSize
	n.slots.PowerDown()
	if !o.Absent {
		n.Insert()
	}
	return n
}

// ID names the Nitrokey.
func (n *NitrokeyPro) ID() device.ID { return device.NitrokeyID(n.serial) }

func (n *NitrokeyPro) powerUp()   { n.slots.PowerUp() }
func (n *NitrokeyPro) powerLost() { n.slots.PowerDown() }
func (n *NitrokeyPro) settle()    {}

func (n *NitrokeyPro) takeReport(r []byte) bool {
	if n.slots.SetFeature(r) {
		return true
	}
	n.remove() // a fault has pulled it
	return false
}

func (n *NitrokeyPro) giveReport(r []byte) { n.slots.GetFeature(r) }

// NitrokeyFaults are all kinds that a NitrokeyPro can have besides those of opening; see package nitrokeypro.
var NitrokeyFaults = func() (kinds []Fault) {
	for _, k := range nitrokeypro.Faults {
		kinds = append(kinds, Fault(k))
	}
	return kinds
}()

// SetFault makes the Nitrokey misbehave.
func (n *NitrokeyPro) SetFault(kind Fault, count int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.onUSB && kind.ofOpening():
		return errOpenedByKernel(kind)
	case kind.ofOpening():
		return n.faults.set(kind, count)
	case kind == FaultClear:
		clear(n.faults)
	}
	return n.slots.SetFault(nitrokeypro.Fault(kind), count)
}

func (n *NitrokeyPro) describe(k *bussocket.Key) {
	for i, configured := range n.slots.Configured() {
		if configured {
			k.Holds = append(k.Holds, fmt.Sprintf("hotp%d", i+1))
		}
	}
	k.Faults = append(k.Faults, n.slots.Faults()...)
}

// fitsUSB checks that a Nitrokey announces nothing to the kernel that it does not have.
func (n *NitrokeyPro) fitsUSB() error {
	if n.product == productStorage {
		return errors.New("an emulated Nitrokey Storage has no storage, which it would announce to the kernel; make it a Pro or a Librem Key")
	}
	return nil
}

// newFace is the Nitrokey as its USB host sees it, held by it from now on. Its reader is empty.
func (n *NitrokeyPro) newFace() *usbFace {
	return newFace(n.insertHeld(), n.usbShape(), newCCIDFace(nil))
}

// usbShape is that of a Nitrokey Pro with firmware 0.15 (nitrokey-pro-firmware, CCIDHID_usb_desc.c).
func (n *NitrokeyPro) usbShape() usbShape {
	s := usbShape{
		vendor: n.vendor, product: n.product, version: 0x0110, release: 0x0101, manufacturer: "Nitrokey", name: "Nitrokey Pro",
		serial: fmt.Sprintf("%024X", uint32(n.serial)), power: 50,
		reports: vendorReports, hidEndpoint: 4, changeEndpoint: 1,
	}
	if n.vendor == device.PurismVendor {
		s.manufacturer, s.name = "Purism, SPC", "Librem Key"
	}
	return s
}

// vendorReports are reports of 64 bytes each way, and one feature report of as many.
var vendorReports = slices.Concat(
	[]byte{0x06, 0x00, 0xFF, 0x09, 0x01, 0xA1, 0x01},                                     // a page of the vendor: application
	[]byte{0x09, 0x01, 0x15, 0x00, 0x26, 0xFF, 0x00, 0x75, 0x08, 0x95, 0x40, 0x81, 0x02}, // input
	[]byte{0x09, 0x02, 0x15, 0x00, 0x26, 0xFF, 0x00, 0x75, 0x08, 0x95, 0x40, 0x91, 0x02}, // output
	[]byte{0x09, 0x02, 0x75, 0x08, 0x95, 0x40, 0xB1, 0x02},                               // feature
	[]byte{0xC0},
)

// Nitrokey3 is one emulated Nitrokey 3: a smart card with the application of secrets, in a reader of vpcd. Its other
// applications, and its FIDO interface, are left out.
type Nitrokey3 struct {
	carrier
}

// secretsVersion is what the application of secrets tells of itself (trussed-secrets-app 0.14).
var secretsVersion = device.Version{Major: 4, Minor: 14}

// NewNitrokey3 makes a Nitrokey 3 without credentials. Zero options: product 20a0:42b2, the application's version 4.14.0.
func NewNitrokey3(o Options) *Nitrokey3 {
	n := &Nitrokey3{}
	n.fill(n, o.Serial, cmp.Or(o.Firmware, secretsVersion), o.Timing)
	n.vendor, n.product, n.vpcd = cmp.Or(o.Vendor, device.NitrokeyVendor), cmp.Or(o.Product, 0x42B2), o.VPCD
	n.card = smartcard.New(smartcard.Options{Serial: n.serial, Nitrokey3: true, Touch: n.finger.await, Pulled: n.Remove})
	n.card.PowerDown()
	n.transmit = n.card.Transmit
	if !o.Absent {
		n.Insert()
	}
	return n
}

// ID names the Nitrokey.
func (n *Nitrokey3) ID() device.ID { return device.NitrokeyID(n.serial) }

// Card is the Nitrokey's smart card.
func (n *Nitrokey3) Card() *smartcard.Card { return n.card }

func (n *Nitrokey3) powerUp()               {}
func (n *Nitrokey3) powerLost()             {}
func (n *Nitrokey3) settle()                {}
func (n *Nitrokey3) takeReport([]byte) bool { return true }
func (n *Nitrokey3) giveReport([]byte)      {}

func (n *Nitrokey3) touch(long bool) (bussocket.Touch, error) {
	if n.finger.press() {
		return bussocket.Touch{To: bussocket.ToChallenge}, nil
	}
	return n.plug.touch(long)
}

// SetFault makes the Nitrokey misbehave; its faults are those of smart cards.
func (n *Nitrokey3) SetFault(kind Fault, count int) error {
	if kind == FaultClear {
		return n.setCardFault(smartcard.FaultClear, 0)
	}
	if !slices.Contains(CardFaults, kind) {
		return fmt.Errorf("fault %.40q is none of a device that is a smart card only", string(kind))
	}
	return n.setCardFault(kind.ofCard(), count)
}

func (n *Nitrokey3) describe(k *bussocket.Key) {}

func (n *Nitrokey3) fitsUSB() error {
	return errors.New("an emulated Nitrokey 3 has no FIDO interface, which it would announce to the kernel; serve it to a reader of vpcd")
}

func (n *Nitrokey3) newFace() *usbFace { panic("emulator: a Nitrokey 3 does not fit USB") }
