package emulator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"tokendesk/device"
	"tokendesk/device/emulator/vhci"
)

// usbFace is a device as its USB host sees it: an HID interface, the OTP keyboard of a YubiKey or what a Nitrokey has for its
// slots, and one for the smart card, if it has one. Requests and descriptors are those
// of USB 2.0, chapter 9, and HID 1.11, chapter 7; what a real device does not have is refused with a stall.
type usbFace struct {
	holder *Handle // everything that has a meaning for the device goes through it
	shape  usbShape
	ccid   *ccidFace // nil: it has no reader of smart cards

	configured chan struct{} // closed when the host has set the key up
	once       sync.Once

	// What the host sets and reads again:
	configuration, protocol, idle byte
}

// Requests: type and number.
const (
	getStatusDevice    = 0x8000
	getStatusInterface = 0x8100
	getStatusEndpoint  = 0x8200
	clearDevice        = 0x0001
	clearInterface     = 0x0101
	clearEndpoint      = 0x0201
	getDescriptor      = 0x8006
	getHIDDescriptor   = 0x8106
	getConfiguration   = 0x8008
	setConfiguration   = 0x0009
	getInterface       = 0x810A
	setInterface       = 0x010B
	getReport          = 0xA101
	getIdle            = 0xA102
	getProtocol        = 0xA103
	setReport          = 0x2109
	setIdle            = 0x210A
	setProtocol        = 0x210B

	classRequest = 0x20 // a bit of the type, for those to an interface
)

const usbInterval = 10 * time.Millisecond // between two packets of the keyboard's endpoint

// The numbers of interfaces.
const (
	hidInterface  = 0
	cardInterface = 1
)

const (
	cardEndpoint   = 2 // both OUT and IN
	reportProtocol = 1 // what a host finds at first (HID 1.11, section 7.2.6)
)

func newFace(h *Handle, shape usbShape, ccid *ccidFace) *usbFace {
	return &usbFace{holder: h, shape: shape, ccid: ccid, configured: make(chan struct{}), protocol: reportProtocol}
}

// Control implements vhci.Device.
func (f *usbFace) Control(s vhci.Setup, data []byte) ([]byte, error) {
	request := int(s.RequestType)<<8 | int(s.Request)
	if s.RequestType&classRequest != 0 && byte(s.Index) == cardInterface && f.ccid != nil {
		return f.ccid.control(request)
	}
	switch request {
	case getDescriptor, getHIDDescriptor:
		if d := f.descriptorOf(request, s.Value, s.Index); d != nil {
			return d, nil
		}
		return nil, vhci.ErrStall
	case getReport, setReport:
		return f.report(request, s, data)
	case getStatusDevice, getStatusInterface, getStatusEndpoint:
		return []byte{0, 0}, nil // fed by the bus, wakes nobody, is not halted
	case clearDevice, clearInterface, clearEndpoint:
		return nil, nil // nothing is ever set
	case setConfiguration:
		if s.Value > 1 {
			return nil, vhci.ErrStall
		}
		f.configuration = byte(s.Value)
		if s.Value == 1 {
			f.once.Do(func() { close(f.configured) })
		}
	case getConfiguration:
		return []byte{f.configuration}, nil
	case setInterface:
		if s.Value != 0 || !f.has(s.Index) {
			return nil, vhci.ErrStall
		}
	case getInterface:
		return []byte{0}, nil
	case setIdle:
		f.idle = byte(s.Value >> 8)
	case getIdle:
		return []byte{f.idle}, nil
	case setProtocol:
		f.protocol = byte(s.Value)
	case getProtocol:
		return []byte{f.protocol}, nil
	default:
		return nil, vhci.ErrStall
	}
	return nil, nil
}

// has tells whether there is such an interface.
func (f *usbFace) has(number uint16) bool {
	return number == hidInterface || number == cardInterface && f.ccid != nil
}

// Out implements vhci.Device: what is sent to the smart card's reader.
func (f *usbFace) Out(endpoint uint8, data []byte) error {
	if endpoint != cardEndpoint || f.ccid == nil {
		return vhci.ErrStall
	}
	return f.ccid.out(data)
}

// Reports, as wValue names them: type and number. None has a number.
const (
	inputReport   = 1 << 8
	outputReport  = 2 << 8
	featureReport = 3 << 8
)

func (f *usbFace) report(request int, s vhci.Setup, data []byte) ([]byte, error) {
	size := f.holder.key.reportSize
	p := make([]byte, 1+size)
	switch {
	case s.Index != hidInterface:
	case request == getReport && s.Value == featureReport:
		err := f.holder.GetFeature(p)
		return p[1:], err
	case request == getReport && s.Value == inputReport && f.shape.keyboard():
		return make([]byte, reportSize), nil // no key is down
	case request == setReport && s.Value == featureReport && len(data) == size:
		copy(p[1:], data)
		defer clear(p)
		return nil, f.holder.SetFeature(p)
	case request == setReport && s.Value == outputReport && len(data) == 1 && f.shape.keyboard():
		return nil, nil // the keyboard LEDs, of which a key has none
	}
	return nil, vhci.ErrStall
}

// In implements vhci.Device: what the device types, and what the smart card's reader answers.
func (f *usbFace) In(ctx context.Context, endpoint uint8) ([]byte, error) {
	switch {
	case endpoint == f.shape.hidEndpoint:
		return f.typed(ctx)
	case endpoint == cardEndpoint && f.ccid != nil:
		return f.ccid.in(ctx)
	case endpoint == f.shape.changeEndpoint && f.ccid != nil:
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, vhci.ErrStall
}

func (f *usbFace) typed(ctx context.Context) ([]byte, error) {
	p := make([]byte, reportSize)
	for {
		if n, err := f.holder.readInput(ctx, p, time.Hour); n > 0 || err != nil {
			return p[:n], err
		}
	}
}

// fitsUSB checks that a key announces nothing to the kernel that it does not have.
func (k *YubiKey) fitsUSB() error {
	if k.vpcd != "" {
		return errors.New("its smart card is in a reader of vpcd; leave vpcd out, and it is in the key's own")
	}
	m, known := device.FindModel(k.vendor, k.product)
	if known && (m.Capabilities == device.OTP || m.Capabilities == device.OTP|device.CCID) {
		return nil
	}
	return fmt.Errorf("an emulated key has OTP and a smart card at most, and %04x:%04x would announce more or other things to the kernel; make it a product 0010, 0110 or 0401, or 0111 or 0405 with a smart card", k.vendor, k.product)
}

// moveToUSB gives the key the smart card that it announces there.
func (k *YubiKey) moveToUSB() (present bool) {
	present = k.plug.moveToUSB()
	k.mu.Lock()
	defer k.mu.Unlock()
	if m, known := device.FindModel(k.vendor, k.product); known && m.Has(device.CCID) && k.card == nil {
		k.addCard()
	}
	return present
}

// newFace is the key as its USB host sees it, held by it from now on.
func (k *YubiKey) newFace() *usbFace {
	var reader *ccidFace
	if k.card != nil {
		reader = newCCIDFace(&k.carrier)
	}
	return newFace(k.insertHeld(), k.usbShape(), reader)
}
