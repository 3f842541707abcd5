package udev

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Event is one change of a device, told by the kernel or by udev.
type Event struct {
	Action    string // "add", "remove", "change", "bind", "unbind", ...
	Path      string // of its folder below /sys: "/devices/..."
	Subsystem string
	DevType   string // within the subsystem: "usb_device", "usb_interface"
	Settled   bool   // from udev, when it had dealt with the change; otherwise the kernel's own word, before that
}

// The header of udev's messages (systemd, sd-device/device-monitor.c: monitor_netlink_header). Numbers are in
// the machine's byte order, except those that the kernel's socket filter compares.
const (
	udevPrefix       = "libudev\x00"
	udevMagic        = 0xfeedcafe // big-endian, at udevMagicAt
	udevMagicAt      = 8
	udevPropertiesAt = 16 // where the offset of the properties is; their length follows
	udevHeaderSize   = 40
)

// parseKernel reads a message of the kernel: "add@/devices/...", then the properties (lib/kobject_uevent.c).
func parseKernel(message []byte) (Event, error) {
	head, properties, _ := bytes.Cut(message, []byte{0})
	if !bytes.Contains(head, []byte("@/")) {
		return Event{}, fmt.Errorf("a kernel event that begins %.20q", head)
	}
	return parseProperties(properties)
}

// parseUdev reads a message of udev: a header that says where the properties are.
func parseUdev(message []byte) (Event, error) {
	if len(message) < udevHeaderSize || string(message[:len(udevPrefix)]) != udevPrefix {
		return Event{}, errors.New("a udev event without its header")
	}
	if magic := binary.BigEndian.Uint32(message[udevMagicAt:]); magic != udevMagic {
		return Event{}, fmt.Errorf("a udev event of another version (%08x)", magic)
	}
	offset := uint64(binary.NativeEndian.Uint32(message[udevPropertiesAt:]))
	length := uint64(binary.NativeEndian.Uint32(message[udevPropertiesAt+4:]))
	if offset < udevHeaderSize || offset+length > uint64(len(message)) {
		return Event{}, errors.New("a udev event with its properties outside of it")
	}
	event, err := parseProperties(message[offset : offset+length])
	event.Settled = true
	return event, err
}

// parseProperties reads KEY=VALUE strings, each ended by a zero byte.
func parseProperties(properties []byte) (Event, error) {
	var e Event
	for len(properties) > 0 {
		var one []byte
		one, properties, _ = bytes.Cut(properties, []byte{0})
		name, value, _ := bytes.Cut(one, []byte("="))
		switch string(name) {
		case "ACTION":
			e.Action = string(value)
		case "DEVPATH":
			e.Path = string(value)
		case "SUBSYSTEM":
			e.Subsystem = string(value)
		case "DEVTYPE":
			e.DevType = string(value)
		}
	}
	if e.Action == "" || e.Path == "" || e.Subsystem == "" {
		return Event{}, errors.New("an event that does not say what has happened to which device")
	}
	return e, nil
}
