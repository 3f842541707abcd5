package emulator

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"tokendesk/device"
	"tokendesk/device/bussocket"
	"tokendesk/device/emulator/smartcard"
)

// Timing is how long a key makes its host wait.
type Timing struct {
	Chunk  time.Duration // write pending after each chunk of a frame
	Commit time.Duration // write pending after the last chunk of an accepted write
	Swap   time.Duration // the same for swapping the slots
	Open   time.Duration // taking the keyboard from the system
	Close  time.Duration // giving it back
	Stroke time.Duration // between two boot-keyboard reports; delays and pacing flags come on top
	// Reclaim is how long no serial is told over the OTP interface after the smart card was used; and how long the card of a NEO
	// stays out of its reader after the OTP interface was used.
	Reclaim time.Duration
}

// RealTiming is near what real keys need (swap: libykpers waits up to 920 ms).
func RealTiming() Timing {
	return Timing{
		Chunk:  time.Millisecond,
		Commit: 60 * time.Millisecond,
		Swap:   900 * time.Millisecond,
		Open:   50 * time.Millisecond,
		Close:  50 * time.Millisecond,
		Stroke: 4 * time.Millisecond,

		Reclaim: 2 * time.Second, // up to 3 s (yubikey-manager, issue 109)
	}
}

// Options describe a token. Zero values: product 1050:0407 or what else its constructor says, real timing.
type Options struct {
	Serial   device.Serial
	Firmware device.Version
	Vendor   uint16
	Product  uint16
	Absent   bool    // not plugged in at first
	Timing   *Timing // &Timing{} waits for nothing, not even where the configuration says so
	// VPCD is where a reader waits for the token's smart card, HOST:PORT (vsmartcard's vpcd); a YubiKey's product must be one
	// that has CCID. Empty: a YubiKey has no smart card, unless it is attached to the kernel's USB.
	VPCD string
}

// YubiKey is one emulated key. It keeps its slots, counters and faults while pulled.
type YubiKey struct {
	carrier

	// Guarded by mu:
	app    application
	waited time.Duration // required by the protocol so far
	window int           // touches typed into the focused window
	held   int           // touches typed into a handle
	shown  statusSummary // what FaultLostStatus keeps showing

	cardUsed time.Time // last

	// Only while plugged in:
	frame      assembly
	response   *response
	waiting    *touchWait // for a touch
	busy       time.Time  // write pending until then
	commit     func()     // due at that time
	powered    time.Time  // since when it is plugged in
	pluggedIn  byte       // the touch level then
	stampStart uint32     // what its clock showed then
}

// statusSummary is what the status report tells of the slots.
type statusSummary struct{ sequence, touchLevel byte }

// New makes a key with two empty slots.
func New(o Options) *YubiKey {
	k := &YubiKey{app: newApplication(o.Serial, o.Firmware)}
	k.fill(k, o.Serial, o.Firmware, o.Timing)
	k.vendor, k.product = cmp.Or(o.Vendor, device.YubicoVendor), cmp.Or(o.Product, 0x0407)
	k.reportSize = reportSize
	if k.vpcd = o.VPCD; k.vpcd != "" {
		k.addCard()
	}
	if !o.Absent {
		k.Insert()
	}
	return k
}

// ID names the key.
func (k *YubiKey) ID() device.ID { return device.YubiKeyID(k.serial) }

func (k *YubiKey) powerUp() {
	k.powered, k.stampStart = time.Now(), rand.Uint32()
	k.app.powerUp()
	k.pluggedIn = k.app.touchLevel()
}

func (k *YubiKey) powerLost() {
	k.frame, k.response, k.waiting, k.commit, k.busy = assembly{}, nil, nil, nil, time.Time{}
}

func (k *YubiKey) takeReport(r []byte) bool {
	if k.card != nil && k.firmware.Major == neoMajor {
		k.eject(k.timing.Reclaim)
	}
	return k.setFeature([reportSize]byte(r))
}

func (k *YubiKey) giveReport(r []byte) {
	now := k.getFeature()
	copy(r, now[:])
}

