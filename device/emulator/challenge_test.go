package emulator

import (
	"crypto/aes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tokendesk/device"
	"tokendesk/device/bussocket"
)

// hmacConfig answers HMAC challenges with the key of FIPS 198, A.2.
func hmacConfig(flags byte) config {
	key, _ := hex.DecodeString("303132333435363738393a3b3c3d3e3f40414243")
	return config{key: key, ext: extSerialAPI, tkt: tktHOTP, cfg: cfgChallenge | cfgChallengeHMAC | flags}
}

// fips198 is the answer to "Sample #2" (FIPS 198, A.2; ykchalresp(1) shows the same).
const fips198 = "0922d3405faa3d194f82a45830737d5cc6c75d24"

// respond sends a challenge and returns the answer of n bytes; empty if there is none.
func (h host) respond(command byte, challenge string, n int) string {
	h.t.Helper()
	h.frame(command, []byte(challenge))
	return h.answer(n)
}

func (h host) answer(n int) string {
	h.t.Helper()
	r := h.response()
	if r == nil {
		return ""
	}
	if len(r) != (n+2+6)/7*7 || crc16(r[:n+2]) != crcResidual {
		h.t.Fatalf("a damaged answer: %x", r)
	}
	return hex.EncodeToString(r[:n])
}

func TestHMACChallenge(t *testing.T) {
	mac := func(message string) string {
		m := hmac.New(sha1.New, hmacConfig(0).key)
		m.Write([]byte(message))
		return hex.EncodeToString(m.Sum(nil))
	}
	padded := func(s string) string { return s + strings.Repeat("\x00", payloadSize-len(s)) }
	h := open(t, newKey(t, Options{}))
	h.wrote(cmdConfig1, hmacConfig(cfgChallengeLess64).payload())
	h.wrote(cmdConfig2, hmacConfig(0).payload())
	for _, c := range []struct {
		name      string
		command   byte
		challenge string
		want      string
	}{
		{"FIPS 198", cmdChallengeHMAC1, "Sample #2", fips198},
		{"whole block", cmdChallengeHMAC2, "Sample #2", mac(padded("Sample #2"))},
		{"63 bytes", cmdChallengeHMAC1, strings.Repeat("x", 63), mac(strings.Repeat("x", 63))},
		{"padded with something else", cmdChallengeHMAC1, "a zero \x00" + strings.Repeat("\x01", payloadSize-8), mac("a zero \x00")},
		{"zeros at the end count as padding", cmdChallengeHMAC1, "a zero \x00", mac("a zero ")},
		{"nothing but padding", cmdChallengeHMAC1, "", mac("")},
		{"64 bytes in a slot for less", cmdChallengeHMAC1, strings.Repeat("x", 63) + "y", mac(strings.Repeat("x", 63))},
		{"64 bytes", cmdChallengeHMAC2, strings.Repeat("x", 64), mac(strings.Repeat("x", 64))},
	} {
		if got := h.respond(c.command, c.challenge, sha1.Size); got != c.want {
			t.Errorf("%s: %s, not %s", c.name, got, c.want)
		}
	}
	if r := h.ready(); r[5] != 0x03 {
		t.Fatalf("neither slot needs a touch, but the status is %x", r)
	}
}

func TestNoAnswerToAChallenge(t *testing.T) {
	otp := config{key: rfcSeed[:16], tkt: tktHOTP, cfg: cfgChallenge}
	dormant := hmacConfig(0)
	dormant.ext |= extDormant
	typed := config{key: rfcSeed[:16]}
	for name, c := range map[string]struct {
		conf    config
		command byte
	}{
		"another kind":      {otp, cmdChallengeHMAC1},
		"the other kind":    {hmacConfig(0), cmdChallengeOTP1},
		"the empty slot":    {hmacConfig(0), cmdChallengeHMAC2},
		"a dormant slot":    {dormant, cmdChallengeHMAC1},
		"an HOTP slot":      {hotpConfig(), cmdChallengeHMAC1},
		"a slot that types": {typed, cmdChallengeOTP1},
	} {
		h := open(t, newKey(t, Options{}))
		if !h.wrote(cmdConfig1, c.conf.payload()) {
			t.Fatalf("%s: refused", name)
		}
		if got := h.respond(c.command, "challenge", sha1.Size); got != "" {
			t.Errorf("%s answered %s", name, got)
		}
	}
	old := open(t, newKey(t, Options{Firmware: device.Version{Major: 2, Minor: 1, Build: 9}}))
	if old.wrote(cmdConfig1, hmacConfig(0).payload()) || old.respond(cmdChallengeHMAC1, "x", sha1.Size) != "" {
		t.Fatal("challenge-response before 2.2")
	}
}

