package nitrokeypro

import (
	"encoding/binary"

	"tokendesk/device"
)

// ReportSize is the size of a feature report, without a report number.
const ReportSize = device.NitrokeyReportSize - 1

// Layout of an answer (firmware of the Pro, report_protocol.h).
const (
	typeOffset   = 1
	echoOffset   = 2 // checksum of the command
	statusOffset = 6
	resultOffset = 7
	crcOffset    = 60
)

// statusBusy is in the first byte of an answer that is not there yet.
const statusBusy = 1

// Where a Storage has the state of its own commands, and the data that they ask for.
const (
	storageCounter = 20
	storageNumber  = 21
	storageStatus  = 22
	storageData    = 25
)

// States of a Storage's own commands.
const (
	storageOK   = 1
	storageBusy = 2
)

// result is the status of a command.
type result byte

// Results of commands.
const (
	resultOK            result = 0
	resultWrongCRC      result = 1
	resultWrongSlot     result = 2
	resultNotProgrammed result = 3
	resultWrongPassword result = 4
	resultNotAuthorized result = 5
	resultNoName        result = 7
	resultUnknown       result = 9
	resultError         result = 100
)

// report is a feature report, either way.
type report [ReportSize]byte

// checksum is that of a report: the STM32's CRC unit, fed with 15 words.
func (r *report) checksum() uint32 {
	crc := ^uint32(0)
	for word := 0; word < crcOffset; word += 4 {
		for i := 3; i >= 0; i-- { // the highest byte of a word goes first
			crc ^= uint32(r[word+i]) << 24
			for range 8 {
				carry := crc >> 31
				crc = crc<<1 ^ carry*0x04C11DB7
			}
		}
	}
	return crc
}

func (r *report) received() uint32 { return binary.LittleEndian.Uint32(r[crcOffset:]) }

func (r *report) seal() { binary.LittleEndian.PutUint32(r[crcOffset:], r.checksum()) }

func storageCommand(number byte) bool { return number >= 0x20 && number < 0x60 }

// addStatus adds what a Storage tells of itself (firmware of the Storage, typeStick20Configuration_st).
func (t *Token) addStatus(r *report) {
	const kindStatus, size = 3, 25
	copy(r[storageData:], []byte{0, kindStatus, 0, size})
	d := r[storageData+4:][:size]
	d[0], d[1] = 0x18, 0x33 // what makes it valid
	d[4], d[5], d[7] = t.firmware.Major, t.firmware.Minor, t.firmware.Build
	d[18], d[19] = byte(t.user.tries), byte(t.admin.tries)
	binary.LittleEndian.PutUint32(d[20:], uint32(t.serial))
}