// SetFault makes the key misbehave.
func (k *YubiKey) SetFault(kind Fault, n int) error {
	if slices.Contains(CardFaults, kind) {
		return k.setCardFault(kind.ofCard(), n)
	}
	if kind == FaultClear && k.card != nil {
		if err := k.setCardFault(smartcard.FaultClear, 0); err != nil {
			return err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.settle()
	if k.onUSB && kind.ofOpening() {
		return errOpenedByKernel(kind)
	}
	if kind == FaultLostStatus && !k.faults.active(kind) {
		k.shown = k.summary()
	}
	return k.faults.set(kind, n)
}

// Touch touches the key: short is slot 1, long is slot 2. If nobody holds the key, text is what appears in
// the focused window and held is false. A touch that a challenge or the smart card waits for types nothing, and its
// length does not matter. A pulled key fails with device.ErrGone.
func (k *YubiKey) Touch(long bool) (text string, held bool, err error) {
	t, err := k.touch(long)
	return t.Text, t.To == bussocket.ToHolder || t.To == bussocket.ToUSB, err
}

func (k *YubiKey) touch(long bool) (bussocket.Touch, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gone == nil {
		return bussocket.Touch{}, device.ErrGone
	}
	if w := k.waiting; w != nil && w.secondsLeft() > 0 {
		k.waiting = nil
		k.respond(w.respond())
		return bussocket.Touch{To: bussocket.ToChallenge}, nil
	}
	if k.finger.press() {
		return bussocket.Touch{To: bussocket.ToChallenge}, nil
	}
	if k.commit != nil { // the key is busy until its write is complete, and the finger stays
		k.commit()
		k.commit = nil
	}
	i := 0
	if long {
		i = 1
	}
	strokes := k.app.touch(i, k.stamp())
	switch {
	case len(strokes) == 0:
		return bussocket.Touch{To: bussocket.ToNobody}, nil
	case k.holder == nil:
		k.window++
		return bussocket.Touch{To: bussocket.ToWindow, Text: window(strokes)}, nil
	}
	k.held++
	k.holder.enqueue(strokes)
	if k.onUSB {
		return bussocket.Touch{To: bussocket.ToUSB}, nil
	}
	return bussocket.Touch{To: bussocket.ToHolder}, nil
}

func (k *YubiKey) describe(to *bussocket.Key) {
	for i, slot := range k.app.slots {
		if slot.configured {
			to.Holds = append(to.Holds, fmt.Sprintf("otp%d", i+1))
		}
	}
	to.ProgramSequence = k.app.sequence
	to.TypedToWindow, to.TypedToHolder, to.RequiredWaitUS = k.window, k.held, k.waited.Microseconds()
}

// settle does what is due: a write is complete, or the time for a touch is over.
func (k *YubiKey) settle() {
	if k.waiting != nil && k.waiting.secondsLeft() == 0 {
		k.waiting = nil
	}
	if k.commit != nil && !time.Now().Before(k.busy) {
		k.commit()
		k.commit = nil
	}
}

func (k *YubiKey) summary() statusSummary {
	if k.faults.active(FaultLostStatus) {
		return k.shown
	}
	return statusSummary{k.app.sequence, k.app.touchLevel()}
}

// setFeature takes a feature report, with k.mu held; false means that the key vanished over it.
func (k *YubiKey) setFeature(r [reportSize]byte) bool {
	flags := r[chunkSize]
	if isReset(flags) {
		k.frame, k.response, k.waiting = assembly{}, nil, nil
		return true
	}
	n, ok := chunkNumber(flags)
	if !ok || k.writePending() {
		return true // a chunk that does not wait for its turn is lost
	}
	if at, armed := k.faults[FaultUnplugAtChunk]; armed && n >= at && (n < chunks-1 || k.frame.payload()) {
		delete(k.faults, FaultUnplugAtChunk)
		k.remove()
		return false
	}
	k.response, k.waiting = nil, nil
	k.wait(k.timing.Chunk)
	if !k.frame.add(n, r[:chunkSize]) {
		return true
	}
	if command, payload, ok := k.frame.take(); ok {
		k.execute(command, payload)
	}
	return true
}

// wait keeps the write-pending flag up for d, which counts as waiting the protocol required.
func (k *YubiKey) wait(d time.Duration) {
	k.busy = time.Now().Add(d)
	k.waited += d
}

// writePending tells whether the write-pending flag is up. If it is not, the write is complete.
func (k *YubiKey) writePending() bool {
	pending := time.Now().Before(k.busy) // asked before settling, or its time could come in between
	k.settle()
	return pending || k.faults.active(FaultStuckFlag)
}

func (k *YubiKey) execute(command byte, payload [payloadSize]byte) {
	if isWrite(command) {
		k.write(command, payload)
		return
	}
	if slot, wantsHMAC, ok := challengeSlot(command); ok {
		k.challenge(slot, wantsHMAC, payload)
		return
	}
	if command == cmdSerial && (k.faults.use(FaultReclaim) || k.reclaiming()) {
		return
	}
	if data := k.app.read(command, k.faults.active(FaultSerialHidden)); data != nil {
		k.respond(data)
	}
}

func (k *YubiKey) respond(data []byte) { k.response = newResponse(data, k.faults.use(FaultBadCRC)) }

func (k *YubiKey) write(command byte, payload [payloadSize]byte) {
	if k.faults.use(FaultRejectWrite) {
		return
	}
	if _, ok := k.app.write(command, payload); !ok {
		return
	}
	k.commit = func() { k.app, _ = k.app.write(command, payload) }
	if k.faults.use(FaultUnplugAfterWrite) {
		k.commit()
		k.remove()
		return
	}
	d := k.timing.Commit
	if command == cmdSwap {
		d = k.timing.Swap
	}
	k.wait(d)
	k.settle() // at once, if commits take no time
}

// getFeature gives the status, or the next chunk of a response, with k.mu held.
func (k *YubiKey) getFeature() (r [reportSize]byte) {
	pending := k.writePending()
	if k.response != nil && !pending {
		if k.response.read(&r) {
			k.response = nil
		}
		return r
	}
	v, s := k.app.firmware, k.summary()
	r = [reportSize]byte{0, v.Major, v.Minor, v.Build, s.sequence, s.touchLevel}
	switch {
	case pending:
		r[chunkSize] = flagWritePending
	case k.waiting != nil:
		r[chunkSize] = flagTouchWait | k.waiting.secondsLeft()
	}
	return r
}
