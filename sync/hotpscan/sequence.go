package hotpscan

import (
	"errors"
	"fmt"
)

// MaxCodes is the longest sequence that is looked for.
const MaxCodes = 16

// Sequence is consecutive codes to look for, oldest first. Its zero value is found nowhere.
type Sequence struct {
	digits int
	values []uint32
}

// ParseSequence reads 1 to MaxCodes codes of 6 to 8 digits (RFC 4226 section 5.3), all of one length, oldest first. An error
// says what is wrong with which of them, and never repeats a code.
func ParseSequence(codes []string) (Sequence, error) {
	switch {
	case len(codes) == 0:
		return Sequence{}, errors.New("there is no code: give at least one")
	case len(codes) > MaxCodes:
		return Sequence{}, fmt.Errorf("%d codes are too many: give at most %d", len(codes), MaxCodes)
	}
	q := Sequence{digits: len(codes[0]), values: make([]uint32, 0, len(codes))}
	for i, code := range codes {
		v, ok := number(code)
		switch {
		case !ok:
			return Sequence{}, fmt.Errorf("code %d is not made of the digits 0 to 9: type it again", i+1)
		case len(code) < 6 || len(code) > 8:
			return Sequence{}, fmt.Errorf("code %d has %d digits, and a code has 6 to 8: type it again", i+1, len(code))
		case len(code) != q.digits:
			return Sequence{}, fmt.Errorf("code %d has %d digits, but the first one has %d: type them again", i+1, len(code), q.digits)
		}
		q.values = append(q.values, v)
	}
	return q, nil
}

// Digits is how many digits each code has, 6 to 8.
func (q Sequence) Digits() int { return q.digits }

// Len is the number of codes, 1 to MaxCodes.
func (q Sequence) Len() int { return len(q.values) }

// number is the value of a string of digits, which is right for up to 9 of them; false for any other string.
func number(code string) (v uint32, ok bool) {
	for _, d := range []byte(code) {
		if d < '0' || d > '9' {
			return 0, false
		}
		v = v*10 + uint32(d-'0')
	}
	return v, len(code) > 0
}
