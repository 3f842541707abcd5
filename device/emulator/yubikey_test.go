package emulator

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tokendesk/device"
)

// golden is what ykpersonalize sends: slot 2, 8 digits, start counter 16, RFC 4226 key, token identifier of
// serial 12345678, new access code 010203040506. Chunks 1 and 8 are zero and left out.
var golden = []string{
	"e163123456780080", "0000373839300082", "0131323334353683", "3738393031323384",
	"3435360102030485", "0506062460420086", "006cb30000000087", "0003955600000089",
}

func TestGoldenWrite(t *testing.T) {
	k := newKey(t, Options{})
	h := open(t, k)
	if r := h.get(); r != [8]byte{0, 5, 4, 3} {
		t.Fatalf("status of an empty key: %x", r)
	}
	h.reports(golden...)
	if r := h.ready(); r != [8]byte{0, 5, 4, 3, 1, 0x0A, 0, 0} {
		t.Fatalf("status after the write: %x", r)
	}
	if _, held, err := k.Touch(true); err != nil || !held {
		t.Fatalf("%v, held %v", err, held)
	}
	if got := h.input(21); got != "ubhe1234567822186581\n" {
		t.Fatalf("typed %q", got)
	}
	p := make([]byte, reportSize)
	if n, err := h.r.ReadInput(p, 0); n != 0 || err != nil {
		t.Fatalf("more input: %d, %v", n, err)
	}
	if err := h.r.Close(); err != nil {
		t.Fatal(err)
	}
	if got, want := touch(t, k, true), "ubhe12345678"+oathtool(t, rfcSeed, 17, 8)+"\n"; got != want {
		t.Fatalf("the next code is %q, not %q", got, want)
	}
	if got := touch(t, k, false); got != "" {
		t.Fatalf("the empty slot types %q", got)
	}
}

func TestGoldenSerial(t *testing.T) {
	h := open(t, newKey(t, Options{}))
	h.reports("0000000000000080", "00106b5b00000089")
	want := []byte{0x00, 0xBC, 0x61, 0x4E} // 12345678
	got := h.response()
	if len(got) != 7 || !bytes.Equal(got[:4], want) || crc16(got[:6]) != crcResidual || got[6] != 0 {
		t.Fatalf("serial response %x", got)
	}
	if r := h.get(); r[7] != 0 {
		t.Fatalf("after the end mark: %x", r)
	}
}

func oathtool(t *testing.T, key []byte, counter, digits int) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "oathtool", "--hotp", fmt.Sprintf("--counter=%d", counter), fmt.Sprintf("--digits=%d", digits), hex.EncodeToString(key)).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func TestCodesAgreeWithOathtool(t *testing.T) {
	for _, c := range []struct{ size, digits, start int }{{20, 6, 0}, {20, 8, 16}, {16, 6, 0xFFFF * 16}, {1, 8, 160}} {
		seed := make([]byte, c.size)
		rand.Read(seed)
		k := newKey(t, Options{})
		h := open(t, k)
		conf := hotpConfig()
		conf.key, conf.start, conf.tkt = seed, uint16(c.start/16), tktHOTP
		if c.digits == 8 {
			conf.cfg = cfg8Digits
		}
		if !h.wrote(cmdConfig1, conf.payload()) {
			t.Fatal("refused")
		}
		h.r.Close()
		padded := make([]byte, 20) // zeros at the end of an HMAC key change nothing (RFC 2104)
		copy(padded, seed)
		for i := range 3 {
			if got, want := touch(t, k, false), oathtool(t, padded, c.start+i, c.digits); got != want {
				t.Fatalf("%+v, code %d: %s, not %s", c, i, got, want)
			}
		}
	}
}

func TestCounterSurvivesRemoval(t *testing.T) {
	k := newKey(t, Options{})
	h := open(t, k)
	h.wrote(cmdConfig1, hotpConfig().payload())
	h.r.Close()
	// RFC 4226, appendix D.
	for i, want := range []string{"755224\n", "287082\n", "359152\n"} {
		if got := touch(t, k, false); got != want {
			t.Fatalf("code %d: %q", i, got)
		}
		k.Remove()
		if _, _, err := k.Touch(false); err != device.ErrGone {
			t.Fatalf("touching a pulled key: %v", err)
		}
		k.Insert()
	}
	if r := open(t, k).get(); r[4] != 1 || r[5] != 0x05 {
		t.Fatalf("status %x", r)
	}
}

func TestProgramSequence(t *testing.T) {
	h := open(t, newKey(t, Options{}))
	for i := range 256 {
		if h.frame(cmdConfig1, hotpConfig().payload()); h.sequence() != byte(i+1) {
			t.Fatalf("after write %d it is %d", i+1, h.sequence())
		}
	}
	h.frame(cmdConfig2, hotpConfig().payload())
	if r := h.ready(); r[4] != 1 || r[5] != 0x0F {
		t.Fatalf("both slots configured: %x", r)
	}
	h.frame(cmdConfig1, deletion([6]byte{}))
	if r := h.ready(); r[4] != 2 || r[5] != 0x0A {
		t.Fatalf("slot 1 deleted: %x", r)
	}
	h.frame(cmdConfig2, deletion([6]byte{}))
	if r := h.ready(); r[4] != 0 || r[5] != 0 {
		t.Fatalf("both deleted: %x", r)
	}
}

