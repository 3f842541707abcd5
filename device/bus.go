package device

import (
	"context"
	"time"
)

// Info describes one interface that a Bus has seen, before it is opened.
type Info struct {
	Path     string // names the interface on its bus while it stays plugged in: "1-1:1.0"
	Port     string // names the physical port; interfaces of one device share it: "1-1"
	Vendor   uint16 // USB vendor ID
	Product  uint16 // USB product ID
	Emulated bool   // not a hardware token (rule D6)
	// Problem says why it cannot be opened, if that is known without trying, and Cure what to do about it.
	Problem, Cure string
}

// Event is one change on a bus.
type Event struct {
	Info    Info
	Removed bool // otherwise it was added
}

// Bus lists and opens the HID interfaces of tokens that one kind of connection reaches: the OTP keyboards of YubiKeys, and what
// Nitrokeys have for their slots.
// Implementations are safe for concurrent use.
type Bus interface {
	// Name is a short word for messages: "usb", "emulator".
	Name() string
	// Watch calls fn with an addition for every interface present, then with each change as it
	// happens, from one goroutine. Devices of a known vendor that cannot be opened are told as well. It returns when ctx ends, or when the bus is lost, with an error
	// that says why nothing is seen.
	Watch(ctx context.Context, fn func(Event)) error
	// Open opens an interface exclusively. It fails with ErrGone, ErrBusy or ErrPermission, wrapped
	// in what is known of the cause. Until Close, what the key types reaches nobody else.
	Open(ctx context.Context, path string) (Report, error)
}

// Sizes of feature reports, each with the report number (always 0) before it.
const (
	ReportSize         = 1 + 8  // of the OTP application of YubiKeys
	NitrokeyReportSize = 1 + 64 // of the Nitrokey Pro and Storage
)

// Report is an open HID interface. It is used by one goroutine at a time.
// Every method fails with ErrGone once the key has been pulled.
type Report interface {
	// SetFeature sends a feature report; p has the size of the model's reports, and its first byte is 0.
	SetFeature(p []byte) error
	// GetFeature reads a feature report into p, which has the size of the model's reports.
	GetFeature(p []byte) error
	// ReadInput waits at most timeout for one 8-byte boot-keyboard report; n is 0 when none came.
	ReadInput(p []byte, timeout time.Duration) (n int, err error)
	// Close gives the keyboard back to the system. A second Close does nothing.
	Close() error
}
