package smartcard

import (
	"bytes"
	"cmp"
	"context"
	"sync"
	"time"

	"tokendesk/device"
)

// FormFactor is the shape of a key (yubikit management.py, FORM_FACTOR).
type FormFactor byte

// Form factors.
const (
	USBAKeychain FormFactor = 1
	USBANano     FormFactor = 2
	USBCKeychain FormFactor = 3
	USBCNano     FormFactor = 4
)

// touchTime is how long a key waits for a touch.
const touchTime = 15 * time.Second

// Options describe a card. Zero values: a keychain with USB-A, touched as soon as it asks for it.
type Options struct {
	Serial     device.Serial
	Firmware   device.Version
	FormFactor FormFactor
	// Nitrokey3 makes it the card of a Nitrokey 3, with nothing but its secrets application. Firmware is then what that tells of
	// itself: 4.14.0 stands for 0.14.0, and is what an empty one becomes.
	Nitrokey3 bool
	// OTP is the OTP application of the key around the card; nil: one of the card's own, which stays empty.
	OTP OTP
	// Touch waits for a touch, and tells whether one came before ctx ended: after 15 seconds, or when the power goes. It is
	// called from within Transmit, and must call no method of the card but PowerDown.
	Touch func(ctx context.Context) bool
	// Pulled is called when a fault has pulled the card, from within Transmit, after which every APDU is lost until the next
	// PowerUp. It may call every method of the card.
	Pulled func()
}

// Card is one emulated smart card. It keeps keys, objects, PINs and faults while it has no power. Its methods are safe for
// concurrent use, but as with real cards, whoever selects an application has it for everybody.
type Card struct {
	serial   device.Serial
	firmware device.Version
	form     FormFactor
	touch    func(ctx context.Context) bool
	pulled   func()
	otp      OTP

	mu       sync.Mutex
	faults   faults
	off      bool // from PowerDown, or a fault, to PowerUp
	piv      *piv
	oath     *oath
	secrets  *secrets    // nil: it is no Nitrokey 3, which has no other application here
	selected application // nil: none since power came
	chain    chain       // a command that arrives in several APDUs
	rest     []byte      // of a response, for GET RESPONSE
	touched  time.Time   // last, while powered

	power   sync.Mutex // guards what follows; may be taken while mu is held
	powered context.Context
	cut     context.CancelFunc
}

// application is one of the card's. Commands come with their class byte checked.
type application interface {
	// selected forgets what was verified, and answers SELECT.
	selected() []byte
	command(a apdu) ([]byte, status)
}

// New makes a card as it leaves the factory, with power.
func New(o Options) *Card {
	c := &Card{
		serial: o.Serial, firmware: o.Firmware, form: cmp.Or(o.FormFactor, USBAKeychain),
		touch: o.Touch, pulled: o.Pulled, otp: o.OTP,
		faults: faults{n: map[Fault]int{}},
	}
	if c.otp == nil {
		c.otp = emptyOTP{c}
	}
	c.piv, c.oath = newPIV(c), newOATH(c)
	if o.Nitrokey3 {
		c.secrets, c.firmware = newSecrets(c), cmp.Or(o.Firmware, device.Version{Major: 4, Minor: 14})
	}
	c.renew()
	return c
}

// ATR returns the answer to reset of a YubiKey 5, or of a Nitrokey 3; both offer T=1.
func (c *Card) ATR() []byte {
	if c.secrets != nil {
		return []byte(atrNitrokey3)
	}
	return []byte("\x3b\xfd\x13\x00\x00\x81\x31\xfe\x15\x80\x73\xc0\x21\xc0\x57YubiKey\x40")
}

// PowerUp gives the card power, or resets it if it has: no application is selected and nothing verified.
func (c *Card) PowerUp() {
	c.PowerDown()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = false
	c.renew()
}

// PowerDown takes the power away. A command that waits for a touch ends at once.
func (c *Card) PowerDown() {
	c.power.Lock()
	c.cut()
	c.power.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget()
	c.off = true
}

// renew is what power does.
func (c *Card) renew() {
	c.forget()
	c.power.Lock()
	defer c.power.Unlock()
	c.powered, c.cut = context.WithCancel(context.Background())
}

// forget drops what a card only knows while it has power.
func (c *Card) forget() {
	c.selected, c.chain, c.rest, c.touched = nil, chain{}, nil, time.Time{}
	c.piv.session, c.oath.session = session{}, oathSession{}
}

