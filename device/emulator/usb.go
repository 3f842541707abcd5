package emulator

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
	"unicode/utf16"

	"tokendesk/device"
	"tokendesk/device/emulator/vhci"
)

// usbFace is a key as its USB host sees it: an interface that is the OTP keyboard, and one for the smart card, if it has
// one. Requests and descriptors are those
// of USB 2.0, chapter 9, and HID 1.11, chapter 7; what a real key does not have is refused with a stall.
type usbFace struct {
	holder     *Handle   // everything that has a meaning for the key goes through it
	descriptor []byte    // of the device
	ccid       *ccidFace // nil: it has no smart card

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
	keyboardInterface = 0
	cardInterface     = 1
)

const (
	keyboardEndpoint = 1
	cardEndpoint     = 2 // both OUT and IN
	changeEndpoint   = 3 // on which a reader tells of cards that come and go; the card of a key does neither
	reportProtocol   = 1 // what a host finds at first (HID 1.11, section 7.2.6)
)

func newFace(h *Handle) *usbFace {
	f := &usbFace{
		holder:     h,
		descriptor: deviceDescriptor(h.key.vendor, h.key.product, h.key.Firmware()),
		configured: make(chan struct{}),
		protocol:   reportProtocol,
	}
	if h.key.card != nil {
		f.ccid = newCCIDFace(h.key)
	}
	return f
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
	return number == keyboardInterface || number == cardInterface && f.ccid != nil
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
	p := make([]byte, device.ReportSize)
	switch {
	case s.Index != 0:
	case request == getReport && s.Value == featureReport:
		err := f.holder.GetFeature(p)
		return p[1:], err
	case request == getReport && s.Value == inputReport:
		return make([]byte, reportSize), nil // no key is down
	case request == setReport && s.Value == featureReport && len(data) == reportSize:
		copy(p[1:], data)
		return nil, f.holder.SetFeature(p)
	case request == setReport && s.Value == outputReport && len(data) == 1:
		return nil, nil // the keyboard LEDs, of which a key has none
	}
	return nil, vhci.ErrStall
}

