package smartcard

import "encoding/binary"

// Instructions of PIV (SP 800-73-4 part 2), and of Yubico's extensions.
const (
	insVerify          = 0x20
	insChangeReference = 0x24
	insResetRetry      = 0x2C
	insGenerate        = 0x47
	insAuthenticate    = 0x87
	insGetData         = 0xCB
	insPutData         = 0xDB
	insMoveKey         = 0xF6
	insGetMetadata     = 0xF7
	insGetSerial       = 0xF8
	insAttest          = 0xF9
	insSetRetries      = 0xFA
	insReset           = 0xFB
	insGetVersion      = 0xFD
	insImportKey       = 0xFE
	insSetManagement   = 0xFF
)

// piv is the PIV application. All but the session survives a loss of power.
type piv struct {
	card       *Card
	pin, puk   reference
	management managementKey
	keys       map[byte]*key     // by slot
	objects    map[uint32][]byte // by tag
	session    session
}

// session is what a host has shown since it selected the application.
type session struct {
	pin       bool   // verified
	fresh     bool   // and not used up by a key that wants it every time
	manager   bool   // has the management key
	witness   []byte // that the card has sent, in the clear
	challenge []byte // likewise
}

func newPIV(c *Card) *piv {
	p := &piv{card: c}
	p.factory()
	a := newAttestation(knownRoot())
	p.keys[slotAttestation] = a.key
	p.objects[objAttestation] = certificateObject(a.certificate.Raw)
	return p
}

// factory makes the application as it leaves the factory. The attestation key is of the device, and stays.
func (p *piv) factory() {
	p.pin, p.puk = newReference(defaultPIN), newReference(defaultPUK)
	p.management = defaultManagementKey(p.card)
	attestation, certificate := p.keys[slotAttestation], p.objects[objAttestation]
	p.keys, p.objects = map[byte]*key{}, map[uint32][]byte{}
	if attestation != nil {
		p.keys[slotAttestation] = attestation
	}
	if certificate != nil {
		p.objects[objAttestation] = certificate
	}
	p.session = session{}
}

// selected answers with the application property template (SP 800-73-4 part 2, section 3.1.1), as a YubiKey does.
func (p *piv) selected() []byte {
	template := appendTLV(nil, 0x4F, aidPIV[5:]...)
	template = appendTLV(template, 0x79, appendTLV(nil, 0x4F, aidPIV[:5]...)...)
	return appendTLV(nil, 0x61, template...)
}

func (p *piv) command(a apdu) ([]byte, status) {
	switch a.ins {
	case insVerify:
		return p.verify(a)
	case insChangeReference:
		return p.changeReference(a)
	case insResetRetry:
		return p.resetRetry(a)
	case insSetRetries:
		return p.setRetries(a)
	case insReset:
		return p.reset(a)
	case insAuthenticate:
		return p.authenticate(a)
	case insSetManagement:
		return p.setManagement(a)
	case insGenerate:
		return p.generate(a)
	case insImportKey:
		return p.importKey(a)
	case insMoveKey:
		return p.moveKey(a)
	case insGetData:
		return p.getData(a)
	case insPutData:
		return p.putData(a)
	case insGetMetadata:
		return p.metadata(a)
	case insAttest:
		return p.attest(a)
	}
	return p.identify(a)
}

func (p *piv) identify(a apdu) ([]byte, status) {
	v := p.card.firmware
	switch {
	case a.ins == insGetVersion:
		return []byte{v.Major, v.Minor, v.Build}, swOK
	case a.ins == insGetSerial && p.card.atLeast(5, 0, 0):
		return binary.BigEndian.AppendUint32(nil, uint32(p.card.serial)), swOK
	}
	return nil, swInstruction
}
