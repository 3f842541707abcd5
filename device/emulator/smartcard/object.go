package smartcard

import "slices"

// Objects with a meaning of their own (SP 800-73-4 part 1, table 3; the last is Yubico's).
const (
	objDiscovery         = 0x7E
	objFingerprints      = 0x5FC103
	objFacial            = 0x5FC108
	objPrinted           = 0x5FC109
	objIris              = 0x5FC121
	objAttestation       = 0x5FFF01
	objFirst, objLast    = 0x5F0000, 0x5FFFFF // what can be stored
	objectSize           = 3052               // bytes of one, of a YubiKey 4 or 5
	objectSpace          = 51200              // bytes of all
	tagObjectList        = 0x5C
	tagObjectData        = 0x53
	getDataP1, getDataP2 = 0x3F, 0xFF
)

// discovery is the discovery object (SP 800-73-4 part 1, section 3.3.2): the PIN is the application's own.
var discovery = appendTLV(nil, objDiscovery, append(appendTLV(nil, 0x4F, aidPIV...), 0x5F, 0x2F, 2, 0x40, 0)...)

// byPIN tells whether an object is only read after the PIN (SP 800-73-4 part 1, table 2).
func byPIN(tag uint32) bool {
	return tag == objPrinted || tag == objFingerprints || tag == objFacial || tag == objIris
}

func objectTag(b []byte) (tag uint32) {
	for _, v := range b {
		tag = tag<<8 | uint32(v)
	}
	return tag
}

func (p *piv) getData(a apdu) ([]byte, status) {
	if a.p1 != getDataP1 || a.p2 != getDataP2 {
		return nil, swP1P2
	}
	t, ok := parseTLVs(a.data)
	if !ok || len(t) != 1 || t[0].tag != tagObjectList || len(t[0].value) == 0 || len(t[0].value) > 3 {
		return nil, swWrongData
	}
	tag := objectTag(t[0].value)
	switch {
	case tag == objDiscovery:
		return slices.Clone(discovery), swOK
	case byPIN(tag) && !p.session.pin:
		return nil, swSecurity
	case tag == objAttestation && p.card.faults.active(FaultForeignRoot):
		return appendTLV(nil, tagObjectData, certificateObject(foreignAttestation().certificate.Raw)...), swOK
	case p.objects[tag] == nil:
		return nil, swNotFound
	}
	return appendTLV(nil, tagObjectData, p.objects[tag]...), swOK
}

// putData stores an object; one without content is deleted.
func (p *piv) putData(a apdu) ([]byte, status) {
	switch {
	case a.p1 != getDataP1 || a.p2 != getDataP2:
		return nil, swP1P2
	case !p.session.manager:
		return nil, swSecurity
	}
	t, ok := parseTLVs(a.data)
	if !ok || len(t) != 2 || t[0].tag != tagObjectList || len(t[0].value) != 3 || t[1].tag != tagObjectData {
		return nil, swWrongData
	}
	tag, value := objectTag(t[0].value), t[1].value
	used := len(value) - len(p.objects[tag])
	for _, o := range p.objects {
		used += len(o)
	}
	switch {
	case tag < objFirst || tag > objLast:
		return nil, swWrongData
	case len(value) == 0:
		delete(p.objects, tag)
		return nil, swOK
	case len(value) > objectSize || used > objectSpace:
		return nil, swFull
	}
	p.objects[tag] = slices.Clone(value)
	return nil, swOK
}
