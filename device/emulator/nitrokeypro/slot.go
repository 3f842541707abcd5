package nitrokeypro

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"strconv"
)

const (
	slotCount    = 3
	firstSlot    = 0x10
	firstTOTP    = 0x20
	totpCount    = 15
	nameSize     = 15
	seedSize     = 40 // with zeros after shorter ones, which HMAC does as well
	oldSeedSize  = 20
	tokenIDSize  = 13
	passwordSize = 25
	pieceSize    = 30 // of a name or a seed in one report
)

// Flags of a slot.
const eightDigits = 0x01

// slot is an HOTP slot.
type slot struct {
	programmed bool
	name       [nameSize]byte
	seed       [seedSize]byte
	config     byte
	tokenID    [tokenIDSize]byte
	counter    uint64
}

// erased is what flash memory holds when nothing was written to it.
func erased() slot {
	var s slot
	for i := range s.seed {
		s.seed[i] = 0xFF
	}
	return s
}

// code calculates the next code, and counts.
func (s *slot) code() uint32 {
	mac := hmac.New(sha1.New, s.seed[:])
	mac.Write(binary.BigEndian.AppendUint64(nil, s.counter))
	s.counter++
	sum := mac.Sum(nil)
	value := binary.BigEndian.Uint32(sum[sum[len(sum)-1]&0x0F:]) & 0x7FFFFFFF
	if s.config&eightDigits != 0 {
		return value % 100_000_000
	}
	return value % 1_000_000
}

// slotOf finds an HOTP slot. Those of TOTP are all empty.
func (t *Token) slotOf(number byte) (*slot, result) {
	switch {
	case number >= firstSlot && number < firstSlot+slotCount:
		return &t.slots[number-firstSlot], resultOK
	case number >= firstTOTP && number < firstTOTP+totpCount:
		return nil, resultNotProgrammed
	}
	return nil, resultWrongSlot
}

// write puts a slot in place of another; torn is what a token is left with that loses power between the two parts of it.
func (t *Token) write(number byte, s slot) (r result, torn bool) {
	old, r := t.slotOf(number)
	switch {
	case s.name[0] == 0:
		return resultNoName, false
	case r != resultOK:
		return r, false
	}
	old.counter = s.counter // is flash memory of its own, and written first
	if t.faults.strikes(FaultTornWrite) {
		return resultOK, true
	}
	if keep := s.seed[0] == 0; keep && (t.old(8, 43) || s.seed == [seedSize]byte{}) {
		s.seed = old.seed // an editor that leaves the seed as it is sends zeros
	}
	s.programmed = true
	*old = s
	return resultOK, false
}

// read answers READ_SLOT.
func (t *Token) read(number, format byte, out []byte) result {
	s, r := t.slotOf(number)
	if r != resultOK {
		return r
	}
	if !s.programmed {
		return resultNotProgrammed
	}
	copy(out, s.name[:])
	out[nameSize] = s.config
	copy(out[nameSize+1:], s.tokenID[:])
	counter := out[nameSize+1+tokenIDSize:]
	if t.storage() && (t.legacy() || format != 1) {
		text := strconv.FormatUint(s.counter, 10)
		copy(counter[:7], text)
		return resultOK
	}
	binary.LittleEndian.PutUint64(counter, s.counter)
	return resultOK
}

// counter reads a start counter: 8 bytes, in old Storages decimal digits.
func (t *Token) counter(p []byte) uint64 {
	if !t.storage() || !t.legacy() {
		return binary.LittleEndian.Uint64(p)
	}
	digits := p[:8]
	if i := bytes.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		digits = digits[:i]
	}
	n, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil {
		return 0 // as atoi does
	}
	return n
}