func TestAccessCode(t *testing.T) {
	h := open(t, newKey(t, Options{}))
	protected := hotpConfig()
	protected.newCode = locked
	if !h.wrote(cmdConfig1, protected.payload()) {
		t.Fatal("an empty slot refused a configuration")
	}
	wrong := [6]byte{1, 2, 3, 4, 5, 7}
	for _, current := range [][6]byte{{}, wrong} {
		c := protected
		c.current = current
		if h.wrote(cmdConfig1, c.payload()) || h.wrote(cmdConfig1, deletion(current)) || h.wrote(cmdUpdate1, c.payload()) {
			t.Fatalf("changed under the code %x", current)
		}
	}
	c := hotpConfig() // without a new code the protection goes away
	c.current = locked
	if !h.wrote(cmdConfig1, c.payload()) {
		t.Fatal("refused with the right code")
	}
	if !h.wrote(cmdConfig1, protected.payload()) {
		t.Fatal("still protected after a rewrite without a new code")
	}
	if !h.wrote(cmdConfig1, deletion(locked)) {
		t.Fatal("deletion refused with the right code")
	}
	if r := h.ready(); r[4] != 0 || r[5] != 0 {
		t.Fatalf("status %x", r)
	}
}

func TestRefusals(t *testing.T) {
	badCRC := hotpConfig().payload()
	badCRC[50] ^= 1
	tooLong := config{fixed: make([]byte, 17)}.payload()
	noUpdate := hotpConfig()
	noUpdate.ext = extSerialAPI
	keypad := hotpConfig()
	keypad.ext |= extKeypad
	start := hotpConfig()
	start.start = 1
	protect := hotpConfig()
	protect.tkt |= tktProtectSlot2
	plain := hotpConfig().payload()
	for _, c := range []struct {
		name    string
		fw      string
		before  []byte // slot 1
		command byte
		payload []byte
		want    bool
	}{
		{"config CRC", "5.4.3", nil, cmdConfig1, badCRC, false},
		{"fixed size", "5.4.3", nil, cmdConfig1, tooLong, false},
		{"slot 2 on 1.3", "1.3.0", nil, cmdConfig2, config{}.payload(), false},
		{"HOTP on 2.0", "2.0.9", nil, cmdConfig1, plain, false},
		{"HOTP on 2.1", "2.1.0", nil, cmdConfig1, plain, true},
		{"start counter on 2.1", "2.1.4", nil, cmdConfig1, start.payload(), false},
		{"start counter on 2.2", "2.2.0", nil, cmdConfig1, start.payload(), true},
		{"keypad on 2.2", "2.2.3", nil, cmdConfig1, keypad.payload(), false},
		{"keypad on 2.3", "2.3.0", nil, cmdConfig1, keypad.payload(), true},
		{"update of an empty slot", "5.4.3", nil, cmdUpdate1, plain, false},
		{"update", "5.4.3", plain, cmdUpdate1, plain, true},
		{"update on 2.2", "2.2.3", plain, cmdUpdate1, plain, false},
		{"update without ALLOW_UPDATE", "5.4.3", noUpdate.payload(), cmdUpdate1, plain, false},
		{"update with a bad CRC", "5.4.3", plain, cmdUpdate1, badCRC, false},
		{"swap", "5.4.3", plain, cmdSwap, nil, true},
		{"swap of nothing", "5.4.3", nil, cmdSwap, nil, false},
		{"swap on 2.2", "2.2.3", plain, cmdSwap, nil, false},
		{"swap without ALLOW_UPDATE", "5.4.3", noUpdate.payload(), cmdSwap, nil, false},
		{"slot 2 protected by slot 1", "5.4.3", protect.payload(), cmdConfig2, plain, false},
		{"scan map on 2.3", "2.3.1", plain, cmdScanMap, defaultScanMap[:], false},
		{"scan map", "3.0.0", plain, cmdScanMap, defaultScanMap[:], true},
		{"NDEF", "5.4.3", plain, 0x08, plain, false},
		{"device configuration", "5.4.3", plain, 0x11, plain, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			fw, err := device.ParseVersion(c.fw)
			if err != nil {
				t.Fatal(err)
			}
			h := open(t, newKey(t, Options{Firmware: fw}))
			if c.before != nil && !h.wrote(cmdConfig1, c.before) {
				t.Fatal("cannot prepare slot 1")
			}
			before := h.ready()
			if got := h.wrote(c.command, c.payload); got != c.want {
				t.Fatalf("taken %v, status %x", got, h.ready())
			}
			if after := h.ready(); !c.want && after != before {
				t.Fatalf("refused, but the status went from %x to %x", before, after)
			}
		})
	}
}

