package emulator

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"tokendesk/device"
)

const selectOTP = "00a4040007a0000005272001"

// cardHost is the other end of the smart card.
type cardHost struct {
	t *testing.T
	k *YubiKey
}

// newCardHost gives the card power, as a reader does.
func newCardHost(t *testing.T, o Options) (*YubiKey, cardHost) {
	t.Helper()
	o.VPCD = "127.0.0.1:1"
	k := newKey(t, o)
	k.card.PowerUp()
	return k, cardHost{t, k}
}

// say sends an APDU in hexadecimal and returns the answer so.
func (c cardHost) say(apdu string) string {
	c.t.Helper()
	b, err := hex.DecodeString(apdu)
	if err != nil {
		c.t.Fatal(err)
	}
	return hex.EncodeToString(c.k.card.Transmit(b))
}

func (c cardHost) want(apdu, answer string) {
	c.t.Helper()
	if got := c.say(apdu); got != answer {
		c.t.Fatalf("%s was answered with %s, not %s", apdu, got, answer)
	}
}

// command sends a slot command with the 58 bytes that programs send over a card, or with none.
func (c cardHost) command(command byte, payload []byte, answer string) {
	c.t.Helper()
	apdu := []byte{0, 1, command, 0}
	if payload != nil {
		apdu = append(append(apdu, configSize+codeSize), payload[:configSize+codeSize]...)
	}
	c.want(hex.EncodeToString(apdu), answer)
}

func TestBothFacesAreOneApplication(t *testing.T) {
	k, c := newCardHost(t, Options{})
	c.want(selectOTP, "0504030000009000")
	c.command(cmdConfig2, hotpConfig().payload(), "050403010a009000")
	if got := touch(t, k, true); got != "755224\n" {
		t.Errorf("configured over the card, a touch types %q", got)
	}
	h := open(t, k)
	if r := h.ready(); r != [8]byte{0, 5, 4, 3, 1, 0x0A, 0, 0} {
		t.Errorf("the keyboard tells %x", r)
	}
	protected := hotpConfig()
	protected.newCode, protected.cfg = locked, cfg8Digits
	if !h.wrote(cmdConfig2, protected.payload()) {
		t.Fatal("the keyboard refuses a write")
	}
	c.want("00030000", "050403020a009000")
	c.command(cmdConfig2, hotpConfig().payload(), "050403020a009000") // without the access code
	update := config{ext: extAllowUpdate | extSerialAPI, tkt: tktTabFirst, newCode: locked, current: locked}
	c.command(cmdUpdate2, update.payload(), "050403030a009000")
	c.command(cmdSwap, nil, "0504030405009000")
	h.r.Close()
	if got := touch(t, k, false); got != "\t84755224" {
		t.Errorf("updated and swapped over the card, a touch types %q", got)
	}
	k.Remove()
	k.Insert()
	k.card.PowerUp()
	c.want("00030000", "6d00") // nothing is selected
	c.want(selectOTP, "0504030405009000")
	c.command(cmdConfig1, deletion([codeSize]byte{}), "0504030405009000")
	c.command(cmdConfig1, deletion(locked), "0504030000009000")
}

func TestSerialOverCard(t *testing.T) {
	const serial, refused = "00bc614e9000", "6985"
	k, c := newCardHost(t, Options{})
	c.say(selectOTP)
	c.want("00011000", serial)
	hidden := hotpConfig()
	hidden.ext = 0
	c.command(cmdConfig1, hidden.payload(), "0504030105009000")
	c.want("00011000", refused)
	c.command(cmdConfig2, hotpConfig().payload(), "050403020f009000")
	c.want("00011000", serial)
	if err := k.SetFault(FaultSerialHidden, 0); err != nil {
		t.Fatal(err)
	}
	c.want("00011000", refused)
}

// A challenge is answered by the keyboard only, also if its slot was configured over the card.
func TestChallengeBesideCard(t *testing.T) {
	k, c := newCardHost(t, Options{})
	c.say(selectOTP)
	c.command(cmdConfig2, hmacConfig(cfgChallengeLess64).payload(), "0504030102009000")
	c.want("00013800"+"09"+hex.EncodeToString([]byte("Sample #2")), "6985")
	if got := open(t, k).respond(cmdChallengeHMAC2, "Sample #2", 20); got != fips198 {
		t.Errorf("the keyboard answers %s", got)
	}
}

func TestWhichFirmwareHasOTPOnItsCard(t *testing.T) {
	for text, has := range map[string]bool{
		"3.4.9": true, "4.0.0": false, "4.3.7": false, "5.2.7": false, "5.3.0": true, "5.7.1": true,
	} {
		v, err := device.ParseVersion(text)
		if err != nil {
			t.Fatal(err)
		}
		_, c := newCardHost(t, Options{Firmware: v})
		want := "6a82"
		if has {
			want = hex.EncodeToString([]byte{v.Major, v.Minor, v.Build, 0, 0, 0, 0x90, 0})
		}
		if got := c.say(selectOTP); got != want {
			t.Errorf("%s answers %s, not %s", text, got, want)
		}
	}
}

