package nitrokey

import (
	"encoding/binary"
	"fmt"

	"tokendesk/device"
)

// command is the number of a command.
type command byte

// Commands (libnitrokey, command_id.h).
const (
	commandStatus       command = 0x00
	commandWriteSlot    command = 0x01
	commandSlotName     command = 0x02
	commandCode         command = 0x04
	commandErase        command = 0x06
	commandAuthenticate command = 0x07 // the admin PIN, and a temporary password that stands for it until power is lost
	commandAuthorize    command = 0x08
	commandTries        command = 0x09
	commandOTPData      command = 0x17

	commandStorageStatus command = 0x2E
)

// ofStorage tells of the commands that only a Nitrokey Storage has, which says elsewhere whether it has carried them out.
func (c command) ofStorage() bool { return c >= 0x20 && c < 0x60 }

// harmless tells of the commands that change nothing, however often they are carried out.
func (c command) harmless() bool {
	switch c {
	case commandStatus, commandSlotName, commandTries, commandStorageStatus:
		return true
	}
	return false
}

// Layout of reports, with the report number before them (libnitrokey, device_proto.h).
const (
	offsetCommand = 1
	offsetPayload = 2
	offsetMark    = 60 // the last byte before the checksum: no command has a payload as long as this
	offsetCRC     = 61

	offsetBusy   = 1 // of answers
	offsetEcho   = 3 // the checksum of the command
	offsetResult = 7
	offsetData   = 8

	payloadSize = offsetMark - offsetPayload
	dataSize    = offsetCRC - offsetData
)

// report is a feature report, either way.
type report [device.NitrokeyReportSize]byte

// newReport makes a command. The mark tells it from others with the same payload.
func newReport(c command, payload []byte, mark byte) report {
	var r report
	r[offsetCommand] = byte(c)
	copy(r[offsetPayload:offsetMark], payload)
	r[offsetMark] = mark
	binary.LittleEndian.PutUint32(r[offsetCRC:], r.checksum())
	return r
}

func (r *report) command() command { return command(r[offsetCommand]) }

func (r *report) crc() uint32 { return binary.LittleEndian.Uint32(r[offsetCRC:]) }

// checksum is what the CRC unit of an STM32 makes of the report as 15 little-endian words: polynomial 04C11DB7, all ones at
// first, nothing reflected.
func (r *report) checksum() uint32 {
	crc := uint32(0xFFFFFFFF)
	for p := r[offsetCommand:offsetCRC]; len(p) > 0; p = p[4:] {
		crc ^= binary.LittleEndian.Uint32(p)
		for range 32 {
			if crc&0x80000000 != 0 {
				crc = crc<<1 ^ 0x04C11DB7
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}

// answer is a report that the device gives.
type answer struct{ report }

// busy tells that there is no answer yet.
func (a *answer) busy() bool { return a.report[offsetBusy] != 0 }

// sound tells that the checksum is right. What a Storage shows while it is still at work has none.
func (a *answer) sound() bool { return a.crc() == a.checksum() }

// to tells whether this is the answer to a command.
func (a *answer) to(r *report) bool {
	return a.report[offsetCommand+1] == r[offsetCommand] && a.echo() == r.crc()
}

// echo is the checksum of the command.
func (a *answer) echo() uint32 { return binary.LittleEndian.Uint32(a.report[offsetEcho:]) }

func (a *answer) result() result { return result(a.report[offsetResult]) }

func (a *answer) data() []byte { return a.report[offsetData:offsetCRC] }

// result is how a command ended. It is an error, unless it is 0.
type result byte

// Results (libnitrokey, command_id.h).
const (
	resultOK            result = 0
	resultDamaged       result = 1 // the checksum of the command was wrong
	resultNoSlot        result = 2
	resultNotProgrammed result = 3
	resultWrongPassword result = 4
	resultNotAuthorized result = 5
	resultNotSupported  result = 8
	resultUnknown       result = 9
)

func (r result) Error() string {
	words := map[result]string{
		resultDamaged: "the command arrived damaged", resultNoSlot: "it has no such slot", resultNotProgrammed: "the slot is empty",
		resultWrongPassword: "a password is wrong", resultNotAuthorized: "a PIN is wanted",
		resultNotSupported: "the command is not supported", resultUnknown: "it does not know the command",
	}[r]
	if words == "" {
		return fmt.Sprintf("the device ended the command with status %d", byte(r))
	}
	return fmt.Sprintf("the device ended the command with status %d: %s", byte(r), words)
}

// parseStatus reads what a Pro or Librem Key tells of itself.
func parseStatus(data []byte) (device.Version, device.Serial) {
	return device.Version{Major: data[1], Minor: data[0]}, device.Serial(binary.LittleEndian.Uint32(data[2:]))
}

// storageStatus is what a Storage tells of itself.
type storageStatus struct {
	firmware device.Version
	serial   device.Serial
	tries    int // left for the admin PIN
}

// States of a Storage's own commands.
const (
	storageBusy     = 2
	storageProgress = 4 // it works on its volumes, which can take hours
)

// Where a Storage's own commands have their state, and what they tell, within the data.
const (
	offsetState  = 15
	offsetKind   = 19
	offsetConfig = 22
)

// state is that of a Storage's own command.
func (a *answer) state() byte { return a.data()[offsetState] }

// parseStorageStatus reads what a Storage tells of itself; false if that is not what the data are, because it is told once.
func parseStorageStatus(data []byte) (storageStatus, bool) {
	const kindStatus = 3
	if data[offsetKind] != kindStatus {
		return storageStatus{}, false
	}
	c := data[offsetConfig:]
	return storageStatus{
		firmware: device.Version{Major: c[4], Minor: c[5], Build: c[7]},
		tries:    int(c[19]),
		serial:   device.Serial(binary.LittleEndian.Uint32(c[20:])),
	}, true
}

// parseCode reads a one-time code. It has as many digits as the slot was programmed for.
func parseCode(data []byte) (string, error) {
	digits, limit := 6, uint32(1_000_000)
	if data[4]&flagEightDigits != 0 {
		digits, limit = 8, 100_000_000
	}
	value := binary.LittleEndian.Uint32(data)
	if value >= limit {
		return "", fmt.Errorf("%w: a code of more than %d digits", device.ErrCorrupt, digits)
	}
	return fmt.Sprintf("%0*d", digits, value), nil
}