// Transmit answers a command APDU (ISO/IEC 7816-4, section 5.1), short or extended, with response data and status word. It
// returns nil if the card does not answer: it has no power, was pulled meanwhile, or a fault made it mute.
func (c *Card) Transmit(command []byte) []byte {
	answer, pulled := c.transmit(command)
	if pulled && c.pulled != nil {
		c.pulled()
	}
	return answer
}

func (c *Card) transmit(command []byte) (answer []byte, pulled bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.off || c.faults.active(FaultMute) {
		return nil, false
	}
	if c.faults.strikes(FaultPullBefore) {
		c.off = true
		return nil, true
	}
	after := c.faults.strikes(FaultPullAfter)
	if sw, ok := c.faults.status(); ok {
		answer = sw.append(nil)
	} else {
		answer = c.answer(command)
	}
	if after {
		c.off = true
		return nil, true
	}
	if c.off || c.powered.Err() != nil {
		return nil, false
	}
	return answer, false
}

// answer carries out one APDU.
func (c *Card) answer(command []byte) []byte {
	a, ok := parseAPDU(command)
	if !ok {
		c.chain, c.rest = chain{}, nil
		return swWrongLength.append(nil)
	}
	if a.class&^classChain != 0 {
		c.chain, c.rest = chain{}, nil
		return swClass.append(nil)
	}
	if a.ins == c.insRest() {
		return c.part(a)
	}
	c.rest = nil
	whole, sw := c.chain.add(a)
	if !whole {
		return sw.append(nil)
	}
	a.data = c.chain.take()
	data, sw := c.carryOut(a)
	if sw != swOK {
		return sw.append(nil)
	}
	if c.faults.active(FaultLyingLength) {
		lie(data)
	}
	if wrong, ok := a.wrongLe(len(data)); ok {
		return wrong.append(nil)
	}
	c.rest = data
	return c.part(a)
}

// part gives as much of the response as the host has room for, and 61xx if there is more.
func (c *Card) part(a apdu) []byte {
	if a.ins == insGetResponse && c.rest == nil {
		return swConditions.append(nil)
	}
	n := min(len(c.rest), c.room(a))
	data := c.rest[:n:n]
	if c.rest = c.rest[n:]; len(c.rest) == 0 {
		c.rest = nil
		return swOK.append(data)
	}
	return status(swMore + status(min(len(c.rest), 0x100)&0xFF)).append(data)
}

func (c *Card) carryOut(a apdu) ([]byte, status) {
	if c.isSelect(a) {
		return c.selectApplication(a)
	}
	if c.selected == nil {
		return nil, swInstruction
	}
	return c.selected.command(a)
}

// Names of applications (ISO/IEC 7816-5).
var (
	aidPIV        = []byte{0xA0, 0, 0, 3, 8, 0, 0, 0x10, 0, 1, 0}
	aidManagement = []byte{0xA0, 0, 0, 5, 0x27, 0x47, 0x11, 0x17}
	aidOTP        = []byte{0xA0, 0, 0, 5, 0x27, 0x20, 1, 1}
	aidOATH       = []byte{0xA0, 0, 0, 5, 0x27, 0x21, 1}
)

// shortestAID is what a name has to tell at least: who gave it.
const shortestAID = 5

func (c *Card) selectApplication(a apdu) ([]byte, status) {
	if a.p1 != 0x04 {
		return nil, swP1P2
	}
	named := func(aid []byte) bool { return len(a.data) >= shortestAID && bytes.HasPrefix(aid, a.data) }
	var next application
	switch {
	case c.secrets != nil && bytes.Equal(a.data, aidOATH):
		next = c.secrets
	case c.secrets != nil:
		return nil, swNotFound
	case named(aidPIV):
		next = c.piv
	case named(aidManagement) && len(a.data) > shortestAID && c.firmware.Major >= 4:
		next = management{c}
	case named(aidOTP) && len(a.data) > shortestAID && c.hasOTP():
		next = otp{c}
	case named(aidOATH) && len(a.data) > shortestAID:
		next = c.oath
	default:
		return nil, swNotFound
	}
	c.piv.session, c.oath.session = session{}, oathSession{}
	c.selected = next
	return next.selected(), swOK
}

// waitForTouch waits until the card is touched. One that waits keeps everybody else waiting, as a real one does.
func (c *Card) waitForTouch() bool {
	if c.touch != nil {
		ctx, cancel := context.WithTimeout(c.powered, touchTime)
		defer cancel()
		if !c.touch(ctx) || ctx.Err() != nil {
			return false
		}
	}
	c.touched = time.Now()
	return true
}

// atLeast tells whether the firmware has what came with a version.
func (c *Card) atLeast(major, minor, build uint8) bool {
	return !c.firmware.Less(device.Version{Major: major, Minor: minor, Build: build})
}