func TestUpdateAndSwap(t *testing.T) {
	for fw, codeMoves := range map[string]bool{"4.3.1": true, "4.3.2": false, "4.3.5": false, "4.3.6": true} {
		v, _ := device.ParseVersion(fw)
		k := newKey(t, Options{Firmware: v})
		h := open(t, k)
		h.wrote(cmdConfig1, hotpConfig().payload())
		u := config{tkt: tktTabFirst | tktProtectSlot2, cfg: cfg8Digits, ext: extAllowUpdate, newCode: locked}
		if !h.wrote(cmdUpdate1, u.payload()) {
			t.Fatal("update refused")
		}
		if s := k.app.slots[0]; s.tkt != tktHOTP|tktTabFirst || s.cfg != 0 || s.ext != extAllowUpdate || (s.accessCode == locked) != codeMoves {
			t.Fatalf("firmware %s after the update: %+v", fw, s)
		}
		if h.serial() != nil {
			t.Fatal("the update did not hide the serial")
		}
		if !h.wrote(cmdSwap, nil) {
			t.Fatal("swap refused")
		}
		if r := h.ready(); r[5] != 0x0A {
			t.Fatalf("after the swap: %x", r)
		}
		h.r.Close()
		if got := touch(t, k, true); got != "\t755224" {
			t.Fatalf("slot 2 types %q", got)
		}
	}
}

func TestSerialVisibility(t *testing.T) {
	hidden := hotpConfig()
	hidden.ext = 0
	h := open(t, newKey(t, Options{}))
	h.wrote(cmdConfig1, hidden.payload())
	if got := h.serial(); got != nil {
		t.Fatalf("hidden serial: %x", got)
	}
	h.wrote(cmdConfig2, hotpConfig().payload())
	if h.serial() == nil {
		t.Fatal("slot 2 shows the serial, but it does not come")
	}
	h.wrote(cmdConfig2, deletion([6]byte{}))
	h.wrote(cmdConfig1, deletion([6]byte{}))
	if h.serial() == nil {
		t.Fatal("both slots are empty, but the serial does not come")
	}
	old := open(t, newKey(t, Options{Firmware: device.Version{Major: 2, Minor: 1, Build: 9}}))
	if got := old.serial(); got != nil {
		t.Fatalf("serial before 2.2: %x", got)
	}
}

func TestReads(t *testing.T) {
	h := open(t, newKey(t, Options{}))
	h.frame(cmdDeviceInfo, nil)
	info := h.response()
	n := int(info[0]) + 1
	if crc16(info[:n+2]) != crcResidual || !bytes.Contains(info[:n], []byte{5, 3, 5, 4, 3}) || !bytes.Contains(info[:n], []byte{2, 4, 0, 0xBC, 0x61, 0x4E}) {
		t.Fatalf("device info %x", info)
	}
	for _, command := range []byte{0x20, 0x28, 0x30, 0x38, 0x00, 0xEE} {
		if h.frame(command, rfcSeed); h.response() != nil {
			t.Fatalf("command %02x got a response", command)
		}
	}
	old := open(t, newKey(t, Options{Firmware: device.Version{Major: 4, Minor: 3, Build: 7}}))
	if old.frame(cmdDeviceInfo, nil); old.response() != nil {
		t.Fatal("device info before 5.0")
	}
}

func TestTiming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		timing := RealTiming()
		k := newKey(t, Options{Timing: &timing})
		start := time.Now()
		h := open(t, k)
		if d := time.Since(start); d != timing.Open {
			t.Fatalf("opening took %v", d)
		}
		c := chunksOf(cmdConfig1, hotpConfig().payload())
		h.set(c[0])
		if r := h.get(); r[7] != flagWritePending {
			t.Fatalf("after a chunk: %x", r)
		}
		if h.set(c[1]); k.app.sequence != 0 { // too early: lost
			t.Fatal("a frame out of nothing")
		}
		<-time.After(timing.Chunk)
		if r := h.get(); r[7] != 0 {
			t.Fatalf("1 ms after a chunk: %x", r)
		}
		for _, chunk := range c {
			h.ready()
			h.set(chunk)
		}
		<-time.After(timing.Commit - 1)
		if r := h.get(); r != [8]byte{0, 5, 4, 3, 0, 0, 0, flagWritePending} {
			t.Fatalf("before the write is complete: %x", r)
		}
		<-time.After(1)
		if r := h.get(); r != [8]byte{0, 5, 4, 3, 1, 0x05, 0, 0} {
			t.Fatalf("when the write is complete: %x", r)
		}
		if want := 11*timing.Chunk + timing.Commit; k.waited != want {
			t.Fatalf("required wait %v, not %v", k.waited, want)
		}
		// Pulled before a write is complete, the key keeps what it had.
		h.frame(cmdConfig1, deletion([6]byte{}))
		k.Remove()
		k.Insert()
		h = open(t, k)
		if r := h.get(); r[4] != 1 || r[5] != 0x05 {
			t.Fatalf("an incomplete write took: %x", r)
		}
		start = time.Now()
		k.Touch(false)
		h.input(7)
		if d := time.Since(start); d != 14*timing.Stroke {
			t.Fatalf("typing took %v", d)
		}
		start = time.Now()
		h.r.Close()
		if d := time.Since(start); d != timing.Close {
			t.Fatalf("closing took %v", d)
		}
	})
}
