package emulator

import (
	"encoding/binary"
	"slices"
	"time"
	"unicode/utf16"
)

// usbShape is what a kind of device tells its USB host of itself.
type usbShape struct {
	vendor, product uint16
	version         uint16 // of USB, in BCD
	release         uint16 // of the device, in BCD
	manufacturer    string
	name            string
	serial          string // empty: it has none for USB
	power           byte   // in steps of 2 mA

	subclass, protocol byte   // of the HID interface (HID 1.11, sections 4.2 and 4.3)
	reports            []byte // its report descriptor
	hidEndpoint        byte   // on which it types
	changeEndpoint     byte   // on which a reader tells of cards that come and go; those of these devices do neither
}

const bootKeyboard = 1 // a protocol of HID

func (s usbShape) keyboard() bool { return s.protocol == bootKeyboard }

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
		return f.shape.device()
	case kind == descriptorConfiguration && index == 0:
		return f.shape.configuration(f.ccid != nil)
	case kind == descriptorString:
		return f.shape.text(index)
	}
	return nil
}

// interfaceDescriptor is a descriptor of the class of an interface.
func (f *usbFace) interfaceDescriptor(kind, number uint16) []byte {
	switch {
	case kind == descriptorReport && number == hidInterface:
		return f.shape.reports
	case kind == descriptorHID && number == hidInterface:
		return f.shape.hid()
	case kind == descriptorCCID && number == cardInterface && f.ccid != nil:
		return ccidDescriptor()
	}
	return nil
}

// Indices of strings.
const (
	languages = iota
	manufacturerString
	nameString
	serialString
)

func (s usbShape) text(index int) []byte {
	switch {
	case index == languages:
		return []byte{4, descriptorString, 0x09, 0x04} // English (United States)
	case index == manufacturerString:
		return stringDescriptor(s.manufacturer)
	case index == nameString:
		return stringDescriptor(s.name)
	case index == serialString && s.serial != "":
		return stringDescriptor(s.serial)
	}
	return nil
}

func (s usbShape) device() []byte {
	word := binary.LittleEndian.AppendUint16
	d := word([]byte{18, descriptorDevice}, s.version)
	d = append(d, 0, 0, 0, 64) // the class is the interface's; bytes per packet of endpoint 0
	d = word(word(word(d, s.vendor), s.product), s.release)
	d = append(d, manufacturerString, nameString, 0, 1) // no serial, one configuration
	if s.serial != "" {
		d[16] = serialString
	}
	return d
}

func (s usbShape) configuration(card bool) []byte {
	d := []byte{9, descriptorInterface, hidInterface, 0, 1, 3, s.subclass, s.protocol, 0} // HID
	d = append(d, s.hid()...)
	d = append(d, 7, descriptorEndpoint, 0x80|s.hidEndpoint, 3, reportSize, 0, byte(usbInterval/time.Millisecond)) // interrupt
	interfaces := byte(1)
	if card {
		interfaces++
		d = append(d, 9, descriptorInterface, cardInterface, 0, 3, 0x0B, 0, 0, 0) // CCID, by bulk transfers
		d = append(d, ccidDescriptor()...)
		d = append(d, 7, descriptorEndpoint, cardEndpoint, 2, 64, 0, 0) // bulk
		d = append(d, 7, descriptorEndpoint, 0x80|cardEndpoint, 2, 64, 0, 0)
		d = append(d, 7, descriptorEndpoint, 0x80|s.changeEndpoint, 3, 8, 0, 32) // interrupt
	}
	head := []byte{9, descriptorConfiguration, 0, 0, interfaces, 1, 0, 0x80, s.power} // fed by the bus
	binary.LittleEndian.PutUint16(head[2:], uint16(len(head)+len(d)))
	return append(head, d...)
}

func (s usbShape) hid() []byte {
	d := []byte{9, descriptorHID, 0x10, 0x01, 0, 1, descriptorReport} // HID 1.1
	return binary.LittleEndian.AppendUint16(d, uint16(len(s.reports)))
}

// usbShape is that of a YubiKey 5, as far as OTP and its smart card go.
func (k *YubiKey) usbShape() usbShape {
	fw := k.firmware
	s := usbShape{
		vendor: k.vendor, product: k.product, version: 0x0200, manufacturer: "Yubico", name: "YubiKey OTP", power: 15,
		release:  uint16(fw.Major/10%10)<<12 | uint16(fw.Major%10)<<8 | uint16(fw.Minor%10)<<4 | uint16(fw.Build%10), // 5.4.3 is 0543
		subclass: 1, protocol: bootKeyboard, reports: keyboardReports, hidEndpoint: 1, changeEndpoint: 3,
	}
	if k.card != nil {
		s.name += "+CCID"
	}
	return s
}

// keyboardReports are those of a boot keyboard with a feature report of 8 bytes (HID 1.11, appendix B.1).
var keyboardReports = slices.Concat(
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
