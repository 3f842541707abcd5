package pivcard

import (
	"fmt"

	"tokendesk/device"
)

// cut takes the first element off data objects (ISO/IEC 7816-4, section 5.2.2: BER-TLV): tags of one or two bytes, lengths
// of up to two.
func cut(b []byte) (tag int, value, rest []byte, err error) {
	damaged := fmt.Errorf("%w: a data object ends in the middle", device.ErrCorrupt)
	if len(b) < 2 {
		return 0, nil, nil, damaged
	}
	tag, b = int(b[0]), b[1:]
	if tag&0x1F == 0x1F {
		tag, b = tag<<8|int(b[0]), b[1:]
	}
	if len(b) == 0 {
		return 0, nil, nil, damaged
	}
	n := int(b[0])
	b = b[1:]
	if n >= 0x80 {
		size := n & 0x7F
		if size < 1 || size > 2 || len(b) < size {
			return 0, nil, nil, damaged
		}
		n = 0
		for _, c := range b[:size] {
			n = n<<8 | int(c)
		}
		b = b[size:]
	}
	if len(b) < n {
		return 0, nil, nil, damaged
	}
	return tag, b[:n:n], b[n:], nil
}

// elements reads data objects that follow one another. Of several with one tag it is the last that counts.
func elements(b []byte) (map[int][]byte, error) {
	all := map[int][]byte{}
	for len(b) > 0 {
		tag, value, rest, err := cut(b)
		if err != nil {
			return nil, err
		}
		all[tag], b = value, rest
	}
	return all, nil
}

// inside reads the data object that an answer consists of, which has to have this tag.
func inside(b []byte, tag int) ([]byte, error) {
	got, value, rest, err := cut(b)
	if err == nil && (got != tag || len(rest) > 0) {
		err = fmt.Errorf("%w: %02x where %02x was expected", device.ErrCorrupt, got, tag)
	}
	return value, err
}

// element makes a data object with a tag of one byte.
func element(tag byte, value ...byte) []byte {
	b := []byte{tag}
	switch n := len(value); {
	case n < 0x80:
		b = append(b, byte(n))
	case n < 0x100:
		b = append(b, 0x81, byte(n))
	default:
		b = append(b, 0x82, byte(n>>8), byte(n))
	}
	return append(b, value...)
}
