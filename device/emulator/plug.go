package emulator

import (
	"sync"
	"time"

	"tokendesk/device"
	"tokendesk/device/bussocket"
)

// plug is what all emulated devices have in common: they are plugged in and pulled, and their HID interface, if they have one,
// is held by one program at a time.
type plug struct {
	kind            kind
	vendor, product uint16
	serial          device.Serial
	firmware        device.Version
	timing          Timing
	instant         bool
	reportSize      int           // of its feature reports, without the report number; 0: it has no HID interface
	inserted        chan struct{} // it was plugged in

	mu      sync.Mutex
	faults  faults
	changed func(present bool)
	onUSB   bool // it is plugged into the kernel's USB, see Attach

	// Only while plugged in:
	gone   chan struct{} // closed when the device is pulled; nil while it is out
	holder *Handle       // nil also while the holder is still opening
	taken  bool          // somebody holds the device, is opening it or is closing it
}

// kind is what one kind of device does. Its methods are called with the plug's lock held.
type kind interface {
	powerUp()
	powerLost()
	// settle does what is due.
	settle()
	// takeReport takes a feature report; false means that the device vanished over it.
	takeReport(r []byte) bool
	// giveReport fills a feature report.
	giveReport(r []byte)
}

// fill makes the plug that of a device, which is out.
func (p *plug) fill(of kind, serial device.Serial, fw device.Version, timing *Timing) {
	p.kind, p.serial, p.firmware = of, serial, fw
	p.inserted, p.faults, p.timing = make(chan struct{}, 1), faults{}, RealTiming()
	if timing != nil {
		p.timing = *timing
		p.instant = p.timing == Timing{}
	}
}

func (p *plug) base() *plug { return p }

// Serial returns the serial number, whether or not the device tells it.
func (p *plug) Serial() device.Serial { return p.serial }

// Firmware returns the version.
func (p *plug) Firmware() device.Version { return p.firmware }

// Insert plugs the device in; nothing happens if it is.
func (p *plug) Insert() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.insert()
}

func (p *plug) insert() {
	if p.gone != nil {
		return
	}
	p.gone = make(chan struct{})
	p.kind.powerUp()
	select {
	case p.inserted <- struct{}{}:
	default:
	}
	p.announce()
}

// insertHeld plugs in a device that is out, with its holder.
func (p *plug) insertHeld() *Handle {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.insert()
	return p.hold()
}

// Remove pulls the device; nothing happens if it is out. A write that is not complete yet is lost.
func (p *plug) Remove() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kind.settle()
	p.remove()
}

func (p *plug) remove() {
	if p.gone == nil {
		return
	}
	close(p.gone)
	p.gone, p.holder, p.taken = nil, nil, false
	p.kind.powerLost()
	p.announce()
}

// plugged is closed when the device is pulled; nil if it is out.
func (p *plug) plugged() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gone
}

// announceTo makes fn hear now whether the device is plugged in, and then each change. fn must not block.
func (p *plug) announceTo(fn func(present bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed = fn
	p.announce()
}

func (p *plug) announce() {
	if p.changed != nil {
		p.changed(p.gone != nil)
	}
}

// touch is that of a device that types nothing.
func (p *plug) touch(bool) (bussocket.Touch, error) {
	if p.plugged() == nil {
		return bussocket.Touch{}, device.ErrGone
	}
	return bussocket.Touch{To: bussocket.ToNobody}, nil
}

// moveToUSB makes the device one of the kernel's USB. It is out until it is inserted there; present is whether it should be.
func (p *plug) moveToUSB() (present bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	present = p.gone != nil
	p.remove()
	p.onUSB = true
	return present
}

// strokeGap is how far apart two boot-keyboard reports arrive.
func (p *plug) strokeGap() time.Duration {
	if p.onUSB && !p.instant {
		return max(p.timing.Stroke, usbInterval) // a host does not ask more often
	}
	return p.timing.Stroke
}