// ticket is what a Yubico OTP says, decrypted (ykdef.h, struct ticket_st).
type ticket struct {
	uid     string
	uses    uint16
	stamp   uint32
	session uint8
}

func decrypt(t *testing.T, key []byte, otp string) ticket {
	t.Helper()
	p, err := hex.DecodeString(otp)
	if err != nil || len(p) != 16 {
		t.Fatalf("%q is no Yubico OTP", otp)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	block.Decrypt(p, p)
	if crc16(p) != crcResidual {
		t.Fatalf("the CRC of %x is wrong", p)
	}
	return ticket{
		uid:     string(p[:6]),
		uses:    binary.LittleEndian.Uint16(p[6:]),
		stamp:   uint32(p[8]) | uint32(p[9])<<8 | uint32(p[10])<<16,
		session: p[11],
	}
}

func TestYubicoChallenge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKey(t, Options{})
		h := open(t, k)
		c := config{key: rfcSeed[:16], ext: extSerialAPI, tkt: tktHOTP, cfg: cfgChallenge}
		p := c.payload()
		copy(p[offUID:], "\x01\x02\x03\x04\x05\x06")
		crc := ^crc16(p[:50])
		p[50], p[51] = byte(crc), byte(crc>>8)
		if !h.wrote(cmdConfig2, p) {
			t.Fatal("refused")
		}
		ask := func() ticket {
			t.Helper()
			return decrypt(t, c.key, h.respond(cmdChallengeOTP2, "\x10\x20\x30\x40\x50\x60 and what follows does not matter", 16))
		}
		const mixed = "\x11\x22\x33\x44\x55\x66"
		first := ask()
		if first.uid != mixed || first.uses != 1 || first.session != 0 {
			t.Fatalf("%+v", first)
		}
		<-time.After(10 * time.Second)
		second := ask()
		if want := (ticket{mixed, 1, (first.stamp + 80) & 0xFFFFFF, 1}); second != want {
			t.Fatalf("%+v, not %+v", second, want)
		}
		for range 254 {
			ask()
		}
		if got := ask(); got.uses != 2 || got.session != 1 {
			t.Fatalf("after 256 uses: %+v", got)
		}
		k.Remove()
		k.Insert()
		h = open(t, k)
		if got := ask(); got.uses != 3 || got.session != 0 {
			t.Fatalf("after it was pulled: %+v", got)
		}
	})
}

func TestTypedYubicoOTP(t *testing.T) {
	k := newKey(t, Options{})
	h := open(t, k)
	c := config{fixed: []byte{0, 0, 0x12, 0x34}, key: rfcSeed[:16], tkt: tktEnter}
	h.wrote(cmdConfig1, c.payload())
	h.r.Close()
	for session := range uint8(3) {
		typed, ok := strings.CutPrefix(strings.TrimSuffix(touch(t, k, false), "\n"), modhexOf(c.fixed))
		var p []byte
		for i := 0; ok && i+1 < len(typed); i += 2 {
			const alphabet = "cbdefghijklnrtuv"
			p = append(p, byte(strings.IndexByte(alphabet, typed[i])<<4|strings.IndexByte(alphabet, typed[i+1])))
		}
		if got := decrypt(t, c.key, hex.EncodeToString(p)); got.uid != "\x00\x00\x00\x00\x00\x00" || got.uses != 1 || got.session != session {
			t.Fatalf("touch %d: %+v", session, got)
		}
	}
}

