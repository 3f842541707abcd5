package emulator

import (
	"regexp"
	"testing"
	"testing/synctest"
	"time"
)

func TestTyping(t *testing.T) {
	id := []byte{0xE1, 0x63, 0x12, 0x34, 0x56, 0x78}
	hexID := []byte{0xAF, 0x09}
	const code = "755224" // RFC 4226, appendix D, counter 0
	for _, c := range []struct {
		name string
		conf config
		want string
	}{
		{"bare", config{tkt: tktHOTP}, code},
		{"8 digits", config{tkt: tktHOTP, cfg: cfg8Digits}, "84755224"},
		{"Enter", config{tkt: tktHOTP | tktEnter}, code + "\n"},
		{"every tab", config{fixed: id, tkt: tktHOTP | tktTabFirst | tktTabFixed | tktTabOTP | tktEnter, cfg: cfgModhex2}, "\tubhe12345678\t" + code + "\t\n"},
		{"no modhex", config{fixed: []byte{0x12, 0x90}, tkt: tktHOTP}, "1290" + code},
		{"a nibble above 9", config{fixed: hexID, tkt: tktHOTP}, "lv09" + code},
		{"first byte modhex", config{fixed: id, tkt: tktHOTP, cfg: cfgModhex1}, "ub6312345678" + code},
		{"two bytes modhex", config{fixed: id, tkt: tktHOTP, cfg: cfgModhex2}, "ubhe12345678" + code},
		{"all modhex", config{fixed: id, tkt: tktHOTP, cfg: cfgModhex1 | cfgModhex2}, modhexOf(id) + code},
		{"keypad", config{fixed: id, tkt: tktHOTP | tktEnter, cfg: cfgModhex2, ext: extKeypad}, "ubhe12345678" + code + "\n"},
		{"dormant", config{tkt: tktHOTP, ext: extDormant}, ""},
		{"challenge-response", config{tkt: tktHOTP, cfg: cfgChallenge | 0x02}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newKey(t, Options{})
			h := open(t, k)
			c.conf.key = rfcSeed
			if !h.wrote(cmdConfig1, c.conf.payload()) {
				t.Fatal("refused")
			}
			h.r.Close()
			if got := touch(t, k, false); got != c.want {
				t.Fatalf("typed %q, not %q", got, c.want)
			}
		})
	}
}

func modhexOf(p []byte) string {
	const alphabet = "cbdefghijklnrtuv"
	var s string
	for _, b := range p {
		s += string(alphabet[b>>4]) + string(alphabet[b&0xF])
	}
	return s
}

func TestKeypadUsages(t *testing.T) {
	k := newKey(t, Options{})
	h := open(t, k)
	c := config{fixed: []byte{0x10, 0x29}, key: rfcSeed, tkt: tktHOTP, ext: extKeypad}
	h.wrote(cmdConfig1, c.payload())
	k.Touch(false)
	for _, usage := range []byte{0x59, 0x62, 0x5A, 0x61} { // 1 0 2 9 of the keypad
		p := make([]byte, reportSize)
		for _, want := range []byte{usage, 0} {
			if n, err := h.r.ReadInput(p, 0); n != reportSize || err != nil || p[2] != want {
				t.Fatalf("%x, %v; usage %02x was due", p, err, want)
			}
		}
	}
}

func TestShiftAndScanMap(t *testing.T) {
	k := newKey(t, Options{})
	h := open(t, k)
	c := hotpConfig()
	c.tkt = tktHOTP
	h.wrote(cmdConfig1, c.payload())
	shifted := defaultScanMap
	for i := mapDigits; i < mapDigits+10; i++ {
		shifted[i] |= shiftBit
	}
	if !h.wrote(cmdScanMap, shifted[:]) {
		t.Fatal("scan map refused")
	}
	k.Touch(false)
	if got := h.input(6); got != "&%%@@$" { // 755224 with shift
		t.Fatalf("typed %q", got)
	}
	h.wrote(cmdScanMap, nil)
	k.Touch(false)
	if got := h.input(6); got != "287082" {
		t.Fatalf("typed %q after the map was restored", got)
	}
}

func TestOtherSlotsTypeModhex(t *testing.T) {
	k := newKey(t, Options{})
	h := open(t, k)
	c := config{fixed: []byte{0, 0, 0x12, 0x34, 0x56, 0x78}, key: rfcSeed[:16], tkt: tktEnter}
	h.wrote(cmdConfig2, c.payload())
	h.r.Close()
	got := touch(t, k, true)
	if !regexp.MustCompile(`^cccc` + modhexOf(c.fixed[2:]) + `[cbdefghijklnrtuv]{32}\n$`).MatchString(got) {
		t.Fatalf("typed %q", got)
	}
	if touch(t, k, true) == got {
		t.Fatal("the same one-time password twice")
	}
}

func TestDelaysAndPacing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKey(t, Options{Timing: &Timing{Stroke: time.Millisecond}})
		h := open(t, k)
		c := hotpConfig()
		c.tkt = tktHOTP | tktEnter | tktDelayFixed | tktDelayOTP
		c.cfg = cfgPacing10 | cfgPacing20
		h.wrote(cmdConfig1, c.payload())
		start := time.Now()
		k.Touch(false)
		h.input(7)
		if d, want := time.Since(start), 2*delay+7*(30+2)*time.Millisecond; d != want {
			t.Fatalf("typing took %v, not %v", d, want)
		}
	})
}

func TestQueueKeepsTheOldest(t *testing.T) {
	k := newKey(t, Options{})
	h := open(t, k)
	c := hotpConfig()
	c.tkt = tktHOTP
	h.wrote(cmdConfig1, c.payload())
	for range queueSize {
		k.Touch(false)
	}
	if n := len(h.r.(*Handle).queue); n != queueSize {
		t.Fatalf("%d reports are queued", n)
	}
	if got := h.input(6); got != "755224" {
		t.Fatalf("the oldest code was %q", got)
	}
}
