package emulator

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"tokendesk/device/emulator/vhci"
)

// ccidFace is the smart card's interface of a USB device: a reader with one slot, in which its card always is, or none. Messages
// and their fields are those of the CCID specification, revision 1.1, chapter 6; whole APDUs are exchanged, also extended
// ones.
type ccidFace struct {
	owner    *carrier         // of the card; nil: the slot is empty
	commands chan ccidMessage // for the endpoint that answers them

	mu      sync.Mutex
	partial []byte // of a message that came in several transfers

	// Of the answering endpoint, which is served by one goroutine:
	powered bool
	command []byte       // an APDU that comes in several messages
	rest    []byte       // of a response that goes in several
	running *ccidRunning // an APDU that the card carries out
}

// ccidRunning is an APDU that takes its time, perhaps because the card waits for a touch.
type ccidRunning struct {
	to     ccidMessage
	answer chan []byte // one: the response, or nil if the card does not answer
}

const (
	ccidHeader     = 10
	ccidMaxMessage = 3072 // as a YubiKey 5 has it
	ccidMaxAPDU    = 4 + 3 + 0xFFFF + 2
	ccidQueue      = 4 // commands that a host may send ahead; it is to wait for each (section 4.1)
	// ccidExtension is how often the host is asked for more time.
	ccidExtension = time.Second
)

// Messages to the reader (section 6.1).
const (
	ccidSetParameters   = 0x61
	ccidPowerOn         = 0x62
	ccidPowerOff        = 0x63
	ccidSlotStatus      = 0x65
	ccidSecure          = 0x69
	ccidEscape          = 0x6B
	ccidGetParameters   = 0x6C
	ccidResetParameters = 0x6D
	ccidTransfer        = 0x6F
	ccidSetRate         = 0x73
)

// Messages from the reader (section 6.2).
const (
	ccidDataBlock      = 0x80
	ccidStatus         = 0x81
	ccidParameters     = 0x82
	ccidEscaped        = 0x83
	ccidRate           = 0x84
	ccidFailed         = 0x40 // in the status: the command has failed
	ccidMoreTime       = 0x80 // likewise: the answer comes later
	ccidInactive       = 0x01 // likewise: the card has no power
	ccidNoCard         = 0x02 // likewise: there is none
	ccidMute           = 0xFE // errors: the card does not answer
	ccidTooLong        = 0xFC // more than there is room for
	ccidBadLength      = 1    // errors: offset of the field that is wrong
	ccidBadSlot        = 5
	ccidBadLevel       = 8
	ccidUnsupported    = 0
	ccidWhole          = 0x00 // levels of chaining: all of it
	ccidBegins         = 0x01
	ccidEnds           = 0x02
	ccidContinues      = 0x03
	ccidAskForMore     = 0x10
	ccidProtocolT1     = 1
	ccidParametersSize = 7
)

// ccidT1 are the protocol parameters that the ATR of the card asks for (section 6.2.3, T=1).
var ccidT1 = []byte{0x13, 0x10, 0x00, 0x15, 0x00, 0xFE, 0x00}

// ccidMessage is a command to the reader.
type ccidMessage struct {
	kind, slot, sequence byte
	specific             [3]byte
	data                 []byte
}

var errCCIDLength = errors.New("a CCID message is longer than the reader takes")

// parseCCID reads a message from b; ok is false if more is to come.
func parseCCID(b []byte) (m ccidMessage, ok bool, err error) {
	if len(b) < ccidHeader {
		return m, false, nil
	}
	size := binary.LittleEndian.Uint32(b[1:])
	if size > ccidMaxMessage-ccidHeader || len(b) > ccidHeader+int(size) {
		return m, false, errCCIDLength
	}
	m = ccidMessage{kind: b[0], slot: b[5], sequence: b[6], specific: [3]byte(b[7:]), data: b[ccidHeader:]}
	return m, len(m.data) == int(size), nil
}