// While the keyboard of a NEO is used, its card is out of the reader.
func TestNEOEjectsItsCard(t *testing.T) {
	for firmware, ejects := range map[device.Version]bool{{Major: 3, Minor: 4, Build: 9}: true, fw5: false} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		k := newKey(t, Options{Firmware: firmware, VPCD: l.Addr().String(), Timing: &Timing{Reclaim: 200 * time.Millisecond}})
		serveCard(t, k)
		d := awaitVPCD(t, l)
		d.send(vpcdOn)
		if atr := d.ask(vpcdATR); !bytes.Equal(atr, k.card.ATR()) {
			t.Fatalf("the ATR is %x", atr)
		}
		h := open(t, k)
		if h.serial(); !ejects {
			d.ask(vpcdATR)
			continue
		}
		d.awaitEnd()
		back := awaitVPCD(t, l)
		k.mu.Lock()
		if left := time.Until(k.away); left > 0 {
			t.Errorf("the card is back %v too early", left)
		}
		k.mu.Unlock()
		back.send(vpcdOn)
		back.ask(vpcdATR)
	}
}

// Before firmware 5.4.3 the card does not tell what became of what was written over it, until the key is inserted again.
func TestStatusThatStays(t *testing.T) {
	k, c := newCardHost(t, Options{Firmware: device.Version{Major: 5, Minor: 4, Build: 2}})
	c.say(selectOTP)
	c.command(cmdConfig1, hotpConfig().payload(), "0504020100009000")
	c.command(cmdConfig2, hotpConfig().payload(), "0504020000009000") // falls
	c.want(selectOTP, "0504020000009000")
	if r := open(t, k).ready(); r[5] != 0x0F {
		t.Errorf("the keyboard tells %x", r)
	}
	k.Remove()
	k.Insert()
	k.card.PowerUp()
	c.want(selectOTP, "050402000f009000")
	c.command(cmdConfig2, deletion([codeSize]byte{}), "050402010f009000")
	c.command(cmdConfig1, deletion([codeSize]byte{1}), "050402000f009000") // where there is no access code, any will do
	c.command(cmdConfig1, deletion([codeSize]byte{}), "050402010f009000")
	k.Remove()
	k.Insert()
	k.card.PowerUp()
	c.want(selectOTP, "0504020000009000")
}

func TestFaultsOverCard(t *testing.T) {
	begin := func(t *testing.T, kind Fault) (*YubiKey, cardHost) {
		t.Helper()
		k, c := newCardHost(t, Options{})
		c.say(selectOTP)
		if err := k.SetFault(kind, 0); err != nil {
			t.Fatal(err)
		}
		return k, c
	}
	t.Run("rejected", func(t *testing.T) {
		_, c := begin(t, FaultRejectWrite)
		c.command(cmdConfig1, hotpConfig().payload(), "0504030000009000")
		c.command(cmdConfig1, hotpConfig().payload(), "0504030105009000")
	})
	t.Run("status lost", func(t *testing.T) {
		k, c := begin(t, FaultLostStatus)
		c.command(cmdConfig1, hotpConfig().payload(), "0504030000009000")
		if touch(t, k, false) == "" {
			t.Error("the write was lost, and not its status")
		}
	})
	t.Run("pulled after a write", func(t *testing.T) {
		k, c := begin(t, FaultUnplugAfterWrite)
		c.command(cmdConfig1, hotpConfig().payload(), "")
		if _, err := k.Open(t.Context()); !errors.Is(err, device.ErrGone) {
			t.Errorf("the keyboard is there: %v", err)
		}
		k.Insert()
		c.command(cmdSwap, nil, "") // the card has no power yet
		if touch(t, k, false) == "" {
			t.Error("the write was lost")
		}
	})
}

// Pulled before a write is complete, the key keeps what it had, and answers nothing.
func TestPulledWhileCardWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		timing := RealTiming()
		k, c := newCardHost(t, Options{Timing: &timing})
		c.say(selectOTP)
		start := time.Now()
		c.command(cmdConfig1, hotpConfig().payload(), "0504030105009000")
		if d := time.Since(start); d != timing.Commit {
			t.Errorf("a write took %v", d)
		}
		answer := make(chan []byte)
		erase := append([]byte{0, 1, cmdConfig1, 0, configSize + codeSize}, make([]byte, configSize+codeSize)...)
		go func() { answer <- k.card.Transmit(erase) }()
		<-time.After(timing.Commit - 1)
		k.Remove()
		if got := <-answer; len(got) > 0 {
			t.Errorf("pulled, it answers %x", got)
		}
		k.Insert()
		if r := open(t, k).ready(); !bytes.Equal(r[:6], []byte{0, 5, 4, 3, 1, 0x05}) {
			t.Errorf("an incomplete write took: %x", r)
		}
	})
}