func TestChallengeWaitsForATouch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKey(t, Options{})
		h := open(t, k)
		h.wrote(cmdConfig1, hotpConfig().payload())
		h.wrote(cmdConfig2, hmacConfig(cfgChallengeLess64|cfgChallengeTouch).payload())
		status := [8]byte{0, 5, 4, 3, 2, 0x0F}
		if r := h.get(); r != status {
			t.Fatalf("before: %x", r)
		}
		ask := func() { h.t.Helper(); h.frame(cmdChallengeHMAC2, []byte("Sample #2")) }
		waits := func(seconds byte) bool {
			want := status
			want[7] = flagTouchWait | seconds
			return h.get() == want
		}
		short := func(to string) {
			t.Helper()
			if got, err := k.touch(false); err != nil || got != (bussocket.Touch{To: to}) {
				t.Fatalf("the touch went to %+v, %v", got, err)
			}
		}
		// A touch of either length is the answer, once.
		for _, long := range []bool{false, true} {
			ask()
			if !waits(15) {
				t.Fatalf("it does not wait: %x", h.get())
			}
			<-time.After(4500 * time.Millisecond)
			if !waits(11) {
				t.Fatalf("after 4.5 s: %x", h.get())
			}
			if text, held, err := k.Touch(long); text != "" || held || err != nil {
				t.Fatalf("the touch typed %q, held %v, %v", text, held, err)
			}
			if got := h.answer(sha1.Size); got != fips198 {
				t.Fatalf("answer %s", got)
			}
		}
		// Nobody touches it in time.
		ask()
		<-time.After(15*time.Second - 1)
		if !waits(1) {
			t.Fatalf("just before the end: %x", h.get())
		}
		<-time.After(1)
		if r := h.get(); r != status {
			t.Fatalf("after 15 s: %x", r)
		}
		short(bussocket.ToHolder) // it types as always
		h.input(7)
		// A reset, another frame and a pull end the waiting.
		for name, end := range map[string]func(){
			"reset": func() { h.set([]byte{7: resetYkpers}) },
			"frame": func() { h.serial() },
			"removal": func() {
				k.Remove()
				k.Insert()
				h = open(t, k)
			},
		} {
			ask()
			end()
			if r := h.get(); r != status {
				t.Fatalf("%s: %x", name, r)
			}
			short(bussocket.ToHolder)
			h.input(7)
		}
	})
}

func TestChallengeWithADamagedAnswer(t *testing.T) {
	k := newKey(t, Options{})
	h := open(t, k)
	h.wrote(cmdConfig1, hmacConfig(0).payload())
	fault(t, k, FaultBadCRC, 1)
	h.frame(cmdChallengeHMAC1, nil)
	if r := h.response(); crc16(r[:22]) == crcResidual {
		t.Fatal("the fault does not strike")
	}
	if h.respond(cmdChallengeHMAC1, "", sha1.Size) == "" {
		t.Fatal("no answer after the fault")
	}
}

func TestTouchLevel(t *testing.T) {
	inverted := hotpConfig()
	inverted.ext |= extLEDInverted
	for _, c := range []struct {
		fw   device.Version
		conf config
		want byte
	}{
		{device.Version{Major: 2, Minor: 0, Build: 9}, config{key: rfcSeed[:16]}, 0x00},
		{device.Version{Major: 2, Minor: 3, Build: 1}, hotpConfig(), 0x02},
		{device.Version{Major: 3, Minor: 0, Build: 0}, hotpConfig(), 0x0A},
		{fw5, config{key: rfcSeed[:16]}, 0x0A},
		{fw5, hmacConfig(0), 0x02},
		{fw5, hmacConfig(cfgChallengeTouch), 0x0A},
		{fw5, inverted, 0x1A},
	} {
		h := open(t, newKey(t, Options{Firmware: c.fw}))
		if !h.wrote(cmdConfig2, c.conf.payload()) {
			t.Fatalf("%v: refused", c.fw)
		}
		if r := h.ready(); !slices.Equal(r[5:7], []byte{c.want, 0}) {
			t.Errorf("%v: touch level %x, not %02x", c.fw, r[5:7], c.want)
		}
	}
}