// reply renders an answer. parameter is the last byte of the header, which has a meaning of its own in each kind.
func (m ccidMessage) reply(kind, status, failure, parameter byte, data []byte) []byte {
	b := append(make([]byte, 0, ccidHeader+len(data)), kind)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	b = append(b, m.slot, m.sequence, status, failure, parameter)
	return append(b, data...)
}

// answeredBy is the kind of message that answers m, also if it is not supported.
func (m ccidMessage) answeredBy() byte {
	switch m.kind {
	case ccidPowerOn, ccidTransfer, ccidSecure:
		return ccidDataBlock
	case ccidGetParameters, ccidSetParameters, ccidResetParameters:
		return ccidParameters
	case ccidEscape:
		return ccidEscaped
	case ccidSetRate:
		return ccidRate
	}
	return ccidStatus
}

func (m ccidMessage) fail(status, failure byte) []byte {
	return m.reply(m.answeredBy(), ccidFailed|status, failure, 0, nil)
}

func newCCIDFace(owner *carrier) *ccidFace {
	return &ccidFace{owner: owner, commands: make(chan ccidMessage, ccidQueue)}
}

// out takes what the host sends.
func (f *ccidFace) out(data []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.partial = append(f.partial, data...)
	m, whole, err := parseCCID(f.partial)
	if err != nil || whole {
		f.partial = nil
	}
	if err != nil {
		return vhci.ErrStall
	}
	if !whole {
		return nil
	}
	select {
	case f.commands <- m:
		return nil
	default:
		return vhci.ErrStall
	}
}

// in returns the next message for the host. It is called by one goroutine at a time.
func (f *ccidFace) in(ctx context.Context) ([]byte, error) {
	for {
		if f.running != nil {
			return f.awaitCard(ctx)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case m := <-f.commands:
			if answer := f.answer(m); answer != nil {
				return answer, nil
			}
		}
	}
}

// awaitCard returns the response of the card, or asks for more time.
func (f *ccidFace) awaitCard(ctx context.Context) ([]byte, error) {
	t := time.NewTimer(ccidExtension)
	defer t.Stop()
	m := f.running.to
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-t.C:
		return m.reply(ccidDataBlock, ccidMoreTime, 1, 0, nil), nil
	case response := <-f.running.answer:
		f.running = nil
		if response == nil {
			f.powered = false
			return m.fail(ccidInactive, ccidMute), nil
		}
		f.rest = response
		return f.part(m), nil
	}
}

// status is that of the card, for the header of answers.
func (f *ccidFace) status() byte {
	switch {
	case f.owner == nil:
		return ccidNoCard
	case f.powered:
		return 0
	}
	return ccidInactive
}

// answer carries a command out; nil if the card has to be waited for.
func (f *ccidFace) answer(m ccidMessage) []byte {
	if m.slot != 0 {
		return m.fail(ccidNoCard, ccidBadSlot)
	}
	switch m.kind {
	case ccidPowerOn:
		return f.powerOn(m)
	case ccidPowerOff:
		if f.owner != nil {
			f.owner.card.PowerDown()
		}
		f.powered, f.command, f.rest = false, nil, nil
		return m.reply(ccidStatus, f.status(), 0, 0, nil)
	case ccidSlotStatus:
		return m.reply(ccidStatus, f.status(), 0, 0, nil)
	case ccidSetParameters:
		if m.specific[0] != ccidProtocolT1 || len(m.data) != ccidParametersSize {
			return m.fail(f.status(), 7) // the protocol's field
		}
		fallthrough // what the host sets makes no difference to a card that is inside
	case ccidGetParameters, ccidResetParameters:
		return m.reply(ccidParameters, f.status(), 0, ccidProtocolT1, ccidT1)
	case ccidTransfer:
		return f.transfer(m)
	}
	return m.fail(f.status(), ccidUnsupported)
}

func (f *ccidFace) powerOn(m ccidMessage) []byte {
	f.command, f.rest = nil, nil
	if f.owner == nil {
		return m.fail(f.status(), ccidMute)
	}
	f.owner.card.PowerUp()
	if f.powered = !f.owner.cardMute(); !f.powered {
		return m.fail(ccidInactive, ccidMute)
	}
	return m.reply(ccidDataBlock, 0, 0, ccidWhole, f.owner.card.ATR())
}

