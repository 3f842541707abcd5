package emulator

import (
	"crypto/aes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"encoding/binary"
	"time"
)

// touchPatience is how long a key waits for the touch that a challenge needs (ykdef.h, DEFAULT_CHAL_TIMEOUT).
const touchPatience = 15 * time.Second

const uidSize = 6

// challengeSlot tells which slot a challenge is for, and whether it wants an HMAC or a Yubico OTP.
func challengeSlot(command byte) (slot int, wantsHMAC, ok bool) {
	switch command {
	case cmdChallengeOTP1, cmdChallengeOTP2:
		return int(command-cmdChallengeOTP1) / (cmdChallengeOTP2 - cmdChallengeOTP1), false, true
	case cmdChallengeHMAC1, cmdChallengeHMAC2:
		return int(command-cmdChallengeHMAC1) / (cmdChallengeHMAC2 - cmdChallengeHMAC1), true, true
	}
	return 0, false, false
}

// answers reports whether the slot is one that answers such a challenge.
func (s *slot) answers(wantsHMAC bool) bool {
	return s.configured && s.ext&extDormant == 0 && s.isChallengeResponse() && (s.cfg&cfgChallengeHMAC != 0) == wantsHMAC
}

// needsTouch reports whether nothing comes out of the slot without a touch.
func (s *slot) needsTouch() bool {
	return s.configured && (!s.isChallengeResponse() || s.cfg&cfgChallengeTouch != 0)
}

// hmacResponse is HMAC-SHA1 over the challenge. With CFGFLAG_HMAC_LT64 what ends the payload is padding: its
// last byte, as often as it is repeated (ykpersonalize(1); yubikit pads with what the challenge does not end in).
func (s *slot) hmacResponse(payload [payloadSize]byte) []byte {
	n := payloadSize
	if s.cfg&cfgChallengeLess64 != 0 {
		for n > 0 && payload[n-1] == payload[payloadSize-1] {
			n--
		}
	}
	m := hmac.New(sha1.New, s.hotpKey())
	m.Write(payload[:n])
	return m.Sum(nil)
}

// ticket is a Yubico OTP: ykdef.h, struct ticket_st, under AES-128 with the slot's key. A challenge is mixed
// into the private identity; a typed OTP has the challenge zero. stamp counts up at 8 Hz.
func (s *slot) ticket(challenge [uidSize]byte, stamp uint32) []byte {
	s.count()
	var t [aes.BlockSize]byte
	for i := range challenge {
		t[i] = s.uid[i] ^ challenge[i]
	}
	binary.LittleEndian.PutUint16(t[6:], s.uses)
	t[8], t[9], t[10], t[11] = byte(stamp), byte(stamp>>8), byte(stamp>>16), s.session
	rand.Read(t[12:14])
	binary.LittleEndian.PutUint16(t[14:], ^crc16(t[:14]))
	block, err := aes.NewCipher(s.key[:])
	if err != nil {
		panic(err) // a key of 16 bytes is always right
	}
	block.Encrypt(t[:], t[:])
	return t[:]
}

const maxUses = 0x7FFF // ykdef.h, TICKET_CTR_MASK

// count makes a ticket's counters new: uses since programming, and within one insertion. The smaller one goes
// from 255 to 1 and moves the larger one.
func (s *slot) count() {
	switch {
	case !s.used:
		s.used, s.session, s.uses = true, 0, min(s.uses+1, maxUses)
	case s.session == 0xFF:
		s.session, s.uses = 1, min(s.uses+1, maxUses)
	default:
		s.session++
	}
}

// touchWait is a challenge that waits for a touch.
type touchWait struct {
	respond func() []byte
	until   time.Time
}

// secondsLeft is what the status tells, 1 to 15; 0 if the time is over.
func (w *touchWait) secondsLeft() byte {
	left := time.Until(w.until)
	if left <= 0 {
		return 0
	}
	return byte((left + time.Second - 1) / time.Second)
}

// challenge takes a challenge, with k.mu held. A slot that cannot answer it stays silent.
func (k *YubiKey) challenge(slot int, wantsHMAC bool, payload [payloadSize]byte) {
	s := &k.app.slots[slot]
	if k.app.firmware.Less(fwChallenge) || !s.answers(wantsHMAC) {
		return
	}
	respond := func() []byte {
		if wantsHMAC {
			return s.hmacResponse(payload)
		}
		return s.ticket([uidSize]byte(payload[:uidSize]), k.stamp())
	}
	if s.cfg&cfgChallengeTouch != 0 {
		k.waiting = &touchWait{respond, time.Now().Add(touchPatience)}
		return
	}
	k.respond(respond())
}

// stamp is the time since the key was plugged in, in eighths of a second, from a random start.
func (k *YubiKey) stamp() uint32 {
	return k.stampStart + uint32(time.Since(k.powered)/(time.Second/8))
}
