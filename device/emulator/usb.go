package emulator

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"
	"unicode/utf16"

	"tokendesk/device"
	"tokendesk/device/emulator/vhci"
)

// usbFace is a key as its USB host sees it: one interface, the OTP keyboard. Requests and descriptors are those
// of USB 2.0, chapter 9, and HID 1.11, chapter 7; what a real key does not have is refused with a stall.
type usbFace struct {
	holder     *Handle // everything that has a meaning for the key goes through it
	descriptor []byte  // of the device

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
)

const usbInterval = 10 * time.Millisecond // between two packets of the keyboard's endpoint

const (
	keyboardEndpoint = 1
	reportProtocol   = 1 // what a host finds at first (HID 1.11, section 7.2.6)
)

func newFace(h *Handle) *usbFace {
	return &usbFace{
		holder:     h,
		descriptor: deviceDescriptor(h.key.vendor, h.key.product, h.key.Firmware()),
		configured: make(chan struct{}),
		protocol:   reportProtocol,
	}
}

// Control implements vhci.Device.
func (f *usbFace) Control(s vhci.Setup, data []byte) ([]byte, error) {
	request := int(s.RequestType)<<8 | int(s.Request)
	switch request {
	case getDescriptor, getHIDDescriptor:
		if d := f.descriptorOf(request, s.Value); d != nil {
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
		if s.Value != 0 || s.Index != 0 {
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

// In implements vhci.Device: what the key types.
func (f *usbFace) In(ctx context.Context, endpoint uint8) ([]byte, error) {
	if endpoint != keyboardEndpoint {
		return nil, vhci.ErrStall
	}
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
	descriptorReport        = 0x22
)

func (f *usbFace) descriptorOf(request int, value uint16) []byte {
	kind, index := value>>8, int(value&0xFF)
	switch {
	case request == getHIDDescriptor && kind == descriptorReport:
		return reportDescriptor
	case request == getHIDDescriptor && kind == descriptorHID:
		return hidDescriptor()
	case request == getHIDDescriptor:
	case kind == descriptorDevice:
		return f.descriptor
	case kind == descriptorConfiguration && index == 0:
		return configurationDescriptor()
	case kind == descriptorString && index == 0:
		return []byte{4, descriptorString, 0x09, 0x04} // English (United States)
	case kind == descriptorString && index <= len(usbStrings):
		return stringDescriptor(usbStrings[index-1])
	}
	return nil
}

var usbStrings = []string{"Yubico", "YubiKey OTP"}

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

func configurationDescriptor() []byte {
	d := []byte{9, descriptorInterface, 0, 0, 1, 3, 1, 1, 0} // HID, boot interface, keyboard
	d = append(d, hidDescriptor()...)
	d = append(d, 7, descriptorEndpoint, 0x80|keyboardEndpoint, 3, reportSize, 0, byte(usbInterval/time.Millisecond)) // interrupt
	head := []byte{9, descriptorConfiguration, 0, 0, 1, 1, 0, 0x80, 15}                                               // fed by the bus, 30 mA
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
	m, known := device.FindModel(k.vendor, k.product)
	if known && m.Capabilities == device.OTP {
		return nil
	}
	return fmt.Errorf("an emulated key has OTP only, and %04x:%04x would announce more or other things to the kernel; make it a product 0010, 0110 or 0401", k.vendor, k.product)
}