// transfer takes an APDU, or a part of one, or gives the next part of a response (section 6.1.4, wLevelParameter).
func (f *ccidFace) transfer(m ccidMessage) []byte {
	level := binary.LittleEndian.Uint16(m.specific[1:])
	switch {
	case !f.powered:
		return m.fail(f.status(), ccidMute)
	case level == ccidAskForMore && len(m.data) == 0 && f.rest != nil:
		return f.part(m)
	case level == ccidWhole, level == ccidBegins:
		f.command = nil
	case level != ccidEnds && level != ccidContinues || f.command == nil:
		return m.fail(f.status(), ccidBadLevel)
	}
	f.rest = nil
	if f.command = append(f.command, m.data...); len(f.command) > ccidMaxAPDU {
		f.command = nil
		return m.fail(f.status(), ccidTooLong)
	}
	if level == ccidBegins || level == ccidContinues {
		return m.reply(ccidDataBlock, 0, 0, ccidAskForMore, nil)
	}
	apdu, running := f.command, &ccidRunning{m, make(chan []byte, 1)}
	f.command = nil
	if len(apdu) == 0 {
		return m.fail(f.status(), ccidBadLength)
	}
	f.running = running
	go func() { // which a pulled key ends, as its card loses its power
		response := f.owner.transmit(apdu)
		if response == nil {
			f.owner.keepSilent(context.Background())
		}
		running.answer <- response
	}()
	return nil
}

// part gives as much of the response as one message takes.
func (f *ccidFace) part(m ccidMessage) []byte {
	first := m.kind == ccidTransfer && binary.LittleEndian.Uint16(m.specific[1:]) != ccidAskForMore
	n := min(len(f.rest), ccidMaxMessage-ccidHeader)
	data := f.rest[:n]
	f.rest = f.rest[n:]
	level := byte(ccidContinues)
	switch last := len(f.rest) == 0; {
	case first && last:
		level = ccidWhole
	case first:
		level = ccidBegins
	case last:
		level = ccidEnds
	}
	if len(f.rest) == 0 {
		f.rest = nil
	}
	return m.reply(ccidDataBlock, 0, 0, level, data)
}

// Control requests of the class (section 5.3): type and number.
const (
	ccidAbort            = 0x2101
	ccidClockFrequencies = 0xA102
	ccidDataRates        = 0xA103
)

const (
	ccidClock = 4000   // kHz
	ccidSpeed = 307200 // bits per second
)

// control answers a control request to this interface.
func (f *ccidFace) control(request int) ([]byte, error) {
	switch request {
	case ccidAbort:
		return nil, nil // whatever it was, its answer comes
	case ccidClockFrequencies:
		return binary.LittleEndian.AppendUint32(nil, ccidClock), nil
	case ccidDataRates:
		return binary.LittleEndian.AppendUint32(nil, ccidSpeed), nil
	}
	return nil, vhci.ErrStall
}

// ccidDescriptor is the class descriptor (section 5.1), with the figures of a YubiKey 5.
func ccidDescriptor() []byte {
	word := binary.LittleEndian.AppendUint32
	d := []byte{54, descriptorCCID, 0x10, 0x01, 0, 0x07} // CCID 1.1, one slot, 5 V, 3 V and 1.8 V
	d = word(d, 1<<ccidProtocolT1)
	d = word(d, ccidClock)
	d = append(word(d, ccidClock), 0) // at most; no table of others
	d = word(d, ccidSpeed)
	d = append(word(d, ccidSpeed), 0)
	d = word(d, ccidMaxMessage-ccidHeader) // the largest block of T=1
	d = word(word(d, 0), 0)                // no synchronous protocols, no mechanics
	d = word(d, 0x000400FE)                // all is automatic; short and extended APDUs
	d = word(d, ccidMaxMessage)
	return append(d, 0xFF, 0xFF, 0, 0, 0, 1) // classes as in the command, no display, no PIN pad, one command at a time
}
