package nitrokeypro

import (
	"cmp"
	"sync"
	"time"

	"tokendesk/device"
)

// Timing is how long a token makes its host wait.
type Timing struct {
	Command time.Duration // for a command
	Card    time.Duration // for one that asks the smart card in it
}

// RealTiming is near what tokens need.
func RealTiming() Timing { return Timing{Command: 10 * time.Millisecond, Card: 250 * time.Millisecond} }

// What tokens leave the factory with.
const (
	FactoryAdminPIN = "12345678"
	FactoryUserPIN  = "123456"
	MaxTries        = 3 // of either PIN
)

// Options describe a token. Zero values: a Nitrokey Pro with the firmware that it has today, factory PINs and real timing.
type Options struct {
	Model             device.Model
	Serial            device.Serial // of the smart card in it
	Firmware          device.Version
	AdminPIN, UserPIN string  // at most 25 bytes
	Timing            *Timing // &Timing{} waits for nothing
}

// Token is one emulated token. It keeps slots, counters, PINs and faults while it has no power. Its methods are safe for
// concurrent use.
type Token struct {
	model    device.Model
	serial   device.Serial
	firmware device.Version
	timing   Timing

	mu     sync.Mutex
	slots  [slotCount]slot
	config [5]byte // who types codes, and whether codes need the user PIN
	admin  pin
	user   pin
	faults faults

	// Only with power:
	off     bool
	powered int // how often it got or lost power
	session session
	before  report    // the answer before
	answer  report    // the last one
	begun   time.Time // when the one before is gone
	parsed  time.Time // when the last one is complete
	due     time.Time // when the smart card has done its part
	news    bool      // of a Storage: the next answer has its status added
	served  byte      // commands of a Storage's own
}

// session is what a token forgets without power.
type session struct {
	admin, user      password
	authorized       uint32 // the checksum of the one command that old firmware will carry out
	isAuthorized     bool
	userAuthorized   uint32
	isUserAuthorized bool
	staged           slot // name and seed that have come, in firmware that takes them one by one
	staging          bool
	silent           bool // of a Storage: commands without authority are answered as if they had been carried out
}

// password is a temporary password that stands for a PIN.
type password struct {
	set  bool
	text [passwordSize]byte
}

func (p password) is(b []byte) bool { return p.set && string(p.text[:]) == string(b[:passwordSize]) }

// New makes a token as it leaves the factory, with power.
func New(o Options) *Token {
	t := &Token{
		model: o.Model, serial: o.Serial, firmware: o.Firmware, timing: RealTiming(),
		config: [5]byte{0xFF, 0xFF, 0xFF, 0xFF, 0xFF},
		admin:  pin{cmp.Or(o.AdminPIN, FactoryAdminPIN), MaxTries},
		user:   pin{cmp.Or(o.UserPIN, FactoryUserPIN), MaxTries},
		faults: faults{},
	}
	if o.Model.Product == 0 {
		t.model, _ = device.FindModel(device.NitrokeyVendor, 0x4108)
	}
	if o.Firmware == (device.Version{}) {
		t.firmware = device.Version{Minor: 15}
		if t.storage() {
			t.firmware = device.Version{Minor: 57}
		}
	}
	if o.Timing != nil {
		t.timing = *o.Timing
	}
	for i := range t.slots {
		t.slots[i] = erased()
	}
	return t
}

// Model returns the USB identity.
func (t *Token) Model() device.Model { return t.model }

// Serial returns the serial number.
func (t *Token) Serial() device.Serial { return t.serial }

// Firmware returns the version.
func (t *Token) Firmware() device.Version { return t.firmware }

// Configured tells of each HOTP slot whether something is in it.
func (t *Token) Configured() [3]bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return [3]bool{t.slots[0].programmed, t.slots[1].programmed, t.slots[2].programmed}
}

// AdminTries is how many wrong admin PINs the token still takes.
func (t *Token) AdminTries() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.admin.tries
}

// PowerUp gives the token power, or resets it if it has.
func (t *Token) PowerUp() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget()
	t.off = false
}

// PowerDown takes the power away.
func (t *Token) PowerDown() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget()
	t.off = true
}

func (t *Token) forget() {
	t.powered++
	t.session, t.before, t.answer, t.news = session{}, report{}, report{}, false
	t.begun, t.parsed, t.due = time.Time{}, time.Time{}, time.Time{}
}

// SetFeature takes a feature report of ReportSize bytes, without a report number; others are ignored. It returns false if the
// token has no power, or has lost it over this report, which its host can only see as a token that was pulled.
func (t *Token) SetFeature(p []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.off:
		return false
	case len(p) != ReportSize:
		return true
	case time.Now().Before(t.due), t.faults.active(FaultStuckBusy), t.faults.strikes(FaultDrop):
		return true // a command that comes too early is lost without a word
	case t.faults.strikes(FaultPullBefore):
		t.vanish()
		return false
	}
	t.before = t.answer
	now := time.Now()
	t.begun, t.parsed = now.Add(t.timing.Command/2), now.Add(t.timing.Command)
	t.due = t.parsed
	r := report(p)
	asksCard, torn := t.carryOut(&r)
	if asksCard {
		t.due = t.due.Add(t.timing.Card)
		if !storageCommand(r[0]) {
			t.parsed = t.due
		}
	}
	if torn || t.faults.strikes(FaultPullAfter) {
		t.vanish()
		return false
	}
	return true
}

func (t *Token) vanish() {
	t.forget()
	t.off = true
}

// GetFeature fills p, of ReportSize bytes, with the feature report that the token has for its host. It returns false if the
// token has no power.
func (t *Token) GetFeature(p []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.off {
		return false
	}
	r := t.visible(time.Now())
	if t.faults.use(FaultBadCRC) {
		r[resultOffset] ^= 0x01
	}
	copy(p, r[:])
	return true
}

// visible is what the host sees. A Pro says that it is busy. A Storage shows the answer before, and then one that is not
// complete: its status is that of success, and only its checksum tells.
func (t *Token) visible(now time.Time) report {
	stuck := t.faults.active(FaultStuckBusy)
	switch {
	case !t.storage() && (stuck || now.Before(t.due)):
		r := t.answer
		r[0] = statusBusy
		return r
	case stuck, t.storage() && now.Before(t.begun):
		return t.before
	case t.storage() && now.Before(t.parsed):
		var r report
		copy(r[:statusOffset], t.answer[:statusOffset])
		return r
	case now.Before(t.due): // a command of a Storage's own
		r := t.answer
		r[storageStatus] = storageBusy
		r.seal()
		return r
	case t.news:
		t.news = false
		r := t.answer
		t.addStatus(&r)
		r.seal()
		return r
	}
	return t.answer
}

func (t *Token) storage() bool { return t.model.Product == 0x4109 }

// old tells whether the firmware is older than the given minor versions of a Pro and of a Storage. A Storage with a number of
// build is on its way to the next version (libnitrokey, get_minor_firmware_version).
func (t *Token) old(pro, storage uint8) bool {
	v := t.firmware
	if !t.storage() {
		return v.Major == 0 && v.Minor < pro
	}
	if v.Build != 0 {
		v.Minor++
	}
	return v.Major == 0 && v.Minor < storage
}

// legacy tells of the firmware that takes a whole slot in one report, which a second one authorizes.
func (t *Token) legacy() bool { return t.old(8, 54) }
