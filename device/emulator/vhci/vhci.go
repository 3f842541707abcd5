// Package vhci plugs USB devices that are made in software into this machine's kernel.
//
// The kernel's virtual host controller (module vhci-hcd) takes a socket for each device and speaks USB/IP on
// it (Documentation/usb/usbip_protocol.rst). It is meant for devices of another machine; here the other end
// of the socket is a Device of this process, and no usbip program is needed. For everybody above the kernel
// it is then a USB device like any other: udev, drivers, libusb. It takes root, and the module.
//
// Devices run at full speed and have a control endpoint, interrupt and bulk IN endpoints, and bulk OUT endpoints;
// an isochronous transfer ends the connection. The kernel is trusted no
// more than another program: whatever comes from it, memory stays bounded and nothing panics.
package vhci

import (
	"context"
	"encoding/binary"
	"errors"
)

// ErrStall is how a device refuses a request (USB 2.0, section 8.4.5); the host sees EPIPE.
var ErrStall = errors.New("the request is not supported")

// Setup is the setup packet of a control transfer (USB 2.0, section 9.3).
type Setup struct {
	RequestType uint8
	Request     uint8
	Value       uint16
	Index       uint16
	Length      uint16
}

// setupSize is the size of a setup packet in bytes.
const setupSize = 8

func parseSetup(b [setupSize]byte) Setup {
	return Setup{
		RequestType: b[0],
		Request:     b[1],
		Value:       binary.LittleEndian.Uint16(b[2:]),
		Index:       binary.LittleEndian.Uint16(b[4:]),
		Length:      binary.LittleEndian.Uint16(b[6:]),
	}
}

// Device is a USB device.
type Device interface {
	// Control answers a control transfer on endpoint 0. data is what the host sent; what is returned goes
	// to the host, cut to what it asked for. It is called from one goroutine and does not wait. ErrStall
	// refuses; after any other error the host is told that there is no such device.
	Control(s Setup, data []byte) ([]byte, error)
	// Out takes what the host has sent to a bulk OUT endpoint, 1 to 15: one transfer, which need not be all that
	// belongs together. It is called from the goroutine of Control and does not wait. ErrStall refuses; after
	// any other error the host is told that there is no such device.
	Out(endpoint uint8, data []byte) error
	// In returns the next packet of an interrupt IN endpoint, or the next transfer of a bulk one, 1 to 15, and
	// waits for it until ctx ends. It
	// is called from one goroutine per endpoint, and not before the host has asked once. A packet that
	// was returned is not lost if the host withdraws its question: it answers the next one. ErrStall
	// refuses this one transfer; after any other error the endpoint is silent for good.
	In(ctx context.Context, endpoint uint8) ([]byte, error)
}
