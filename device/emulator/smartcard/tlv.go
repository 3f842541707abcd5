package smartcard

// tlv is an element of BER-TLV data (ISO/IEC 7816-4, section 5.2.2).
type tlv struct {
	tag   uint32
	value []byte
}

// nextTLV reads the first element of b. Tags of up to three bytes, definite lengths of up to two.
func nextTLV(b []byte) (t tlv, rest []byte, ok bool) {
	if len(b) < 2 {
		return t, nil, false
	}
	t.tag, b = uint32(b[0]), b[1:]
	if t.tag&0x1F == 0x1F {
		for more := true; more; b = b[1:] {
			if len(b) < 2 || t.tag > 0xFFFF {
				return t, nil, false
			}
			t.tag = t.tag<<8 | uint32(b[0])
			more = b[0]&0x80 != 0
		}
	}
	n, b := int(b[0]), b[1:]
	switch {
	case n == 0x81 && len(b) >= 1:
		n, b = int(b[0]), b[1:]
	case n == 0x82 && len(b) >= 2:
		n, b = int(b[0])<<8|int(b[1]), b[2:]
	case n >= 0x80:
		return t, nil, false
	}
	if n > len(b) {
		return t, nil, false
	}
	t.value = b[:n]
	return t, b[n:], true
}

// parseTLVs reads elements until the end.
func parseTLVs(b []byte) (all tlvs, ok bool) {
	for len(b) > 0 {
		var t tlv
		if t, b, ok = nextTLV(b); !ok {
			return nil, false
		}
		all = append(all, t)
	}
	return all, true
}

type tlvs []tlv

// get returns the value of the first element with a tag.
func (l tlvs) get(tag uint32) (value []byte, ok bool) {
	for _, t := range l {
		if t.tag == tag {
			return t.value, true
		}
	}
	return nil, false
}

// inner reads the elements inside the one element that b is.
func inner(b []byte, tag uint32) (tlvs, bool) {
	t, rest, ok := nextTLV(b)
	if !ok || t.tag != tag || len(rest) > 0 {
		return nil, false
	}
	return parseTLVs(t.value)
}

// appendTLV appends an element, its length in the shortest form.
func appendTLV(b []byte, tag uint32, value ...byte) []byte {
	for shift := 16; shift > 0; shift -= 8 {
		if tag >= 1<<shift {
			b = append(b, byte(tag>>shift))
		}
	}
	b = append(b, byte(tag))
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
