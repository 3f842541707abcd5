package smartcard

// Elements of metadata (Yubico's extensions to PIV).
const (
	metaAlgorithm = 0x01
	metaPolicy    = 0x02
	metaOrigin    = 0x03
	metaPublic    = 0x04
	metaDefault   = 0x05
	metaTries     = 0x06

	algorithmPIN = 0xFF
)

func (p *piv) metadata(a apdu) ([]byte, status) {
	switch {
	case !p.card.atLeast(5, 3, 0):
		return nil, swInstruction
	case a.p1 != 0:
		return nil, swP1P2
	}
	switch a.p2 {
	case refPIN:
		return p.pin.metadata(), swOK
	case refPUK:
		return p.puk.metadata(), swOK
	case refManagement:
		b := appendTLV(nil, metaAlgorithm, p.management.algorithm)
		b = appendTLV(b, metaPolicy, policyDefault, p.management.touch)
		return appendTLV(b, metaDefault, truth(p.management.factory(p.card))), swOK
	}
	k := p.keys[a.p2]
	if k == nil {
		return nil, swNoReference
	}
	origin := byte(2)
	if k.generated {
		origin = 1
	}
	b := appendTLV(nil, metaAlgorithm, k.algorithm)
	b = appendTLV(b, metaPolicy, k.pin, k.touch)
	b = appendTLV(b, metaOrigin, origin)
	return appendTLV(b, metaPublic, k.public()...), swOK
}

func (r *reference) metadata() []byte {
	b := appendTLV(nil, metaAlgorithm, algorithmPIN)
	b = appendTLV(b, metaDefault, truth(r.value == r.factory))
	return appendTLV(b, metaTries, byte(r.tries), byte(r.left))
}

func truth(v bool) byte {
	if v {
		return 1
	}
	return 0
}
