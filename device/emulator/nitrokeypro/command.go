package nitrokeypro

import (
	"bytes"
	"encoding/binary"
)

// pin is a PIN of the smart card.
type pin struct {
	text  string
	tries int
}

// verify compares a PIN, which ends with a zero byte if it is shorter than its field.
func (p *pin) verify(field []byte) bool {
	shown, _, _ := bytes.Cut(field, []byte{0})
	switch {
	case p.tries == 0:
		return false
	case string(shown) != p.text:
		p.tries--
		return false
	}
	p.tries = MaxTries
	return true
}

// Commands that ask the smart card.
var cardCommands = map[byte]bool{0x07: true, 0x09: true, 0x0E: true, 0x0F: true, 0x15: true, 0x2E: true}

// carryOut answers a command. It tells whether the smart card was asked, and whether the power was lost in its middle.
func (t *Token) carryOut(r *report) (asksCard, torn bool) {
	number := r[0]
	out := &t.answer
	*out = report{}
	out[typeOffset] = number
	echo := r.checksum()
	if t.storage() {
		echo = r.received()
	}
	binary.LittleEndian.PutUint32(out[echoOffset:], echo)
	var res result
	switch status, forced := t.faults.status(); {
	case r.received() != r.checksum():
		res = resultWrongCRC
	case forced:
		res = result(status)
	default:
		res, torn = t.command(r, out[resultOffset:crcOffset])
		asksCard = cardCommands[number]
	}
	out[statusOffset] = byte(res)
	if t.storage() && storageCommand(number) && res == resultOK {
		t.served++
		copy(out[storageCounter:], []byte{t.served, number, storageOK, 0})
	}
	out.seal()
	return asksCard, torn
}

func (t *Token) command(r *report, out []byte) (res result, torn bool) {
	p := r[1:crcOffset]
	switch number := r[0]; number {
	case 0x00:
		t.status(out)
	case 0x01:
		return t.writeSlot(r, p)
	case 0x02:
		var whole [ReportSize]byte
		res = t.read(p[0], 0, whole[:])
		copy(out[:nameSize], whole[:])
	case 0x03:
		res = t.read(p[0], p[1], out)
	case 0x04:
		res = t.giveCode(r, p, out)
	case 0x05:
		if !t.authorized(r, p[5:]) {
			return t.refused(), false
		}
		copy(t.config[:], p)
	case 0x06:
		res = t.erase(r, p)
	case 0x07:
		res = authenticate(&t.admin, &t.session.admin, p)
	case 0x08:
		res = t.authorize(p)
	case 0x09:
		out[0] = byte(t.admin.tries)
		if t.storage() {
			out[storageCounter-resultOffset] = 0xAA
		}
	case 0x0E:
		res = authenticate(&t.user, &t.session.user, p)
	case 0x0F:
		out[0] = byte(t.user.tries)
	case 0x10:
		res = t.authorizeUser(p)
	case 0x12:
		if t.storage() {
			t.session.admin, t.session.user = password{}, password{}
		}
	case 0x15:
		res = t.changeAdminPIN(p)
	case 0x17:
		res = t.stage(p, out)
	case 0x2E:
		if !t.storage() {
			return resultUnknown, false
		}
		t.news = true
	default:
		if !t.storage() { // a Storage answers as if it had carried out what it does not know
			res = resultUnknown
		}
	}
	return res, torn
}

// status answers GET_STATUS. A Storage has a command of its own for what is of interest.
func (t *Token) status(out []byte) {
	if t.storage() {
		out[0] = 1
	} else {
		out[0], out[1] = t.firmware.Minor, t.firmware.Major
		binary.LittleEndian.PutUint32(out[2:], uint32(t.serial))
	}
	copy(out[6:], t.config[:])
}

// authenticate takes a PIN, and a temporary password that stands for it from now on.
func authenticate(of *pin, as *password, p []byte) result {
	*as = password{}
	if !of.verify(p[:passwordSize]) {
		return resultWrongPassword
	}
	as.set = true
	copy(as.text[:], p[passwordSize:])
	return resultOK
}

// authorized tells whether a command may change something: new firmware finds the temporary password in it, old firmware was
// told its checksum, which is used up.
func (t *Token) authorized(r *report, pass []byte) bool {
	s := &t.session
	if !t.legacy() {
		return s.admin.is(pass)
	}
	ok := s.isAuthorized && s.authorized == r.checksum()
	if ok {
		s.isAuthorized = false
	}
	return ok
}