// In implements vhci.Device: what the key types, and what the smart card's reader answers.
func (f *usbFace) In(ctx context.Context, endpoint uint8) ([]byte, error) {
	switch {
	case endpoint == keyboardEndpoint:
		return f.typed(ctx)
	case endpoint == cardEndpoint && f.ccid != nil:
		return f.ccid.in(ctx)
	case endpoint == changeEndpoint && f.ccid != nil:
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

// Descriptor types.
const (
	descriptorDevice        = 1
	descriptorConfiguration = 2
	descriptorString        = 3
	descriptorInterface     = 4
	descriptorEndpoint      = 5
	descriptorHID           = 0x21
	descriptorCCID          = 0x21 // of another class
	descriptorReport        = 0x22
)

func (f *usbFace) descriptorOf(request int, value, number uint16) []byte {
	kind, index := value>>8, int(value&0xFF)
	switch {
	case request == getHIDDescriptor:
		return f.interfaceDescriptor(kind, number)
	case kind == descriptorDevice:
		return f.descriptor
	case kind == descriptorConfiguration && index == 0:
		return configurationDescriptor(f.ccid != nil)
	case kind == descriptorString && index == 0:
		return []byte{4, descriptorString, 0x09, 0x04} // English (United States)
	case kind == descriptorString && index == 1:
		return stringDescriptor("Yubico")
	case kind == descriptorString && index == 2 && f.ccid != nil:
		return stringDescriptor("YubiKey OTP+CCID")
	case kind == descriptorString && index == 2:
		return stringDescriptor("YubiKey OTP")
	}
	return nil
}

// interfaceDescriptor is a descriptor of the class of an interface.
func (f *usbFace) interfaceDescriptor(kind, number uint16) []byte {
	switch {
	case kind == descriptorReport && number == keyboardInterface:
		return reportDescriptor
	case kind == descriptorHID && number == keyboardInterface:
		return hidDescriptor()
	case kind == descriptorCCID && number == cardInterface && f.ccid != nil:
		return ccidDescriptor()
	}
	return nil
}

func deviceDescriptor(vendor, product uint16, fw device.Version) []byte {
	d := []byte{
		18, descriptorDevice,
		0x00, 0x02, // USB 2.0
		0, 0, 0, // the class is the interface's
		64, // bytes per packet of endpoint 0
	}
	d = binary.LittleEndian.AppendUint16(d, vendor)
	d = binary.LittleEndian.AppendUint16(d, product)
	d = append(d, fw.Minor%10<<4|fw.Build%10, fw.Major/10%10<<4|fw.Major%10) // 5.4.3 is 0543
	return append(d, 1, 2, 0, 1)                                             // manufacturer, product, no serial, one configuration
}

func configurationDescriptor(card bool) []byte {
	d := []byte{9, descriptorInterface, keyboardInterface, 0, 1, 3, 1, 1, 0} // HID, boot interface, keyboard
	d = append(d, hidDescriptor()...)
	d = append(d, 7, descriptorEndpoint, 0x80|keyboardEndpoint, 3, reportSize, 0, byte(usbInterval/time.Millisecond)) // interrupt
	interfaces := byte(1)
	if card {
		interfaces++
		d = append(d, 9, descriptorInterface, cardInterface, 0, 3, 0x0B, 0, 0, 0) // CCID, by bulk transfers
		d = append(d, ccidDescriptor()...)
		d = append(d, 7, descriptorEndpoint, cardEndpoint, 2, 64, 0, 0) // bulk
		d = append(d, 7, descriptorEndpoint, 0x80|cardEndpoint, 2, 64, 0, 0)
		d = append(d, 7, descriptorEndpoint, 0x80|changeEndpoint, 3, 8, 0, 32) // interrupt
	}
	head := []byte{9, descriptorConfiguration, 0, 0, interfaces, 1, 0, 0x80, 15} // fed by the bus, 30 mA
	binary.LittleEndian.PutUint16(head[2:], uint16(len(head)+len(d)))
	return append(head, d...)
}

func hidDescriptor() []byte {
	d := []byte{9, descriptorHID, 0x10, 0x01, 0, 1, descriptorReport} // HID 1.1
	return binary.LittleEndian.AppendUint16(d, uint16(len(reportDescriptor)))
}

// reportDescriptor is a boot keyboard with a feature report of 8 bytes (HID 1.11, appendix B.1).
var reportDescriptor = slices.Concat(
	[]byte{0x05, 0x01, 0x09, 0x06, 0xA1, 0x01},                                                                         // generic desktop, keyboard: application
	[]byte{0x05, 0x07, 0x19, 0xE0, 0x29, 0xE7, 0x15, 0x00, 0x25, 0x01, 0x75, 0x01, 0x95, 0x08, 0x81, 0x02},             // input: 8 modifiers
	[]byte{0x95, 0x01, 0x75, 0x08, 0x81, 0x01},                                                                         // input: a byte of nothing
	[]byte{0x05, 0x08, 0x19, 0x01, 0x29, 0x05, 0x95, 0x05, 0x75, 0x01, 0x91, 0x02, 0x95, 0x01, 0x75, 0x03, 0x91, 0x01}, // output: 5 LEDs, 3 bits of nothing
	[]byte{0x05, 0x07, 0x19, 0x00, 0x29, 0x65, 0x15, 0x00, 0x25, 0x65, 0x75, 0x08, 0x95, 0x06, 0x81, 0x00},             // input: 6 usages
	[]byte{0x09, 0x03, 0x75, 0x08, 0x95, reportSize, 0xB1, 0x02},                                                       // feature
	[]byte{0xC0},
)

func stringDescriptor(s string) []byte {
	d := []byte{0, descriptorString}
	for _, u := range utf16.Encode([]rune(s)) {
		d = binary.LittleEndian.AppendUint16(d, u)
	}
	d[0] = byte(len(d))
	return d
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