// refused answers a command that was not authorized.
func (t *Token) refused() result {
	if t.session.silent {
		return resultOK
	}
	return resultNotAuthorized
}

// authorize is of old firmware. What a Storage does that no longer knows it is its own.
func (t *Token) authorize(p []byte) result {
	s := &t.session
	switch {
	case t.legacy() && s.admin.is(p[4:]):
		s.authorized, s.isAuthorized = binary.LittleEndian.Uint32(p), true
		return resultOK
	case t.legacy():
		return resultWrongPassword
	case t.storage():
		s.silent = true
		return resultOK
	}
	return resultUnknown
}

func (t *Token) authorizeUser(p []byte) result {
	s := &t.session
	switch {
	case t.legacy() && s.user.is(p[4:]):
		s.userAuthorized, s.isUserAuthorized = binary.LittleEndian.Uint32(p), true
		return resultOK
	case t.legacy():
		return resultWrongPassword
	case t.storage():
		s.silent = true
		return resultOK
	}
	return resultUnknown
}

func (t *Token) changeAdminPIN(p []byte) result {
	if t.storage() { // has other commands for it
		return resultOK
	}
	if !t.admin.verify(p[:passwordSize]) {
		return resultWrongPassword
	}
	fresh, _, _ := bytes.Cut(p[passwordSize:2*passwordSize], []byte{0})
	t.admin.text = string(fresh)
	return resultOK
}

// stage takes a name or a piece of a seed, and shows all that it has of it.
func (t *Token) stage(p, out []byte) result {
	if t.legacy() {
		if t.storage() {
			return resultOK
		}
		return resultUnknown
	}
	s := &t.session
	if !t.authorized(nil, p) {
		return t.refused()
	}
	kind, piece, data := p[passwordSize], int(p[passwordSize+1]), p[passwordSize+2:][:pieceSize]
	if t.storage() && kind != 'N' && kind != 'S' {
		return resultError
	}
	if !s.staging { // what was left by one that was never finished stays
		s.staged = slot{}
	}
	s.staging = true
	switch kind {
	case 'N':
		copy(s.staged.name[:], data)
		copy(out, s.staged.name[:])
	case 'S':
		at := piece * pieceSize
		if at > seedSize {
			at = 0
		}
		copy(s.staged.seed[at:], data)
		copy(out, s.staged.seed[:])
	}
	return resultOK
}

// writeSlot writes a slot: new firmware has been sent name and seed before.
func (t *Token) writeSlot(r *report, p []byte) (result, bool) {
	if t.legacy() {
		if !t.authorized(r, nil) {
			return t.refused(), false
		}
		var s slot
		p, number := p[1:], p[0]
		p = p[copy(s.name[:], p[:nameSize]):]
		p = p[copy(s.seed[:oldSeedSize], p):]
		s.config = p[0]
		p = p[1+copy(s.tokenID[:], p[1:]):]
		s.counter = t.counter(p)
		return t.write(number, s)
	}
	if !t.authorized(r, p) || !t.session.staging {
		return t.refused(), false
	}
	staged := t.session.staged
	t.session.staging = false
	p, number := p[passwordSize+1:], p[passwordSize]
	staged.counter = t.counter(p)
	staged.config = p[8]
	copy(staged.tokenID[:], p[9:])
	return t.write(number, staged)
}

func (t *Token) erase(r *report, p []byte) result {
	if !t.authorized(r, p[1:]) {
		return t.refused()
	}
	s, res := t.slotOf(p[0])
	if res == resultOK {
		*s = erased()
	}
	return res
}

// giveCode answers GET_CODE.
func (t *Token) giveCode(r *report, p, out []byte) result {
	const wantsUserPIN, passwordAt = 3, 1 + 8 + 8 + 1
	if s := &t.session; t.config[wantsUserPIN] == 1 {
		ok := s.user.is(p[passwordAt:])
		if t.legacy() {
			ok = s.isUserAuthorized && s.userAuthorized == r.checksum()
			s.isUserAuthorized = false
		}
		if !ok {
			return t.refused()
		}
	}
	s, res := t.slotOf(p[0])
	if res != resultOK {
		return res
	}
	if !s.programmed {
		return resultNotProgrammed
	}
	binary.LittleEndian.PutUint32(out, s.code())
	out[4] = s.config
	copy(out[5:], s.tokenID[:])
	return resultOK
}
